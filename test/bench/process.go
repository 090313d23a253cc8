package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"pgwicket/internal/pgtest"
)

//go:embed testdata/*.tmpl
var templates embed.FS

// process is a gate that runs. Its output goes to a file, so that nobody has to
// read it while the clock runs.
type process struct {
	cmd    *exec.Cmd
	log    string
	began  time.Time
	exited chan struct{}
}

// launch runs a gate in its own directory, under an account or, for nil, ours.
func (s setting) launch(account *syscall.Credential, argv ...string) (*process, error) {
	p := &process{log: filepath.Join(s.Dir, "log"), exited: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = s.Dir
	p.cmd.Env = pgtest.Environ(append(s.env, "OPENSSL_CONF="+s.openssl, "LC_ALL=C")...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A process group of its own: Ctrl-C is for us, who then end it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account, Setpgid: true}
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(time.Second): // some wait for their clients; nobody needs that here
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
	}
}

// tail returns the end of the log, for error messages.
func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return strings.TrimSpace(string(b[max(0, len(b)-400):]))
}

// setting is what every configuration is made of.
type setting struct {
	Dir        string // the gate's own: configuration, certificates, log
	Address    string
	Host, Port string
	SocketDir  string // of the backend
	SocketFile string
	Cert       bool // ask for client certificates
	Sessions   int  // at most
	openssl    string
	Fair       bool // latency beside bulk counts
	Once       bool // a session has a backend of its own, as with the gates that do not pool

	// Of pgwicket alone.
	Allow  []string // networks besides the loopback's
	CRL    string   // a file; empty: no list
	Rules  []string // users that have one each, before the one that lets the clients in
	binary string   // empty: the lab's
	env    []string
}

// render makes the configuration file NAME from testdata/NAME.tmpl.
func (s setting) render(name string) (string, error) {
	t, err := template.ParseFS(templates, "testdata/"+name+".tmpl")
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.Dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644) //nolint:gosec // no secret, and PgBouncer reads it under another account
	if err != nil {
		return "", err
	}
	if err := t.Execute(f, s); err != nil {
		_ = f.Close()
		return "", err
	}
	return path, f.Close()
}

// gate is a contender that listens.
type gate struct {
	contender contender
	address   string
	process   *process // nil: it is PostgreSQL itself
	server    int      // PostgreSQL's first process, or 0 where it has no part
	cert      *credentials
	startUp   time.Duration // from its launch until it took connections
}

func (g *gate) pid() int {
	if g.process == nil {
		return 0
	}
	return g.process.cmd.Process.Pid
}

func (g *gate) stop() {
	if g.process != nil {
		g.process.stop()
	}
}

// failure adds to an error what the gate has said.
func (g *gate) failure(err error) error {
	if g.process == nil || g.process.tail() == "" {
		return err
	}
	return fmt.Errorf("%w; its log ends with: %s", err, g.process.tail())
}

// ready waits until a session gets through, and proves that the gate does what
// the others do: TLS 1.3, AES-128-GCM, no certificate no session.
func (g *gate) ready(ctx context.Context) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		begin := time.Now()
		err := g.probe(ctx)
		if g.process != nil && g.startUp == 0 && !errors.Is(err, syscall.ECONNREFUSED) {
			g.startUp = begin.Sub(g.process.began)
		}
		if err == nil {
			return g.refusesStrangers(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if g.process != nil {
			select {
			case <-g.process.exited:
				return g.failure(fmt.Errorf("%s has ended", g.contender.title))
			default:
			}
		}
		if time.Now().After(deadline) {
			return g.failure(fmt.Errorf("%s does not answer: %w", g.contender.title, err))
		}
		time.Sleep(2 * time.Millisecond) // startUp is as exact as this
	}
}

func (g *gate) probe(ctx context.Context) error {
	s, err := dial(ctx, g.target())
	if err != nil {
		return err
	}
	defer s.close()
	return s.query("select 1")
}

func (g *gate) refusesStrangers(ctx context.Context) error {
	if g.cert == nil {
		return nil
	}
	stranger := *g
	stranger.cert = nil
	t := stranger.target()
	t.user = certUser
	s, err := dial(ctx, t)
	if err == nil {
		s.close()
		return fmt.Errorf("%s lets in clients without a certificate", g.contender.title)
	}
	return nil
}

// copyFile copies with a mode and an owner, because some refuse keys of others.
func copyFile(from, to string, mode os.FileMode, account *syscall.Credential) error {
	in, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, in, mode); err != nil { //nolint:gosec // in our own directory
		return err
	}
	if account == nil {
		return nil
	}
	return os.Chown(to, int(account.Uid), int(account.Gid))
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// say writes a line of progress.
func say(w io.Writer, format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
