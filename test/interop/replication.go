//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

const replicationHelp = `Replicate through a gate, in every way that PostgreSQL has, and compare the data
on both sides. The gate has backend.client_info: true, and no application_name of
a replication connection may show it.

`

// runReplication is the subcommand.
func runReplication(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return runSteps(ctx, "replication", replicationHelp, args, stdout, stderr, func(*trial) []step {
		return []step{
			{"A gate with `client_info`, and data", fill},
			{"The parameter `replication`, in every spelling", spellings},
			{"`pg_basebackup -X stream`", baseBackup},
			{"`pg_basebackup -Ft -X stream`", tarBackup},
			{"`pg_receivewal`", receiveWAL},
			{"`pg_recvlogical`", receiveLogical},
			{"`CREATE SUBSCRIPTION`", subscription},
			{"A physical standby under pgbench", physicalStandby},
			{"Reconnected", reconnected},
			{"The gate drains", drained},
			{"Promoted", promoted},
		}
	}, []string{"wal_keep_size=2GB", "checkpoint_timeout=1h"})
}

func (t *trial) straight() []string {
	return superuserEnv(t.server.SocketDir, t.server.Port, "postgres")
}

// bench writes for a while, straight or through a gate.
func (t *trial) bench(ctx context.Context, env []string, transactions int) error {
	_, err := t.program(ctx, env, "pgbench", "-n", "-c", "4", "-t", strconv.Itoa(transactions))
	return err
}

func (t *trial) transactions() int {
	if t.quick {
		return 200
	}
	return 5000
}

func fill(ctx context.Context, t *trial) (string, error) {
	if _, err := t.program(ctx, t.straight(), "pgbench", "-i", "-q", "-s", "2"); err != nil {
		return "", err
	}
	if _, err := t.ask(ctx, t.straight(), "grant all on all tables in schema public to app; grant select on all tables in schema public to replicator"); err != nil {
		return "", err
	}
	err := t.addClientInfo(ctx, t.gate)
	return "an ordinary session has `pgwicket.client_addr`", err
}

// addClientInfo turns on backend.client_info.
func (t *trial) addClientInfo(ctx context.Context, g *gate.Gate) error {
	if err := g.Reload(ctx, map[string]string{"backend.client_info": "true"}); err != nil {
		return err
	}
	got, err := t.ask(ctx, t.gateEnv(g, scramUser, "postgres"), "select current_setting('pgwicket.client_addr', true)")
	if err == nil && got != "127.0.0.1" {
		err = fmt.Errorf("the address of the client is %q", got)
	}
	return err
}

// A gate that reads the parameter unlike PostgreSQL lets a replication session
// pass for an ordinary one, or refuses a standby: pgbouncer#382, pgbouncer#1164,
// pgbouncer#1196.
func spellings(ctx context.Context, t *trial) (string, error) {
	straight := pgtest.Environ("PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(t.server.Port), "PGUSER="+replicatorUser, "PGDATABASE=postgres",
		"PGPASSWORD="+password, "PGSSLMODE=verify-ca", "PGSSLROOTCERT="+t.caFile, "HOME="+t.dir)
	values := []string{"true", "TRUE", "t", "tr", "yes", "y", "on", "oN", "1", "database", "false", "f", "no", "n", "off", "of", "0", "DATABASE", "o", "2", "standby"}
	walsenders := 0
	for _, value := range values {
		a, b := t.kindOf(ctx, straight, value), t.kindOf(ctx, t.gateEnv(t.gate, replicatorUser, "postgres"), value)
		if a != b {
			return "", fmt.Errorf("replication=%s: straight %s, through the gate %s", value, a, b)
		}
		if strings.HasPrefix(a, "walsender") {
			walsenders++
		}
	}
	for _, value := range []string{"true", "database"} {
		_, err := t.program(ctx, t.gateEnv(t.gate, scramUser, "postgres"), "psql", "-XAtc", "IDENTIFY_SYSTEM", "replication="+value)
		if err == nil {
			return "", fmt.Errorf("replication=%s: a role that must not replicate does", value)
		}
	}
	return fmt.Sprintf("%d values, of which %d make a walsender, all as straight; a role without the right got none", len(values), walsenders), nil
}

