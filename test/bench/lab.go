package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// lab is what all scenarios share: a directory, one CA, one PostgreSQL, and the
// binaries of the contenders.
type lab struct {
	progress io.Writer
	dir      string
	db       *database
	account  *syscall.Credential // that PostgreSQL runs under; nil is ours
	ca       *tlstest.CA
	client   credentials

	pgwicket, plain, forward string // binaries
}

// newLab installs, builds and starts what all scenarios share. remove must be called.
func newLab(ctx context.Context, o options, chosen []contender, progress io.Writer) (_ *lab, err error) {
	if err := install(ctx, chosen, o.install, progress); err != nil {
		return nil, err
	}
	l := &lab{progress: progress}
	defer func() {
		if err != nil {
			l.remove()
		}
	}()
	if l.dir, err = os.MkdirTemp(tempDir(), "pgwicket-bench-"); err != nil {
		return nil, err
	}
	// PgBouncer gets through to its own directory under another account.
	if err := os.Chmod(l.dir, 0o711); err != nil { //nolint:gosec // keys in it are 0600
		return nil, err
	}
	if err := l.makeCertificates(); err != nil {
		return nil, err
	}
	logf(progress, "building")
	if err := l.build(ctx, o, chosen); err != nil {
		return nil, err
	}
	logf(progress, "starting PostgreSQL")
	l.db, err = startDatabase(ctx, l)
	return l, err
}

// tempDir avoids a private directory of root, which others do not get through.
func tempDir() string {
	if os.Geteuid() == 0 {
		return "/tmp"
	}
	return os.TempDir()
}

func (l *lab) remove() {
	if l.db != nil {
		l.db.Stop()
	}
	if l.dir != "" {
		_ = os.RemoveAll(l.dir)
	}
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) makeCertificates() error {
	l.ca = tlstest.NewCA("pgwicket bench CA")
	l.client = credentials{l.ca, l.ca.Client(certUser), l.file("client.crt"), l.file("client.key")}
	return errors.Join(
		l.ca.Server("localhost", "127.0.0.1").WriteFiles(l.file("server.crt"), l.file("server.key")),
		l.client.pair.WriteFiles(l.client.certFile, l.client.keyFile),
		os.WriteFile(l.file("ca.crt"), l.ca.CertPEM(), 0o600),
		// For libpq and for all gates that use OpenSSL: PgBouncer 1.18 has no setting for the suites of TLS 1.3.
		//nolint:gosec // PgBouncer reads it under another account
		os.WriteFile(l.file("openssl.cnf"), []byte("openssl_conf = o\n[o]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\n"+
			"MinProtocol = TLSv1.3\nCiphersuites = TLS_AES_128_GCM_SHA256\nGroups = X25519:P-256\n"), 0o644),
	)
}

func (l *lab) build(ctx context.Context, o options, chosen []contender) (err error) {
	has := func(id string) bool {
		return slices.ContainsFunc(chosen, func(c contender) bool { return c.id == id })
	}
	if l.pgwicket, err = filepath.Abs(o.pgwicket); err != nil {
		return err
	}
	if o.pgwicket == "" {
		if l.pgwicket, err = build(ctx, l.file("pgwicket"), gatePackage); err != nil {
			return err
		}
	}
	if has("plain") {
		if l.plain, err = build(ctx, l.file("plain"), "pgwicket/test/bench/plain"); err != nil {
			return err
		}
	}
	if has("floor") {
		l.forward, err = compileForwarder(ctx, l.dir)
	}
	return err
}

// libpq is the environment of PostgreSQL's client programs: nothing of ours
// but what all the contenders' clients have in common.
func (l *lab) libpq() []string {
	return pgtest.Environ("HOME="+l.dir, "OPENSSL_CONF="+l.file("openssl.cnf"), "PGGSSENCMODE=disable", "LC_ALL=C")
}

// place is where a gate is to stand.
type place struct {
	socketDir string // of a backend other than the server, which costs nothing worth counting
	cert      bool   // clients must show certificates
	sessions  int    // at most
	fair      bool   // latency beside bulk counts
}

// start starts a contender and waits until sessions get through it.
func (l *lab) start(ctx context.Context, c contender, at place) (*endpoint, error) {
	g := &endpoint{contender: c}
	if at.cert {
		g.cert = &l.client
	}
	if at.socketDir == "" {
		g.server, at.socketDir = l.db.pid, l.db.SocketDir
	}
	if c.start == nil {
		g.address = l.db.address
		if err := l.db.requestClientCertificates(at.cert); err != nil {
			return nil, err
		}
		return g, g.ready(ctx)
	}
	s, err := l.setting(at)
	if err != nil {
		return nil, err
	}
	g.address = s.Address
	if g.process, err = c.start(l, s); err != nil {
		return nil, err
	}
	if err := g.ready(ctx); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

// setting makes a directory for one gate, with certificates that it can read.
func (l *lab) setting(at place) (s setting, err error) {
	if s.Address, err = pgtest.FreeAddress(); err != nil {
		return s, err
	}
	if s.Dir, err = os.MkdirTemp(l.dir, "gate-"); err != nil {
		return s, err
	}
	s.Host, s.Port, _ = net.SplitHostPort(s.Address)
	s.SocketDir, s.SocketFile = at.socketDir, filepath.Join(at.socketDir, ".s.PGSQL.5432")
	s.Cert, s.Sessions, s.Fair, s.openssl = at.cert, at.sessions, at.fair, l.file("openssl.cnf")
	for _, name := range []string{"server.crt", "server.key", "ca.crt"} {
		if err := copyFile(l.file(name), filepath.Join(s.Dir, name), 0o600, nil); err != nil {
			return s, err
		}
	}
	return s, nil
}

// chownTo hands the certificates to the account that a contender runs under.
func (s setting) chownTo(account *syscall.Credential) error {
	if account == nil {
		return nil
	}
	for _, name := range []string{"", "server.crt", "server.key", "ca.crt"} {
		if err := os.Chown(filepath.Join(s.Dir, name), int(account.Uid), int(account.Gid)); err != nil {
			return err
		}
	}
	return nil
}
