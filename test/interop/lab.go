//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/test/harness"
)

// The roles of every server of a lab. A role is how one logs in: with a password
// by one of three methods, or with a certificate of its name.
const (
	scramUser      = "app"
	md5User        = "md5_user"
	clearUser      = "clear_user"
	certUser       = "cert_user"
	replicatorUser = "replicator"         // SCRAM, and may replicate
	password       = "a word with spaces" //nolint:gosec // of throw-away servers
)

// patience is how long anything may take that takes a moment, on a machine that
// is slow and busy.
const patience = 90 * time.Second

// lab is where it all happens: a directory, a PKI, and a pgwicket to start. It
// has started servers and gates, and ends them.
type lab struct {
	progress io.Writer
	dir      string // temporary; removed at the end
	store    string // what is installed, kept from run to run: .interop in the module
	frozen   bool   // nothing more is installed
	binary   string // pgwicket, as it is released
	ca       *tlstest.CA

	caFile                string
	serverCert, serverKey string // of the gates and of the servers: for localhost and 127.0.0.1
	clientCert, clientKey string // of certUser

	mu    sync.Mutex
	after []func() // what ends what was started, last first
}

// newLab makes the directory and the PKI and builds pgwicket. remove must be
// called.
func newLab(ctx context.Context, progress io.Writer) (_ *lab, err error) {
	l := &lab{progress: progress}
	defer func() {
		if err != nil {
			l.remove()
		}
	}()
	root, err := harness.Root()
	if err != nil {
		return nil, err
	}
	l.store = filepath.Join(root, ".interop")
	if l.dir, err = os.MkdirTemp("", "pgwicket-interop-"); err != nil {
		return nil, err
	}
	l.ca = tlstest.NewCA("pgwicket interop CA")
	l.caFile = l.file("ca.crt")
	l.serverCert, l.serverKey = l.file("server.crt"), l.file("server.key")
	l.clientCert, l.clientKey = l.file("client.crt"), l.file("client.key")
	if err := errors.Join(
		os.WriteFile(l.caFile, l.ca.CertPEM(), 0o600),
		l.ca.Server("localhost", "127.0.0.1").WriteFiles(l.serverCert, l.serverKey),
		l.ca.Client(certUser).WriteFiles(l.clientCert, l.clientKey),
	); err != nil {
		return nil, err
	}
	l.binary = l.file("pgwicket")
	l.say("building pgwicket")
	return l, harness.Build(ctx, "pgwicket/cmd/pgwicket", l.binary, nil)
}

// remove ends every process that the lab has started, and removes its files.
func (l *lab) remove() {
	l.mu.Lock()
	after := l.after
	l.after = nil
	l.mu.Unlock()
	for _, f := range slices.Backward(after) {
		f()
	}
	if l.dir != "" {
		_ = os.RemoveAll(l.dir)
	}
}

func (l *lab) atEnd(f func()) {
	l.mu.Lock()
	l.after = append(l.after, f)
	l.mu.Unlock()
}

// say writes a line of progress.
func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

// release is an installed PostgreSQL.
type release struct {
	major  string // 17
	origin string // who has built it
	binDir string // initdb, postgres
	libDir string // its libpq and other libraries; empty: the system's
}

// environ is the environment for client programs that shall use the release's
// libpq, with extra.
func (r release) environ(extra ...string) []string {
	env := pgtest.Environ(append([]string{"LC_ALL=C.UTF-8"}, extra...)...)
	if r.libDir != "" {
		env = append(env, "LD_LIBRARY_PATH="+r.libDir)
	}
	return env
}

// server is a running PostgreSQL: on a Unix socket, for a gate, and with TLS on
// loopback, for clients that come straight.
type server struct {
	*pgtest.Server
	release
	version string // 17.10
}

// hba lets everybody in on both ways by the same method, but that over the Unix
// socket it is the gate that has seen the certificate. Without TLS nobody gets
// in over TCP, as at the gate.
const hba = `
local   all         postgres                   trust
local   all         cert_user                  trust
local   all         md5_user                   md5
local   all         clear_user                 password
local   all         all                        scram-sha-256
local   replication all                        scram-sha-256
hostssl all         cert_user     127.0.0.1/32 cert
hostssl all         md5_user      127.0.0.1/32 md5
hostssl all         clear_user    127.0.0.1/32 password
hostssl all         all           127.0.0.1/32 scram-sha-256
hostssl replication all           127.0.0.1/32 scram-sha-256
`

// roles makes the roles, and what the clients need.
const roles = `
set password_encryption = 'scram-sha-256';
create role app login password 'a word with spaces';
create role clear_user login password 'a word with spaces';
create role replicator login replication password 'a word with spaces';
create role cert_user login;
set password_encryption = 'md5';
create role md5_user login password 'a word with spaces';
create schema interop;
grant all on schema interop, public to app, clear_user, md5_user, cert_user, replicator;
`