// kindOf says what PostgreSQL makes of a session with that value.
func (t *trial) kindOf(ctx context.Context, env []string, value string) string {
	out, err := t.program(ctx, env, "psql", "-XAtc", "IDENTIFY_SYSTEM", "replication="+value)
	fields := strings.Split(strings.TrimSpace(out), "|")
	switch {
	case err == nil && len(fields) == 4:
		return "walsender of the database " + strconv.Quote(fields[3])
	case strings.Contains(out, "syntax error"):
		return "ordinary"
	case strings.Contains(out, "invalid value for parameter"):
		return "refused: invalid value"
	}
	return "something else: " + out
}

// whileWriting runs a program while pgbench writes through the gate.
func (t *trial) whileWriting(ctx context.Context, run func() error) error {
	wrote := make(chan error, 1)
	go func() { wrote <- t.bench(ctx, t.gateEnv(t.gate, scramUser, "postgres"), t.transactions()) }()
	return errors.Join(run(), <-wrote)
}

func baseBackup(ctx context.Context, t *trial) (string, error) {
	dir := t.file("backup")
	err := t.whileWriting(ctx, func() error {
		_, err := t.program(ctx, t.gateEnv(t.gate, replicatorUser, "postgres"), "pg_basebackup", "-D", dir, "-X", "stream", "-c", "fast", "--no-sync", "--manifest-checksums=SHA256")
		return err
	})
	if err != nil {
		return "", err
	}
	if _, err := t.program(ctx, pgtest.Environ(), "pg_verifybackup", dir); err != nil {
		return "", err
	}
	n, err := countFiles(dir)
	return fmt.Sprintf("a plain backup under pgbench; pg_verifybackup passed, SHA-256 of all its files (%s) and its WAL", about100(n)), err
}

func tarBackup(ctx context.Context, t *trial) (string, error) {
	dir, unpacked := t.file("tar"), t.file("untarred")
	err := t.whileWriting(ctx, func() error {
		_, err := t.program(ctx, t.gateEnv(t.gate, replicatorUser, "postgres"), "pg_basebackup", "-D", dir, "-Ft", "-X", "stream", "-c", "fast", "--no-sync", "--manifest-checksums=SHA256")
		return err
	})
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(unpacked, "pg_wal"), 0o700); err != nil {
		return "", err
	}
	for archive, to := range map[string]string{"base.tar": unpacked, "pg_wal.tar": filepath.Join(unpacked, "pg_wal")} {
		if _, err := harness.Output(ctx, "", os.Environ(), "tar", "-xf", filepath.Join(dir, archive), "-C", to); err != nil {
			return "", err
		}
	}
	_, err = t.program(ctx, pgtest.Environ(), "pg_verifybackup", "-m", filepath.Join(dir, "backup_manifest"), unpacked)
	return "tar files under pgbench, unpacked; pg_verifybackup passed, SHA-256 of all files and the WAL", err
}

func countFiles(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	return n, err
}

// about100 is a count that differs a little from run to run.
func about100(n int) string { return fmt.Sprintf("more than %d", n/100*100) }

func receiveWAL(ctx context.Context, t *trial) (string, error) {
	dir := t.file("wal")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	env := t.gateEnv(t.gate, replicatorUser, "postgres")
	if _, err := t.program(ctx, env, "pg_receivewal", "--create-slot", "--slot=receiver"); err != nil {
		return "", err
	}
	receiving, stop := context.WithCancel(ctx)
	defer stop()
	received := make(chan struct{})
	go func() {
		defer close(received)
		_, _ = t.program(receiving, env, "pg_receivewal", "-D", dir, "--slot=receiver", "--synchronous")
	}()
	var err error
	for range 4 { // each ends a segment
		err = errors.Join(err, t.bench(ctx, t.gateEnv(t.gate, scramUser, "postgres"), t.transactions()))
		_, switched := t.ask(ctx, t.straight(), "select pg_switch_wal()")
		err = errors.Join(err, switched)
	}
	if err == nil {
		err = t.until(ctx, t.straight(), "select flush_lsn >= pg_current_wal_flush_lsn() from pg_stat_replication where application_name = 'pg_receivewal'", "t")
	}
	stop()
	<-received
	if err != nil {
		return "", err
	}
	segments, err := filepath.Glob(filepath.Join(dir, "????????????????????????"))
	if err != nil {
		return "", err
	}
	if len(segments) < 4 {
		return "", fmt.Errorf("%d whole segments, want 4 or more", len(segments))
	}
	for _, segment := range segments {
		out, err := harness.Output(ctx, "", os.Environ(), "md5sum", segment)
		if err != nil {
			return "", err
		}
		want, err := t.ask(ctx, t.straight(), "select md5(pg_read_binary_file('pg_wal/"+filepath.Base(segment)+"'))")
		if err != nil {
			return "", err
		}
		if got, _, _ := strings.Cut(out, " "); got != want {
			return "", fmt.Errorf("the segment %s differs from the server's", filepath.Base(segment))
		}
	}
	_, err = t.ask(ctx, t.straight(), "select pg_drop_replication_slot('receiver')")
	return "four segments and more, synchronously under pgbench; each has the MD5 of the server's, and the application_name is its own", err
}

