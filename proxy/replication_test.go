package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
)

// replicating is a PostgreSQL that standbys and logical subscribers can stream from.
func replicating(t *testing.T) *pgtest.Server {
	t.Helper()
	s, err := pgtest.Start(context.Background(), pgtest.Options{
		HBA:      "local replication all trust\nlocal all all trust",
		Settings: []string{"wal_level=logical"},
		SQL:      "create table t (n int); select pg_create_logical_replication_slot('slot', 'test_decoding')",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// background starts a client that runs until the test ends, and returns what it says.
func background(t *testing.T, cmd *exec.Cmd) *logBook {
	t.Helper()
	said := new(logBook)
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return said
}

// One walsender held up a drain for all of its time, and was then cut without a word
// (pgbouncer#1468). It is told why and at once, and its client comes back to the next
// gate without losing a row.
func TestDrainOfWalsenders(t *testing.T) {
	t.Parallel()
	s := replicating(t)
	g := newGate(t, s.SocketDir)
	watch := control(t, s)
	out := filepath.Join(t.TempDir(), "rows")
	dir := t.TempDir()
	env := libpq(t, g, "PGUSER="+pgtest.Superuser, "PGDATABASE=postgres")
	logical := background(t, program(t, env, "pg_recvlogical", "-d", "postgres", "-S", "slot", "--start", "-f", out, "--fsync-interval=1", "--status-interval=1"))
	physical := background(t, program(t, env, "pg_receivewal", "-D", dir, "--status-interval=1"))
	streams := func(n int) func() bool {
		return func() bool {
			return query[int](t, watch, "select count(*)::int from pg_stat_replication where state = 'streaming'") == n
		}
	}
	defer func() {
		if t.Failed() {
			t.Logf("pg_recvlogical: %s\npg_receivewal: %s", logical, physical)
		}
	}()
	eventually(t, "both stream", streams(2))
	if _, err := s.SQL("insert into t select generate_series(1, 1000)"); err != nil {
		t.Fatal(err)
	}
	has := func(text string) func() bool {
		return func() bool {
			b, err := os.ReadFile(out)
			return err == nil && bytes.Contains(b, []byte(text))
		}
	}
	eventually(t, "the rows arrive", has("n[integer]:1000"))

	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.Server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the drain took %v", took)
	}
	for name, said := range map[string]*logBook{"pg_recvlogical": logical, "pg_receivewal": physical} {
		eventually(t, name+" hears why", func() bool {
			return strings.Contains(said.String(), "terminating connection due to administrator command")
		})
	}
	for range 2 {
		g.expect(t, "drained")
	}
	newGateOn(t, g.Addr, s.SocketDir)
	if _, err := s.SQL("insert into t values (4242)"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next row arrives through the next gate", has("n[integer]:4242"))
	eventually(t, "both stream again", streams(2))
	for n := range 1000 { // some come twice: pg_recvlogical had not reported them
		if text := fmt.Sprintf("n[integer]:%d\n", n+1); !has(text)() {
			t.Fatalf("%q is missing", text)
		}
	}
}

// A base backup loses its stream of WAL to a drain, and fails at once and in words: it is
// not a backup with a hole in it.
func TestDrainOfABaseBackup(t *testing.T) {
	t.Parallel()
	s := replicating(t)
	g := newGate(t, s.SocketDir)
	watch := control(t, s)
	dir := filepath.Join(t.TempDir(), "copy")
	env := libpq(t, g, "PGUSER="+pgtest.Superuser, "PGDATABASE=postgres")
	cmd := program(t, env, "pg_basebackup", "-D", dir, "-X", "stream", "-c", "fast", "--max-rate=1M")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "it copies and streams", func() bool {
		return query[string](t, watch, "select coalesce(string_agg(state, ' ' order by state), '') from pg_stat_replication") == "backup streaming"
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	err := g.Server.Shutdown(ctx)
	if failed := <-ended; failed == nil {
		t.Error("pg_basebackup has succeeded")
	}
	if !strings.Contains(said.String(), "terminating connection due to administrator command") {
		t.Errorf("pg_basebackup says %s", said.String())
	}
	t.Logf("the drain took %v (%v); pg_basebackup says %s", time.Since(began), err, said.String())
	if err != nil {
		t.Errorf("the drain ended with %v", err)
	}
}
