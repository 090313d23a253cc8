//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

// appUser is the role of all clients.
const appUser = "app"

// lab is what all scenarios share: a directory, a PKI, one PostgreSQL and the
// binaries of pgwicket. Gates are started in it.
type lab struct {
	progress io.Writer
	dir      string // everything is in it; removed at the end
	db       *pgtest.Server
	ca       *tlstest.CA
	client   credentials // of appUser
	raced    string      // pgwicket with the race detector, where there is a C compiler
	plain    string      // pgwicket as it is released, for measurements
	racing   bool        // raced has the race detector
	older    string      // another pgwicket to compare with; empty: none

	mu     sync.Mutex
	gates  []*gate.Gate
	killed map[string]bool // directories of gates with a process that was killed
}

// credentials are a client's certificate, for our clients and for libpq's.
type credentials struct {
	pair              *tlstest.Pair
	certFile, keyFile string
}

// newLab builds and starts what all scenarios share. remove must be called.
// settings are further ones of PostgreSQL.
func newLab(ctx context.Context, progress io.Writer, settings ...string) (_ *lab, err error) {
	l := &lab{progress: progress}
	defer func() {
		if err != nil {
			l.remove()
		}
	}()
	if l.dir, err = os.MkdirTemp("", "pgwicket-siege-"); err != nil {
		return nil, err
	}
	if err := l.makeCertificates(); err != nil {
		return nil, err
	}
	l.logf("building pgwicket")
	if err := l.build(ctx); err != nil {
		return nil, err
	}
	l.logf("starting PostgreSQL")
	l.db, err = pgtest.Start(ctx, pgtest.Options{
		Settings: append([]string{
			"max_connections=400", "log_connections=off", "log_disconnections=off", "autovacuum=off", "jit=off",
			"max_parallel_workers_per_gather=0",
			// The manual recommends it: without it a backend in a long query does not notice that its client has gone.
			"client_connection_check_interval=1s",
		}, settings...),
		SQL: "create role " + appUser + " login; grant all on schema public to " + appUser + "; create role " + passwordUser + " login password '" + rightPassword + "'",
		HBA: "local all " + passwordUser + " scram-sha-256\nlocal all all trust",
	})
	if err != nil {
		return nil, err
	}
	return l, l.pgbenchTables(ctx)
}

// remove ends every process that the lab has started, and removes its files.
func (l *lab) remove() {
	l.mu.Lock()
	gates := l.gates
	l.mu.Unlock()
	for _, g := range gates {
		g.Kill()
	}
	if l.db != nil {
		l.db.Stop()
	}
	if l.dir != "" {
		_ = os.RemoveAll(l.dir)
	}
}

// kills takes note that a process of a gate is killed, of which there may be others.
func (l *lab) kills(g *target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killed == nil {
		l.killed = make(map[string]bool)
	}
	l.killed[g.Dir] = true
}

// wasKilled says whether a process of the gate was.
func (l *lab) wasKilled(g *target) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed[g.Dir]
}

// logf writes a line of progress.
func (l *lab) logf(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) makeCertificates() (err error) {
	l.ca = tlstest.NewCA("pgwicket siege CA")
	if l.client, err = l.issue(appUser); err != nil {
		return err
	}
	return errors.Join(
		l.ca.Server("localhost", "127.0.0.1").WriteFiles(l.file("server.crt"), l.file("server.key")),
		os.WriteFile(l.file("ca.crt"), l.ca.CertPEM(), 0o600),
		l.revoke(1),
	)
}

// issue makes a client certificate with that common name, and its files.
func (l *lab) issue(cn string) (credentials, error) {
	c := credentials{l.ca.Client(cn), l.file(cn + ".crt"), l.file(cn + ".key")}
	return c, c.pair.WriteFiles(c.certFile, c.keyFile)
}

// revoke replaces the revocation list, in one step, by one with a number and
// these certificates. The gate watches its files and loads it.
func (l *lab) revoke(number int64, revoked ...credentials) error {
	list := l.ca.CRL(func(c *tlstest.CRL) {
		c.Number = big.NewInt(number)
		for _, r := range revoked {
			c.Revoke(r.pair.Leaf())
		}
	})
	if err := os.WriteFile(l.file("ca.crl.new"), list, 0o600); err != nil {
		return err
	}
	return os.Rename(l.file("ca.crl.new"), l.file("ca.crl"))
}

// build makes both binaries.
func (l *lab) build(ctx context.Context) error {
	l.plain, l.raced = l.file("pgwicket"), l.file("pgwicket-race")
	const pkg = "pgwicket/cmd/pgwicket"
	if err := harness.Build(ctx, pkg, l.plain, nil, "-ldflags=-w"); err != nil {
		return err
	}
	if _, err := exec.LookPath("cc"); err != nil {
		l.logf("no C compiler: data races will not be noticed; install one (\"apt-get install gcc libc6-dev\" on Debian)")
		l.raced = l.plain
		return nil
	}
	l.racing = true
	return harness.Build(ctx, pkg, l.raced, []string{"CGO_ENABLED=1"}, "-race")
}

// pgbenchTables makes what pgbench asks for.
func (l *lab) pgbenchTables(ctx context.Context) error {
	pgbench, err := pgtest.Program("pgbench")
	if err != nil {
		return err
	}
	if err := harness.Complete(ctx, pgtest.Environ(), pgbench, "-i", "-q", "-s", "1", "-h", l.db.SocketDir, "-U", pgtest.Superuser, "postgres"); err != nil {
		return err
	}
	_, err = l.db.SQL("grant all on all tables in schema public to public; vacuum analyze; checkpoint")
	return err
}

// backends counts the client sessions that PostgreSQL has, without those of pgtest.
func (l *lab) backends() (int, error) {
	return l.count("select count(*) from pg_stat_activity where backend_type = 'client backend' and application_name <> 'pgtest'")
}

// count asks PostgreSQL, not through a gate, for a number.
func (l *lab) count(sql string) (n int, err error) {
	out, err := l.db.SQL(sql)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(out, &n)
	return n, err
}

// libpq makes a client program of PostgreSQL, psql or pgbench, that connects
// through g as appUser to the database postgres. It is killed, with all that it
// has started, when ctx ends.
func (l *lab) libpq(ctx context.Context, g *target, program string, args ...string) (*exec.Cmd, error) {
	path, err := pgtest.Program(program)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = pgtest.Environ("HOME="+l.dir, "LC_ALL=C", "PGHOST="+g.Host, "PGPORT="+strconv.Itoa(g.Port), "PGUSER="+appUser, "PGDATABASE=postgres",
		"PGSSLMODE=verify-ca", "PGSSLROOTCERT="+l.file("ca.crt"), "PGSSLCERT="+l.client.certFile, "PGSSLKEY="+l.client.keyFile,
		"PGGSSENCMODE=disable", "PGCONNECT_TIMEOUT=60")
	harness.Bound(cmd)
	return cmd, nil
}
