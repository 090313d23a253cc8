//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/test/gate"
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

// lab is what all scenarios share: a directory, a PKI, and a pgwicket to start. It
// has started servers and gates, and ends them.
type lab struct {
	progress io.Writer
	dir      string // temporary; removed at the end
	store    string // what is installed, kept from run to run: .interop in the module
	clients  string // the directory of the drivers
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
	l.store, l.clients = filepath.Join(root, ".interop"), filepath.Join(root, "test", "interop", "clients")
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
	l.logf("building pgwicket")
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

// logf writes a line of progress.
func (l *lab) logf(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }

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

// hba admits the roles on both ways by the same method; over the Unix socket it is the
// gate that has verified the certificate. TCP requires TLS, as the gate does.
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
// PostgreSQL, as name=value. The lab ends it.
func (l *lab) startServer(ctx context.Context, r release, settings []string) (*server, error) {
	files := make(map[string][]byte)
	for name, path := range map[string]string{"server.crt": l.serverCert, "server.key": l.serverKey, "ca.crt": l.caFile} {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	files["ca.crl"] = l.ca.CRL(nil) // of which only hard moments make use
	db, err := pgtest.Start(ctx, pgtest.Options{
		BinDir: r.binDir, LibDir: r.libDir, Host: "127.0.0.1", HBA: hba, Files: files, SQL: roles,
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

// bySocket and byTLS are the keys of a gate's section backend: a server by its Unix
// socket, and by TLS as the second of two hosts, of which the first is not there.
func bySocket(dir string, port int) map[string]string {
	return map[string]string{"backend.host": dir, "backend.port": strconv.Itoa(port)}
}

func (l *lab) byTLS(s *server) map[string]string {
	return map[string]string{"backend.host": "localhost,localhost", "backend.port": fmt.Sprintf("1,%d", s.Port), "backend.sslrootcert": l.caFile}
}

// gateRules admit certUser with a certificate, the other roles without one, and
// replicatorUser for replication. more are further rules.
func gateRules(more ...string) string {
	rules := slices.Concat(more, []string{
		fmt.Sprintf("{name: by certificate, action: allow, users: [%s], certificate: {cn: %s}}", certUser, certUser),
		fmt.Sprintf("{name: standby, action: allow, users: [%s], replication: physical}", replicatorUser),
		fmt.Sprintf("{name: logical, action: allow, users: [%s], replication: database}", replicatorUser),
		fmt.Sprintf("{name: by password, action: allow, users: [%s, %s, %s, %s]}", scramUser, md5User, clearUser, replicatorUser),
	})
	return "[" + strings.Join(rules, ", ") + "]"
}

// startGate starts a gate, whose clients may be slow to begin on a busy machine.
// backend are the keys of that section. The lab ends it.
func (l *lab) startGate(ctx context.Context, backend map[string]string) (*gate.Gate, error) {
	keys := map[string]string{
		"tls.cert_file": l.serverCert, "tls.key_file": l.serverKey, "tls.ca_file": l.caFile, "tls.client_cert": "optional",
		"acl.allow": "[127.0.0.0/8]", "acl.rules": gateRules(),
		"limits.max_connections_per_source": "0", "limits.connection_rate": "0", "limits.max_auth_failures": "0",
		"limits.startup_timeout": gate.Timeout.String(),
	}
	maps.Copy(keys, backend)
	g, err := gate.Start(ctx, gate.Options{Binary: l.binary, Dir: l.dir, Keys: keys})
	if g != nil {
		l.atEnd(g.Kill)
	}
	return g, err
}