func receiveLogical(ctx context.Context, t *trial) (string, error) {
	file := t.file("changes")
	env := t.gateEnv(t.gate, replicatorUser, "postgres")
	if _, err := t.program(ctx, env, "pg_recvlogical", "-d", "postgres", "--slot=through", "--create-slot", "-P", "test_decoding"); err != nil {
		return "", err
	}
	if _, err := t.ask(ctx, t.straight(), "select pg_create_logical_replication_slot('straight', 'test_decoding')"); err != nil {
		return "", err
	}
	if err := t.bench(ctx, t.gateEnv(t.gate, scramUser, "postgres"), t.transactions()); err != nil {
		return "", err
	}
	end, err := t.ask(ctx, t.straight(), "select pg_current_wal_insert_lsn()")
	if err != nil {
		return "", err
	}
	// The position is reached only once something has come that is behind it.
	if _, err := t.ask(ctx, t.straight(), "set synchronous_commit = on; select pg_logical_emit_message(true, 'interop', 'the end')"); err != nil {
		return "", err
	}
	if _, err := t.program(ctx, env, "pg_recvlogical", "-d", "postgres", "--slot=through", "--start", "-f", file, "--endpos="+end); err != nil {
		return "", err
	}
	got, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	want, err := t.ask(ctx, t.straight(), "select data from pg_logical_slot_get_changes('straight', null, null)")
	if err != nil {
		return "", err
	}
	// What comes through may end one transaction earlier, at the position.
	if !strings.HasPrefix(want, strings.TrimSpace(string(got))) || strings.Count(string(got), "COMMIT") < 4*t.transactions() {
		return "", fmt.Errorf("%d bytes of changes through the gate differ from %d straight", len(got), len(want))
	}
	_, err = t.ask(ctx, t.straight(), "select pg_drop_replication_slot('through'), pg_drop_replication_slot('straight')")
	return fmt.Sprintf("%d transactions of pgbench, decoded: every line as from a second slot, read straight", 4*t.transactions()), err
}

// conninfo is how a server follows another through a gate. Its own directory,
// where a server looks for relative names, has the CA.
func conninfo(g *gate.Gate, application string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres password='%s' sslmode=verify-ca sslrootcert=ca.crt sslcert=none application_name=%s",
		g.Host, g.Port, replicatorUser, password, application)
}

func subscription(ctx context.Context, t *trial) (string, error) {
	subscriber, err := t.startServer(ctx, t.server.release, nil)
	if err != nil {
		return "", err
	}
	there := superuserEnv(subscriber.SocketDir, subscriber.Port, "postgres")
	if _, err := t.program(ctx, there, "pgbench", "-i", "-q", "-s", "1", "-I", "dtp"); err != nil {
		return "", err
	}
	if _, err := t.ask(ctx, t.straight(), "create publication everything for all tables"); err != nil {
		return "", err
	}
	err = t.whileWriting(ctx, func() error {
		_, err := t.ask(ctx, there, fmt.Sprintf("create subscription everything connection '%s' publication everything", strings.ReplaceAll(conninfo(t.gate, "subscriber"), "'", "''")))
		return err
	})
	if err != nil {
		return "", err
	}
	if err := t.until(ctx, there, "select count(*) from pg_subscription_rel where srsubstate <> 'r'", "0"); err != nil {
		return "", err
	}
	for range 2 {
		if err := t.bench(ctx, t.gateEnv(t.gate, scramUser, "postgres"), t.transactions()); err != nil {
			return "", err
		}
		if err := t.caughtUp(ctx, t.straight(), "subscriber"); err != nil {
			return "", err
		}
		if err := t.same(ctx, t.straight(), there); err != nil {
			return "", err
		}
		// And once more behind a drain.
		if err := t.drain(ctx, 1); err != nil {
			return "", err
		}
	}
	_, err = t.ask(ctx, there, "drop subscription everything")
	return "initial copy under pgbench, then changes, then changes behind a drain of the gate: all tables have equal checksums; application_name is `subscriber`", err
}

