//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"pgwicket/internal/pgtest"
	"pgwicket/test/harness"
)

const toolsHelp = `Run PostgreSQL's own tools through a gate, and compare what they leave behind with
what they read, or with what they do straight.

PostgreSQL's regression suite needs the source of the very release that is
installed, with src/test/regress, and a C compiler with the server's headers for
the suite's library.

`

// runTools is the subcommand.
func runTools(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return runSteps(ctx, "tools", toolsHelp, args, stdout, stderr, func(t *trial) []step {
		steps := []step{
			{"`pg_isready`", isReady},
			{"`pg_dump -Fd -j4`, `pg_restore -j4`", dumpDirectory},
			{"`pg_dump -Fc`, `pg_restore -j4`", dumpCustom},
			{"`psql -f`", script},
			{"`pgbench --connect`", connects},
		}
		if t.source != "" {
			steps = append(steps, step{"PostgreSQL's regression suite", regression})
		}
		return steps
	}, []string{"max_wal_size=4GB"})
}

// database is that of the superuser who comes straight.
func (t *trial) database(name string) []string {
	return superuserEnv(t.server.SocketDir, t.server.Port, name)
}

// big makes the database that is dumped, once, and returns how it is described.
func (t *trial) big(ctx context.Context) (string, error) {
	size, rows := "1 GiB", 650_000
	if t.quick {
		size, rows = "64 MiB", 41_000
	}
	have, err := t.ask(ctx, t.straight(), "select count(*) from pg_database where datname = 'big'")
	if err != nil || have == "1" {
		return size, err
	}
	if err := t.empty(ctx, "big"); err != nil {
		return "", err
	}
	for i := range 4 {
		// Values that do not compress, some that do, nulls, bytes and letters of many lengths.
		_, err := t.ask(ctx, t.gateEnv(t.gate, scramUser, "big"), fmt.Sprintf(`create table t%d (id bigint, digests text, bytes bytea, words text, n numeric, at timestamptz, list int[]);
			insert into t%d select g, repeat(md5(g::text), 3) || md5((g * 7)::text) , sha512(g::text::bytea) || sha512((-g)::text::bytea), case when g %% 5 > 0 then 'żółć € ' || E'\t\\\n' || g end,
				g / 7.0, 'epoch'::timestamptz + g * interval '1 minute', array[g, null, -g] from generate_series(1, %d) g;
			alter table t%d add primary key (id); create index on t%d (n)`, i, i, rows, i, i))
		if err != nil {
			return "", err
		}
	}
	least := int64(rows) * 4 * 400
	got, err := t.ask(ctx, t.database("big"), "select pg_database_size('big')")
	if err != nil {
		return "", err
	}
	if n, err := strconv.ParseInt(got, 10, 64); err != nil || n < least {
		return "", fmt.Errorf("the database has %s bytes, want %d: %w", got, least, err)
	}
	return size, nil
}

// empty makes an empty database in place of any of that name.
func (t *trial) empty(ctx context.Context, name string) error {
	for _, sql := range []string{"drop database if exists " + name, "create database " + name + " template template0 owner " + scramUser} {
		if _, err := t.ask(ctx, t.straight(), sql); err != nil {
			return err
		}
	}
	return nil
}

func isReady(ctx context.Context, t *trial) (string, error) {
	for range 10 {
		out, err := t.program(ctx, t.gateEnv(t.gate, scramUser, "postgres"), "pg_isready")
		if err != nil || !strings.Contains(out, "accepting connections") {
			return "", fmt.Errorf("it says %q: %w", out, err)
		}
	}
	return "10 times \"accepting connections\"", nil
}

func dumpDirectory(ctx context.Context, t *trial) (string, error) {
	return t.dumpAndRestore(ctx, "-Fd", "-j4")
}

func dumpCustom(ctx context.Context, t *trial) (string, error) { return t.dumpAndRestore(ctx, "-Fc") }

