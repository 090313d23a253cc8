//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/test/harness"
)

// benchTables makes the tables of pgbench, and returns the size of all databases.
func (t *trial) benchTables(ctx context.Context) (size int64, err error) {
	scale := "10"
	if t.quick {
		scale = "2"
	}
	if _, err := t.program(ctx, t.straight(), "pgbench", "-i", "-q", "-s", scale); err != nil {
		return 0, err
	}
	if _, err := t.ask(ctx, t.straight(), "grant all on all tables in schema public to app; grant select on all tables in schema public to replicator"); err != nil {
		return 0, err
	}
	text, err := t.ask(ctx, t.straight(), "select sum(pg_database_size(oid)) from pg_database")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// backupUpgraded takes a base backup as a tar file.
func backupUpgraded(ctx context.Context, t *trial) (string, error) {
	size, err := t.benchTables(ctx)
	if err != nil {
		return "", err
	}
	dir := t.file("backup")
	unpack := exec.CommandContext(ctx, "sh", "-c", `mkdir "$1" && tar -x -f - -C "$1"`, "sh", dir)
	harness.Bound(unpack)
	in, err := unpack.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := unpack.Start(); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(t.server.BinDir, "pg_basebackup"), "-D", "-", "-Ft", "-X", "fetch", "-c", "fast", "--manifest-checksums=SHA256")
	cmd.Env = t.gateEnv(t.gate, replicatorUser, "postgres")
	harness.Bound(cmd)
	u, began := t.upgrades(size), time.Now()
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = io.MultiWriter(in, u), &said
	err = cmd.Run()
	if err = errors.Join(err, in.Close(), unpack.Wait()); err != nil {
		return "", fmt.Errorf("pg_basebackup: %w: %s", err, said.String())
	}
	size = u.done
	done, err := u.end()
	if err != nil {
		return "", err
	}
	_, err = t.program(ctx, pgtest.Environ(), "pg_verifybackup", "-n", dir)
	return inTime(size, began, done) + "; pg_verifybackup passed, SHA-256 of all files", err
}

// followersUpgraded has a standby and a subscriber follow a server through a gate while pgbench writes through
// it. Neither may have to connect again.
func followersUpgraded(ctx context.Context, t *trial) (string, error) {
	subscriber, err := t.startServer(ctx, t.server.release, nil)
	if err != nil {
		return "", err
	}
	there := superuserEnv(subscriber.SocketDir, subscriber.Port, "postgres")
	if _, err := t.program(ctx, there, "pgbench", "-i", "-q", "-s", "1", "-I", "dtp"); err != nil {
		return "", err
	}
	tables := "pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers"
	for _, sql := range []string{"drop table copied, piped", "create publication everything for table " + tables} {
		if _, err := t.ask(ctx, t.straight(), sql); err != nil {
			return "", err
		}
	}
	if t.standby, err = t.follow(ctx, t.gate, "standby"); err != nil {
		return "", err
	}
	subscribe := fmt.Sprintf("create subscription everything connection '%s' publication everything", strings.ReplaceAll(conninfo(t.gate, "subscriber"), "'", "''"))
	if _, err := t.ask(ctx, there, subscribe); err != nil {
		return "", err
	}
	if err := t.until(ctx, there, "select count(*) from pg_subscription_rel where srsubstate <> 'r'", "0"); err != nil {
		return "", err
	}
	const streams = "select string_agg(application_name || ' ' || pid || ' ' || backend_start, ', ' order by application_name) from pg_stat_replication"
	if err := t.until(ctx, t.straight(), "select count(*) from pg_stat_replication", "2"); err != nil {
		return "", err
	}
	before, err := t.ask(ctx, t.straight(), streams)
	if err != nil {
		return "", err
	}
	written, err := t.upgradeUnderBench(ctx)
	if err != nil {
		return "", err
	}
	after, err := t.ask(ctx, t.straight(), streams)
	if err == nil && before != after {
		err = fmt.Errorf("a stream has begun again: before %s, after %s", before, after)
	}
	for _, one := range []struct {
		name string
		env  []string
	}{{"standby", t.standby.env()}, {"subscriber", there}} {
		err = errors.Join(err, t.caughtUp(ctx, t.straight(), one.name))
		if err == nil {
			err = t.same(ctx, t.straight(), one.env)
		}
	}
	if err != nil {
		return "", err
	}
	_, err = t.ask(ctx, there, "drop subscription everything")
	return written + "; both streams kept their walsenders, and all tables have equal checksums on all three servers", err
}

// upgradeUnderBench upgrades while pgbench writes through the gate. No transaction may fail.
func (t *trial) upgradeUnderBench(ctx context.Context) (string, error) {
	count := func() (string, error) { return t.ask(ctx, t.straight(), "select count(*) from pgbench_history") }
	before, err := count()
	if err != nil {
		return "", err
	}
	env, clients := t.gateEnv(t.gate, scramUser, "postgres"), 4
	benched := make(chan error, 1)
	over := make(chan struct{})
	rounds := 0
	go func() {
		for {
			rounds++
			if err := t.bench(ctx, env, t.transactions()); err != nil {
				benched <- err
				return
			}
			select {
			case <-over:
				benched <- nil
				return
			default:
			}
		}
	}()
	u := t.upgrades(upgradesPerWork + 1)
	for range upgradesPerWork {
		if err = errors.Join(err, u.did(ctx, 1), u.wait()); err != nil {
			break
		}
		time.Sleep(time.Second) // the load between two upgrades
	}
	close(over)
	if err := errors.Join(err, <-benched); err != nil {
		return "", err
	}
	done, err := u.end()
	if err != nil {
		return "", err
	}
	after, err := count()
	if err != nil {
		return "", err
	}
	var was, is int
	if _, err := fmt.Sscan(before+" "+after, &was, &is); err != nil {
		return "", err
	}
	if want := rounds * clients * t.transactions(); is-was != want {
		return "", fmt.Errorf("pgbench has committed %d transactions, and %d are there", want, is-was)
	}
	return fmt.Sprintf("%s under pgbench, %d transactions, each there once", done, is-was), nil
}
