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

// Superuser is the role that initdb creates.
const Superuser = "postgres"

// startTimeout is the maximum time for the server to answer, on a slow machine.
const startTimeout = 2 * time.Minute

// Options are the settings of a Server. The zero value is a server that trusts every
// client of its socket.
type Options struct {
	HBA      string            // contents of pg_hba.conf; the default is local all all trust
	Ident    string            // contents of pg_ident.conf
	Settings []string          // further settings, as name=value
	SQL      string            // run as the superuser after the start
	Host     string            // an address to listen on over TCP, at Port; empty means none
	Files    map[string][]byte // further files in the data directory
	Dir      string            // the directory to make for it; the default is a new one in TempDir
	BinDir   string            // the directory of initdb and postgres; the default is Find
	LibDir   string            // the directory of their libraries; empty means the default of the system
}

// Server is a running PostgreSQL with its own temporary directory.
type Server struct {
	SocketDir string // mode 0700; only its owner and root can use it
	Port      int
	BinDir    string

	base    string
	account *account // nil for the own account
	options Options
	process *exec.Cmd
	exited  chan struct{}
}

// Start creates a new cluster in a temporary directory, starts it and waits until it
// answers or ctx ends. Later, ctx has no effect. As root, it runs the server as an
// unprivileged account, because initdb and postgres refuse root. The caller must call
// Stop.
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
	base := o.Dir
	if base == "" {
		base, err = os.MkdirTemp(TempDir(account != nil), "pgwicket-pg-")
	} else {
		err = os.Mkdir(base, 0o700)
	}
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
		return nil, fmt.Errorf("start a temporary PostgreSQL: %w", err)
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

// unprivileged returns the account to run the server as, or nil for the own account.
func unprivileged() (*account, error) {
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
			return &account{uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("running as root, and there is no account postgres or nobody to run PostgreSQL as")
}

// TempDir returns the directory for temporary directories. With others, other accounts
// must be able to reach it: that is /tmp if os.TempDir is private to root.
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
	// The other account needs access to its directories.
	if err := os.Chmod(s.base, 0o711); err != nil {
		return err
	}
	for _, dir := range []string{s.data(), s.SocketDir} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if s.account != nil {
			if err := os.Chown(dir, int(s.account.uid), int(s.account.gid)); err != nil {
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
	// In its own process group, so that its child processes end too.
	setProcess(cmd, s.account)
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// environ is the environment of the server programs.
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
		// initdb has created the file, so it keeps its owner.
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
			if err := os.Chown(path, int(s.account.uid), int(s.account.gid)); err != nil {
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
	// In its own process group, so that Ctrl-C reaches only the caller, which then stops
	// the server.
	setProcess(s.process, s.account)
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

// Restart starts an ended server again, with the same data and socket. Remaining
// processes of the old server can prevent a start for some time; Restart retries until
// they have ended or ctx ends. After an error it can be called again.
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

// SQL runs statements as the superuser over the socket, without a gate, and returns the
// output of psql -At.
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

// Environ returns the environment for PostgreSQL's programs: the own environment without
// the PG variables, such as PGHOSTADDR, which select another server, with Neutral and with extra.
func Environ(extra ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	return slices.Concat(env, Neutral(), extra)
}

// Neutral returns variables that keep the settings of an account and of the machine from
// PostgreSQL's programs: password files (libpq warns of one with a wrong mode, and of one
// that is not a regular file, but not of one that does not exist), psqlrc and service files.
// Certificates in ~/.postgresql are for the caller: every test names its own, or "none".
func Neutral() []string {
	return []string{
		"PGPASSFILE=/nonexistent/pgpass", "PGSERVICEFILE=/nonexistent/pg_service.conf", "PGSYSCONFDIR=/nonexistent",
		"PSQLRC=/dev/null", "PSQL_HISTORY=/dev/null",
	}
}

// Log returns the log of the server.
func (s *Server) Log() string {
	b, _ := os.ReadFile(s.log())
	return string(b)
}

// Kill ends the server immediately, without a shutdown checkpoint.
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

// Stop ends the server with a fast shutdown and removes its directory. It can be called
// more than once.
func (s *Server) Stop() {
	s.signal(syscall.SIGINT)
	_ = os.RemoveAll(s.base)
}
