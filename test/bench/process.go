package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"text/template"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/test/gate"
)

//go:embed testdata/*.tmpl
var templates embed.FS

// launch runs a contender in its own directory, under an account or, for nil, ours.
func (s setting) launch(account *syscall.Credential, argv ...string) (*gate.Process, error) {
	return gate.Run(gate.Command{
		Argv: argv, Dir: s.Dir, Account: account,
		Env: pgtest.Environ(append(s.env, "OPENSSL_CONF="+s.openssl, "LC_ALL=C")...),
	})
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
	Once       bool // each session opens a new backend, as with the gates that do not pool

	// Of pgwicket alone.
	Allow  []string // networks besides the loopback's
	CRL    string   // a file; empty: no list
	Rules  []string // users that have one each, before the one that lets the clients in
	binary string   // empty: the lab's
	env    []string
	extra  map[string]string // further keys
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

// endpoint is a contender that listens.
type endpoint struct {
	contender contender
	address   string
	process   *gate.Process // nil: it is PostgreSQL itself
	server    int           // PostgreSQL's first process, or 0 where it has no part
	cert      *credentials
	startUp   time.Duration // from its launch until it took connections
}

func (g *endpoint) pid() int {
	if g.process == nil {
		return 0
	}
	return g.process.PID()
}

func (g *endpoint) stop() {
	if g.process != nil {
		_ = g.process.Stop(syscall.SIGTERM, time.Second) // some wait for their clients, which is not needed here
	}
}

// failure adds to an error what the gate has said.
func (g *endpoint) failure(err error) error {
	if g.process == nil || g.process.Tail() == "" {
		return err
	}
	return fmt.Errorf("%w; its log ends with: %s", err, g.process.Tail())
}

// ready waits until a session gets through, and proves that the gate does what
// the others do: TLS 1.3, AES-128-GCM, no certificate no session.
func (g *endpoint) ready(ctx context.Context) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		begin := time.Now()
		err := g.probe(ctx)
		if g.process != nil && g.startUp == 0 && !errors.Is(err, syscall.ECONNREFUSED) {
			g.startUp = begin.Sub(g.process.Started)
		}
		if err == nil {
			return g.expectCertificateRequired(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if g.process != nil && g.process.HasExited() {
			return g.failure(fmt.Errorf("%s has exited", g.contender.title))
		}
		if time.Now().After(deadline) {
			return g.failure(fmt.Errorf("%s does not answer: %w", g.contender.title, err))
		}
		time.Sleep(2 * time.Millisecond) // startUp is as exact as this
	}
}

func (g *endpoint) probe(ctx context.Context) error {
	s, err := dial(ctx, g.target())
	if err != nil {
		return err
	}
	defer s.close()
	return s.query("select 1")
}

func (g *endpoint) expectCertificateRequired(ctx context.Context) error {
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
		return fmt.Errorf("%s admits clients without a certificate", g.contender.title)
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

// logf writes a line of progress.
func logf(w io.Writer, format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