// caughtUp waits until the replica of that very name has everything. An
// application_name that the gate has changed would never be found
// (multigres#689).
func (t *trial) caughtUp(ctx context.Context, env []string, application string) error {
	lsn, err := t.ask(ctx, env, "select pg_current_wal_lsn()")
	if err != nil {
		return err
	}
	return t.until(ctx, env, fmt.Sprintf("select replay_lsn >= '%s' from pg_stat_replication where application_name = '%s'", lsn, application), "t")
}

// standby is a server made from a backup, which pgtest cannot make.
type standby struct {
	socketDir string
	port      int
}

func (s *standby) env() []string { return superuserEnv(s.socketDir, s.port, "postgres") }

// follow makes a standby of what is behind a gate and starts it. The lab ends it.
func (t *trial) follow(ctx context.Context, g *gate.Gate, application string) (*standby, error) {
	// The account that PostgreSQL runs under can reach the directory of its other files.
	base, err := os.MkdirTemp(filepath.Dir(filepath.Dir(t.server.SocketDir)), "pgwicket-standby-")
	if err != nil {
		return nil, err
	}
	t.atEnd(func() { _ = os.RemoveAll(base) })
	data, run := filepath.Join(base, "data"), filepath.Join(base, "run")
	if _, err := t.program(ctx, t.gateEnv(g, replicatorUser, "postgres"), "pg_basebackup", "-D", data, "-X", "stream", "-c", "fast", "--no-sync"); err != nil {
		return nil, err
	}
	settings := fmt.Sprintf("primary_conninfo = '%s'\n", strings.ReplaceAll(conninfo(g, application), "'", "''"))
	if err := errors.Join(
		os.Mkdir(run, 0o700),
		os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o600),
		os.WriteFile(filepath.Join(data, "postgresql.auto.conf"), []byte(settings), 0o600),
	); err != nil {
		return nil, err
	}
	st, err := os.Stat(t.server.SocketDir)
	if err != nil {
		return nil, err
	}
	owner := st.Sys().(*syscall.Stat_t)
	var account *syscall.Credential
	if int(owner.Uid) != os.Geteuid() {
		account = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
		if _, err := harness.Output(ctx, "", os.Environ(), "chown", "-R", fmt.Sprintf("%d:%d", owner.Uid, owner.Gid), base); err != nil {
			return nil, err
		}
	}
	s := &standby{run, t.server.Port}
	p, err := gate.Run(gate.Command{
		Argv: []string{
			filepath.Join(t.server.BinDir, "postgres"), "-D", data, "-k", run, "-p", strconv.Itoa(s.port), "-h", "",
			"-c", "fsync=off", "-c", "max_connections=200", "-c", "max_wal_senders=20", "-c", "wal_level=logical",
		},
		Dir: base, Env: pgtest.Environ(), Account: account,
	})
	if err != nil {
		return nil, err
	}
	t.atEnd(func() { _ = p.Stop(syscall.SIGQUIT, 20*time.Second) })
	return s, t.until(ctx, s.env(), "select pg_is_in_recovery()", "t")
}

func physicalStandby(ctx context.Context, t *trial) (done string, err error) {
	if t.standby, err = t.follow(ctx, t.gate, "standby_a"); err != nil {
		return "", err
	}
	if _, err := t.ask(ctx, t.straight(), "alter system set synchronous_standby_names = 'standby_a'"); err != nil {
		return "", err
	}
	if _, err := t.ask(ctx, t.straight(), "select pg_reload_conf()"); err != nil {
		return "", err
	}
	if err := t.until(ctx, t.straight(), "select sync_state from pg_stat_replication where application_name = 'standby_a'", "sync"); err != nil {
		return "", err
	}
	env := t.gateEnv(t.gate, scramUser, "postgres", "PGOPTIONS=-c synchronous_commit=remote_apply")
	if err := t.bench(ctx, env, t.transactions()); err != nil {
		return "", err
	}
	if err := t.caughtUp(ctx, t.straight(), "standby_a"); err != nil {
		return "", err
	}
	err = t.same(ctx, t.straight(), t.standby.env())
	return fmt.Sprintf("%d transactions of pgbench with remote_apply; sync_state is sync, by the application_name; all tables have equal checksums", 4*t.transactions()), err
}