func (t *trial) dumpAndRestore(ctx context.Context, how ...string) (string, error) {
	size, err := t.big(ctx)
	if err != nil {
		return "", err
	}
	dump := t.file("dump" + how[0])
	defer os.RemoveAll(dump)
	if _, err := t.program(ctx, t.gateEnv(t.gate, scramUser, "big"), "pg_dump", append(how, "-Z1", "-f", dump)...); err != nil {
		return "", err
	}
	if err := t.empty(ctx, "copy"); err != nil {
		return "", err
	}
	if _, err := t.program(ctx, t.gateEnv(t.gate, scramUser, "copy"), "pg_restore", "-j4", "-d", "copy", "--exit-on-error", dump); err != nil {
		return "", err
	}
	return "a database of " + size + " or so, dumped and restored through the gate; all tables have equal checksums", t.same(ctx, t.database("big"), t.database("copy"))
}

func script(ctx context.Context, t *trial) (string, error) {
	size, err := t.big(ctx)
	if err != nil {
		return "", err
	}
	straight, through := t.file("straight.sql"), t.file("through.sql")
	defer os.Remove(straight)
	defer os.Remove(through)
	if _, err := t.program(ctx, t.database("big"), "pg_dump", "-f", straight); err != nil {
		return "", err
	}
	if _, err := t.program(ctx, t.gateEnv(t.gate, scramUser, "big"), "pg_dump", "-f", through); err != nil {
		return "", err
	}
	// Newer releases put a random word behind \restrict into every dump.
	const compare = `cmp <(grep -av '^\\\(un\)\?restrict ' "$0") <(grep -av '^\\\(un\)\?restrict ' "$1")`
	if _, err := harness.Output(ctx, "", os.Environ(), "bash", "-c", compare, straight, through); err != nil {
		return "", err
	}
	if err := t.empty(ctx, "copy"); err != nil {
		return "", err
	}
	if _, err := t.program(ctx, t.gateEnv(t.gate, scramUser, "copy"), "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", through); err != nil {
		return "", err
	}
	return "a plain dump of " + size + " or so, the same as straight except for its random key, run as a script; all tables have equal checksums", t.same(ctx, t.database("big"), t.database("copy"))
}

func connects(ctx context.Context, t *trial) (string, error) {
	if err := t.empty(ctx, "bench"); err != nil {
		return "", err
	}
	env := t.gateEnv(t.gate, scramUser, "bench")
	if _, err := t.program(ctx, env, "pgbench", "-i", "-q", "-s", "4"); err != nil {
		return "", err
	}
	each := t.transactions() / 4
	out, err := t.program(ctx, env, "pgbench", "-n", "--connect", "-c", "4", "-t", strconv.Itoa(each))
	if err != nil {
		return "", err
	}
	want := fmt.Sprintf("%d/%d", 4*each, 4*each)
	if !strings.Contains(out, want) {
		return "", fmt.Errorf("no %s in %s", want, out)
	}
	got, err := t.ask(ctx, t.database("bench"), "select count(*), (select sum(abalance) from pgbench_accounts) = sum(delta) from pgbench_history")
	if err == nil && got != fmt.Sprintf("%d|t", 4*each) {
		err = fmt.Errorf("the history says %s", got)
	}
	return fmt.Sprintf("%d connections by 4 clients, a transaction each; the history has as many, and the balances are its sum", 4*each), err
}

// suite is PostgreSQL's regression suite, where the server, under another account, can
// read its data and write beside them.
type suite struct {
	t       *trial
	source  string // src/test/regress
	base    string // temporary; has the suite's library
	regress string // the program pg_regress
	owner   string // the server's account, as UID:GID
}

// newSuite builds the suite's library. The caller must remove base.
func (t *trial) newSuite(ctx context.Context) (s *suite, err error) {
	s = &suite{t: t, source: filepath.Join(t.source, "src", "test", "regress")}
	headers := t.headers
	if headers == "" {
		if headers, err = t.config(ctx, "--includedir-server"); err != nil {
			return nil, err
		}
	}
	library, err := t.config(ctx, "--pkglibdir")
	if err != nil {
		return nil, err
	}
	s.regress = filepath.Join(library, "pgxs", "src", "test", "regress", "pg_regress")
	st, err := os.Stat(t.server.SocketDir)
	if err != nil {
		return nil, err
	}
	owner := st.Sys().(*syscall.Stat_t)
	s.owner = fmt.Sprintf("%d:%d", owner.Uid, owner.Gid)
	if s.base, err = os.MkdirTemp(filepath.Dir(filepath.Dir(t.server.SocketDir)), "pgwicket-regress-"); err != nil {
		return nil, err
	}
	_, err = harness.Output(ctx, "", os.Environ(), "cc", "-O1", "-fPIC", "-shared", "-I", headers, "-I", s.source,
		"-o", filepath.Join(s.base, "regress.so"), filepath.Join(s.source, "regress.c"))
	return s, err
}