// startServer starts a server of that release. settings are further ones of
// PostgreSQL, as name=value; sql is run by the superuser. The lab ends it.
func (l *lab) startServer(ctx context.Context, r release, settings []string, sql string) (*server, error) {
	files := make(map[string][]byte)
	for name, path := range map[string]string{"server.crt": l.serverCert, "server.key": l.serverKey, "ca.crt": l.caFile} {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	db, err := pgtest.Start(ctx, pgtest.Options{
		BinDir: r.binDir, LibDir: r.libDir, Host: "127.0.0.1", HBA: hba, Files: files, SQL: roles + sql,
		Settings: append([]string{
			"ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key", "ssl_ca_file=ca.crt",
			"autovacuum=off", "jit=off", "wal_level=logical", "max_wal_senders=20", "max_replication_slots=20",
		}, settings...),
	})
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL %s: %w", r.major, err)
	}
	l.atEnd(db.Stop)
	s := &server{Server: db, release: r}
	version, err := db.SQL("show server_version")
	if err != nil {
		return nil, err
	}
	s.version, _, _ = strings.Cut(version, " ")
	return s, nil
}

// gate is a pgwicket that runs.
type gate struct {
	host   string // 127.0.0.1; its certificate is also for localhost
	port   int
	admin  string
	logged string // the file with its log
	cmd    *exec.Cmd
	exited chan struct{}
}

// bySocket and byTLS are the keys of a gate's section backend: a server by its Unix
// socket, and by TLS as the second of two hosts, of which the first is not there.
func bySocket(dir string, port int) string { return fmt.Sprintf("  host: %s\n  port: %d\n", dir, port) }

func (l *lab) byTLS(s *server) string {
	return fmt.Sprintf("  host: localhost,localhost\n  port: 1,%d\n  sslrootcert: %s\n", s.Port, l.caFile)
}

// startGate starts a gate, whose clients may be slow to begin on a busy machine:
// certUser needs a certificate, the other roles need none, and replicatorUser may
// replicate. backend are the keys of that section, as lines of YAML. The lab ends
// it.
func (l *lab) startGate(ctx context.Context, backend string) (*gate, error) {
	address, err := pgtest.FreeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := pgtest.FreeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, "gate-")
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(address, ":")
	g := &gate{host: host, admin: admin, logged: filepath.Join(dir, "log"), exited: make(chan struct{})}
	if g.port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`listen:
  - address: %s
tls:
  cert_file: %s
  key_file: %s
  ca_file: %s
  client_cert: optional
acl:
  allow: [127.0.0.0/8]
  rules:
    - {name: by certificate, action: allow, users: [%s], certificate: {cn: %s}}
    - {name: standby, action: allow, users: [%s], replication: physical}
    - {name: logical, action: allow, users: [%s], replication: database}
    - {name: by password, action: allow, users: [%s, %s, %s, %s]}
backend:
%slimits:
  max_connections_per_source: 0
  connection_rate: 0
  max_auth_failures: 0
  startup_timeout: 90s
admin:
  address: %s
log:
  format: json
  level: debug
`, address, l.serverCert, l.serverKey, l.caFile, certUser, certUser, replicatorUser, replicatorUser, scramUser, md5User, clearUser, replicatorUser,
		backend, admin)
	file := filepath.Join(dir, "pgwicket.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(g.logged)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	g.cmd = exec.Command(l.binary, "serve", "--config", file)
	g.cmd.Env = pgtest.Environ()
	g.cmd.Stderr = log
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = g.cmd.Wait()
		close(g.exited)
	}()
	l.atEnd(g.kill)
	return g, g.waitReady(ctx)
}

func (g *gate) waitReady(ctx context.Context) error {
	for deadline := time.Now().Add(patience); ; {
		if ready(ctx, g.admin) {
			return nil
		}
		select {
		case <-g.exited:
			return errors.New("the gate has ended: " + g.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.New("the gate does not get ready: " + g.tail())
		}
	}
}

// ready asks the admin address.
func ready(ctx context.Context, admin string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// tail returns the end of the log, for error messages.
func (g *gate) tail() string {
	b, _ := os.ReadFile(g.logged)
	return strings.TrimSpace(string(b[max(0, len(b)-1000):]))
}

// sound fails if the gate has ended by itself or has logged an error of its own.
func (g *gate) sound() error {
	select {
	case <-g.exited:
		return errors.New("the gate has ended by itself: " + g.tail())
	default:
	}
	b, err := os.ReadFile(g.logged)
	if err == nil && (strings.Contains(string(b), "internal_error") || strings.Contains(string(b), "panic in a session")) {
		err = errors.New("the gate has logged an error of its own; its log ends with: " + g.tail())
	}
	return err
}

func (g *gate) kill() {
	_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL)
	<-g.exited
}