func reconnected(ctx context.Context, t *trial) (string, error) {
	if t.standby == nil {
		return "", errors.New("there is no standby")
	}
	const times = 3
	env := t.gateEnv(t.gate, scramUser, "postgres", "PGOPTIONS=-c synchronous_commit=remote_apply")
	for range times {
		if _, err := t.ask(ctx, t.straight(), "select pg_terminate_backend(pid) from pg_stat_replication where application_name = 'standby_a'"); err != nil {
			return "", err
		}
		if err := t.bench(ctx, env, t.transactions()); err != nil {
			return "", err
		}
		if err := t.caughtUp(ctx, t.straight(), "standby_a"); err != nil {
			return "", err
		}
		if err := t.same(ctx, t.straight(), t.standby.env()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("the standby's connection was lost %d times; each time it came back, and all tables have equal checksums", times), nil
}

// drain ends the gate in order and starts it again. A stream of replication is never
// idle, so it is ended at once, in words (pgbouncer#1468), and n of them are.
func (t *trial) drain(ctx context.Context, n int) error {
	since, began := len(t.gate.Records()), time.Now()
	if err := t.gate.Stop(); err != nil {
		return err
	}
	if took := time.Since(began); took > 15*time.Second { // of the 30 that drain_timeout is
		return fmt.Errorf("the drain took %v", took)
	}
	streams := 0
	for _, r := range t.gate.Records()[since:] {
		if r.Is(gate.MessageEnded, "outcome", "drained") {
			streams++
		}
	}
	if streams != n {
		return fmt.Errorf("%d streams were drained, want %d", streams, n)
	}
	return t.gate.Launch(ctx)
}

func drained(ctx context.Context, t *trial) (string, error) {
	if t.standby == nil {
		return "", errors.New("there is no standby")
	}
	const times = 2
	env := t.gateEnv(t.gate, scramUser, "postgres", "PGOPTIONS=-c synchronous_commit=remote_apply")
	for range times {
		if err := t.drain(ctx, 1); err != nil {
			return "", err
		}
		if err := t.bench(ctx, env, t.transactions()); err != nil {
			return "", err
		}
		if err := t.caughtUp(ctx, t.straight(), "standby_a"); err != nil {
			return "", err
		}
		if err := t.same(ctx, t.straight(), t.standby.env()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("SIGTERM to the gate under a synchronous standby, %d times: it ends within seconds, the standby comes back by itself, and all tables have equal checksums", times), nil
}

func promoted(ctx context.Context, t *trial) (string, error) {
	if t.standby == nil {
		return "", errors.New("there is no standby")
	}
	if _, err := t.ask(ctx, t.standby.env(), "select pg_promote()"); err != nil {
		return "", err
	}
	// A second gate, in front of it, for clients and for the next standby.
	g, err := t.startGate(ctx, bySocket(t.standby.socketDir, t.server.Port))
	if err != nil {
		return "", err
	}
	if err := t.addClientInfo(ctx, g); err != nil {
		return "", err
	}
	if _, err := t.ask(ctx, t.standby.env(), "alter system reset synchronous_standby_names"); err != nil {
		return "", err
	}
	if _, err := t.ask(ctx, t.standby.env(), "select pg_reload_conf()"); err != nil {
		return "", err
	}
	next, err := t.follow(ctx, g, "second")
	if err != nil {
		return "", err
	}
	if err := t.bench(ctx, t.gateEnv(g, scramUser, "postgres"), t.transactions()); err != nil {
		return "", err
	}
	if err := t.caughtUp(ctx, t.standby.env(), "second"); err != nil {
		return "", err
	}
	if err := t.same(ctx, t.standby.env(), next.env()); err != nil {
		return "", err
	}
	timeline, err := t.program(ctx, t.gateEnv(g, replicatorUser, "postgres"), "psql", "-XAtc", "IDENTIFY_SYSTEM", "replication=true")
	if fields := strings.Split(timeline, "|"); err == nil && (len(fields) != 4 || fields[1] != "2") {
		err = fmt.Errorf("IDENTIFY_SYSTEM says %q, want the timeline 2", timeline)
	}
	return "the standby was promoted, behind another gate: it takes pgbench's writes, is on timeline 2, and a standby of it has equal checksums", errors.Join(err, g.Check())
}