// config asks pg_config.
func (t *trial) config(ctx context.Context, option string) (string, error) {
	out, err := t.program(ctx, os.Environ(), "pg_config", option)
	return strings.TrimSpace(out), err
}

// run runs the suite in a new copy, and returns the verdict on each test.
func (s *suite) run(ctx context.Context, way string, env []string, host, port string) (string, error) {
	input := filepath.Join(s.base, "suite")
	if _, err := harness.Output(ctx, "", os.Environ(), "cp", "-r", s.source, input); err != nil {
		return "", err
	}
	defer os.RemoveAll(input)
	if err := os.MkdirAll(filepath.Join(input, "testtablespace"), 0o700); err != nil {
		return "", err
	}
	if _, err := harness.Output(ctx, "", os.Environ(), "chown", "-R", s.owner, s.base); err != nil {
		return "", err
	}
	if err := os.Chmod(s.base, 0o755); err != nil { //nolint:gosec // for the server's account to read
		return "", err
	}
	// A failed test is an exit status other than 0. What counts is that both ways are alike.
	out, _ := harness.Output(ctx, "", env, s.regress, "--inputdir="+input, "--outputdir="+input, "--bindir="+s.t.server.BinDir, "--dlpath="+s.base,
		"--host="+host, "--port="+port, "--user="+pgtest.Superuser, "--schedule="+filepath.Join(input, "parallel_schedule"), "--max-connections=20")
	diffs, _ := os.ReadFile(filepath.Join(input, "regression.diffs"))
	s.t.logf("%s: %d bytes of differences from what is expected", way, len(diffs))
	if _, err := s.t.ask(ctx, s.t.straight(), "drop database regression with (force)"); err != nil {
		return "", errors.Join(err, errors.New(out))
	}
	return verdicts(out), nil
}

// verdicts reads what pg_regress prints, without the times.
func verdicts(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if i := strings.Index(line, " ... "); i > 0 {
			if f := strings.Fields(line[i+len(" ... "):]); len(f) > 0 {
				fmt.Fprintln(&b, strings.TrimSpace(line[:i]), f[0])
			}
		}
	}
	return b.String()
}

// regression runs the suite straight and through the gate, and compares the verdict
// on every test.
func regression(ctx context.Context, t *trial) (string, error) {
	// The suite runs as the superuser, whom a gate admits only by name.
	if err := t.gate.Reload(ctx, map[string]string{"acl.rules": gateRules("{name: suite, action: allow, users: [postgres]}")}); err != nil {
		return "", err
	}
	s, err := t.newSuite(ctx)
	if s != nil && s.base != "" {
		defer os.RemoveAll(s.base)
	}
	if err != nil {
		return "", err
	}
	straight, err := s.run(ctx, "straight", pgtest.Environ("PGSSLMODE=disable"), t.server.SocketDir, strconv.Itoa(t.server.Port))
	if err != nil {
		return "", err
	}
	through, err := s.run(ctx, "through the gate", t.gateEnv(t.gate, pgtest.Superuser, "postgres"), t.gate.Host, strconv.Itoa(t.gate.Port))
	if err != nil {
		return "", err
	}
	if straight != through {
		return "", fmt.Errorf("straight:\n%s\nthrough the gate:\n%s", straight, through)
	}
	ok, failed := strings.Count(through, " ok\n"), strings.Count(through, " FAILED\n")
	if ok == 0 {
		return "", errors.New("no test has passed")
	}
	return fmt.Sprintf("%d tests passed and %d failed, the same ones as straight", ok, failed), nil
}
