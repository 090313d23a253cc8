package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Superuser is the role that initdb makes.
const Superuser = "postgres"

// startTimeout is how long initdb and the first answer may take together on a
// slow, shared machine.
const startTimeout = 2 * time.Minute

// Options say how a Server differs from the plainest one. The zero value gives
// a server that trusts everybody who reaches its socket.
type Options struct {
	HBA      string            // contents of pg_hba.conf; empty: local all all trust
	Ident    string            // contents of pg_ident.conf
	Settings []string          // further settings, as name=value
	SQL      string            // run as the superuser once the server answers
	Host     string            // an address to listen on over TCP, too, at Port; empty: none
	Files    map[string][]byte // further files in the data directory
	BinDir   string            // where initdb and postgres are; empty: what Find finds
	LibDir   string            // where their libraries are; empty: where the system looks
}

// Server is a running PostgreSQL in a directory of its own.
type Server struct {
	SocketDir string // mode 0700; only its owner and root get through
	Port      int
	BinDir    string

	base    string
	account *syscall.Credential // nil: ours
	options Options
	process *exec.Cmd
	exited  chan struct{}
}

// Start makes a new cluster in a temporary directory and waits until it
// answers, or until ctx ends, which has no meaning for it later. As root it runs
// under an unprivileged account, because initdb and postgres refuse root. Stop
// must be called.
func Start(ctx context.Context, o Options) (*Server, error) {
	bindir, err := o.BinDir, error(nil)
	if bindir == "" {
		bindir, err = Find()
	}
	if err != nil {
		return nil, err
	}
	account, err := unprivileged()
	if err != nil {
		return nil, err
	}
	base, err := os.MkdirTemp(TempDir(account != nil), "pgwicket-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{
		SocketDir: filepath.Join(base, "run"),
		Port:      5432,
		BinDir:    bindir,
		base:      base,
		account:   account,
		options:   o,
	}
	if o.Host != "" {
		if s.Port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if err := s.start(ctx); err != nil {
		s.Stop()
		return nil, fmt.Errorf("start a throw-away PostgreSQL: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if err := s.makeDirs(); err != nil {
		return err
	}
	if err := s.initdb(ctx); err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		return err
	}
	if err := s.launch(); err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	if s.options.SQL != "" {
		if _, err := s.SQL(s.options.SQL); err != nil {
			return err
		}
	}
	return nil
}

// unprivileged returns the account to run under, or nil for our own.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("running as root, and there is no account «postgres» or «nobody» to run PostgreSQL under")
}

// TempDir returns where to make a directory that other accounts can be let into:
// the usual place, or /tmp where root has a private one. For none but ours, it is
// the usual place.
func TempDir(others bool) string {
	dir := os.TempDir()
	if !others {
		return dir
	}
	for d := dir; ; d = filepath.Dir(d) {
		if st, err := os.Stat(d); err != nil || st.Mode()&0o001 == 0 {
			return "/tmp"
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

func (s *Server) data() string { return filepath.Join(s.base, "data") }
func (s *Server) log() string  { return filepath.Join(s.base, "run", "postgresql.log") }

func (s *Server) makeDirs() error {
	// The other account must get through to its own directories.
	if err := os.Chmod(s.base, 0o711); err != nil {
		return err
	}
	for _, dir := range []string{s.data(), s.SocketDir} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if s.account != nil {
			if err := os.Chown(dir, int(s.account.Uid), int(s.account.Gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) initdb(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.BinDir, "initdb"),
		"--pgdata="+s.data(), "--username="+Superuser, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Dir = s.base
	cmd.Env = s.environ()
	// In a process group of its own, so that all it starts can be ended, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.account, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// environ is the environment for the server's own programs.
func (s *Server) environ() []string {
	if s.options.LibDir == "" {
		return Environ()
	}
	return Environ("LD_LIBRARY_PATH=" + s.options.LibDir)
}

func (s *Server) configure() error {
	hba := s.options.HBA
	if hba == "" {
		hba = "local all all trust"
	}
	for name, text := range map[string]string{"pg_hba.conf": hba, "pg_ident.conf": s.options.Ident} {
		// initdb has made the file, so its owner stays.
		if err := os.WriteFile(filepath.Join(s.data(), name), []byte(text+"\n"), 0o600); err != nil {
			return err
		}
	}
	for name, data := range s.options.Files {
		path := filepath.Join(s.data(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
		if s.account != nil {
			if err := os.Chown(path, int(s.account.Uid), int(s.account.Gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) launch() error {
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.Port), "-k", s.SocketDir, "-h", s.options.Host}
	for _, setting := range append([]string{
		"fsync=off", "full_page_writes=off", "synchronous_commit=off",
		"max_connections=200", "log_connections=on", "log_disconnections=on", "logging_collector=off",
	}, s.options.Settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.process = exec.Command(filepath.Join(s.BinDir, "postgres"), args...)
	s.process.Dir = s.base
	s.process.Env = s.environ()
	s.process.Stdout, s.process.Stderr = log, log
	// A process group of its own, so that Ctrl-C at a terminal reaches the
	// caller, who then stops the server in order.
	s.process.SysProcAttr = &syscall.SysProcAttr{Credential: s.account, Setpgid: true}
	if err := s.process.Start(); err != nil {
		s.process = nil
		return err
	}
	process, exited := s.process, make(chan struct{})
	s.exited = exited
	go func() {
		_ = process.Wait()
		close(exited)
	}()
	return nil
}

// PID is the process id of the postmaster.
func (s *Server) PID() int { return s.process.Process.Pid }

// Restart starts a server again that has ended, in whatever way, on the same
// data and socket. Backends of the old one may keep it from starting for a
// while; it tries until they have gone. A restart that fails may be repeated.
func (s *Server) Restart(ctx context.Context) error {
	<-s.exited
	for deadline := time.Now().Add(startTimeout); ; {
		if err := s.launch(); err != nil {
			return err
		}
		err := s.waitReady(ctx)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		s.signal(syscall.SIGQUIT)
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *Server) waitReady(ctx context.Context) error {
	deadline := time.After(startTimeout)
	for {
		if _, err := s.SQL("select 1"); err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("postgres exited:\n" + s.Log())
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return errors.New("postgres does not answer:\n" + s.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// SQL runs statements as the superuser over the socket, past any gate, and
// returns what psql -At prints.
func (s *Server) SQL(statements string) (string, error) {
	psql, err := Program("psql")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", s.SocketDir, "-p", strconv.Itoa(s.Port),
		"-U", Superuser, "-d", "postgres", "-f", "-")
	cmd.Env = Environ("PGAPPNAME=pgtest", "PGSSLMODE=disable")
	cmd.Stdin = strings.NewReader(statements)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}

// Environ is the environment for PostgreSQL's programs: ours without the PG
// variables, of which a PGHOSTADDR would lead them to another server, and with
// extra.
func Environ(extra ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	return append(env, extra...)
}

// Log returns what the server has logged so far.
func (s *Server) Log() string {
	b, _ := os.ReadFile(s.log())
	return string(b)
}

// Kill ends the server at once, as a crash would.
func (s *Server) Kill() { s.signal(syscall.SIGQUIT) }

func (s *Server) signal(sig syscall.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(sig)
	select {
	case <-s.exited:
	case <-time.After(20 * time.Second):
		_ = s.process.Process.Kill()
		<-s.exited
	}
}

// Stop ends the server (a fast shutdown) and removes all it has written. It may
// be called more than once.
func (s *Server) Stop() {
	s.signal(syscall.SIGINT)
	_ = os.RemoveAll(s.base)
}
