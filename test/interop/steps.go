//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

// trial is one run of a subcommand that goes through steps: a lab with one
// server and one gate in front of it.
type trial struct {
	*lab
	quick   bool
	server  *server
	gate    *gate.Gate
	standby *standby
	source  string
	headers string
}

// step is one thing that works straight and must work through the gate. run
// returns what it has done and compared, with counts.
type step struct {
	title string
	run   func(ctx context.Context, t *trial) (done string, err error)
}

// runSteps is a subcommand: every step in its order, and a table of them. A step that
// has failed does not keep the others from being tried.
func runSteps(ctx context.Context, name, help string, args []string, stdout, stderr io.Writer, steps func(t *trial) []step, settings []string) error {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, help)
		f.PrintDefaults()
	}
	t := &trial{}
	f.BoolVar(&t.quick, "quick", false, "less data and shorter loads, for CI")
	into := f.String("into", "", "replace the section "+name+" in this Markdown file")
	if name == "tools" {
		f.StringVar(&t.source, "source", "", "the unpacked source of the installed PostgreSQL, for its regression suite; empty: leave that out")
		f.StringVar(&t.headers, "headers", "", "the server's header files, to build the suite's library with; empty: what pg_config says")
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s: unexpected %q", name, f.Arg(0))
	}
	var err error
	if t.lab, err = newLab(ctx, stderr); err != nil {
		return err
	}
	defer t.remove()
	binDir, err := pgtest.Find()
	if err != nil {
		return err
	}
	if t.server, err = t.startServer(ctx, release{origin: "installed", binDir: binDir}, settings); err != nil {
		return err
	}
	if t.gate, err = t.startGate(ctx, bySocket(t.server.SocketDir, t.server.Port)); err != nil {
		return err
	}
	var table strings.Builder
	table.WriteString("| step | what was done | result |\n|---|---|---|\n")
	failed := 0
	for _, s := range steps(t) {
		done, err := t.runStep(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		verdict := "passed"
		if err != nil {
			failed++
			verdict = "**failed**: " + err.Error()
		}
		t.logf("%s: %s; %s", s.title, verdict, done)
		fmt.Fprintf(&table, "| %s | %s | %s |\n", harness.Cell(s.title), harness.Cell(done), harness.Cell(verdict))
	}
	fmt.Fprint(stdout, "\n", table.String())
	if *into != "" {
		err = harness.Renew(*into, "make interop-"+name, table.String())
	}
	if failed > 0 {
		return fmt.Errorf("%s: %d steps have failed", name, failed)
	}
	return err
}

func (t *trial) runStep(ctx context.Context, s step) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	done, err := s.run(ctx, t)
	if err == nil {
		err = t.gate.Check()
	}
	return done, err
}

// gateEnv is the environment of a client program that goes through a gate with a
// password.
func (t *trial) gateEnv(g *gate.Gate, user, database string, extra ...string) []string {
	return pgtest.Environ(append([]string{
		"LC_ALL=C.UTF-8", "HOME=" + t.dir, "PGHOST=" + g.Host, "PGPORT=" + strconv.Itoa(g.Port), "PGUSER=" + user, "PGDATABASE=" + database,
		"PGPASSWORD=" + password, "PGSSLMODE=verify-ca", "PGSSLROOTCERT=" + t.caFile, "PGGSSENCMODE=disable",
	}, extra...)...)
}

// superuserEnv is that of one that goes to the server's Unix socket as its superuser.
func superuserEnv(socketDir string, port int, database string) []string {
	return pgtest.Environ("LC_ALL=C.UTF-8", "PGHOST="+socketDir, "PGPORT="+strconv.Itoa(port), "PGUSER="+pgtest.Superuser, "PGDATABASE="+database)
}

// program runs one of the server's programs.
func (t *trial) program(ctx context.Context, env []string, name string, args ...string) (string, error) {
	return harness.Output(ctx, "", env, append([]string{filepath.Join(t.server.BinDir, name)}, args...)...)
}

func (t *trial) ask(ctx context.Context, env []string, sql string) (string, error) {
	out, err := t.program(ctx, env, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql)
	return strings.TrimSpace(out), err
}

// checksum is of all rows of all tables of the schema public, whatever their order: for
// each table the count and the sum of the rows' 64-bit hashes.
func (t *trial) checksum(ctx context.Context, env []string) (string, error) {
	queries, err := t.ask(ctx, env, `select string_agg(format('select %L, count(*), sum(hashtextextended(t::text, 0)::numeric) from %I.%I t', tablename, schemaname, tablename),
		' union all ' order by tablename) from pg_tables where schemaname = 'public'`)
	if err != nil {
		return "", err
	}
	if queries == "" {
		return "", errors.New("there is no table")
	}
	return t.ask(ctx, env, queries+" order by 1")
}

// same compares checksums of two sides.
func (t *trial) same(ctx context.Context, left, right []string) error {
	a, err := t.checksum(ctx, left)
	if err != nil {
		return err
	}
	b, err := t.checksum(ctx, right)
	if err == nil && a != b {
		err = fmt.Errorf("the data differ: %s and %s", a, b)
	}
	return err
}

// until waits until a query has this answer.
func (t *trial) until(ctx context.Context, env []string, sql, want string) error {
	return gate.Eventually(ctx, sql, gate.Timeout, func() error {
		got, err := t.ask(ctx, env, sql)
		if err == nil && got != want {
			err = fmt.Errorf("%q, want %q", got, want)
		}
		return err
	})
}
