//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

const upgradesHelp = `Upgrade a gate ten times during each of some long works of its clients, and compare what
they get and store by checksum. An upgrade begins when another eleventh of the work
is done, while the work goes on.

`

// upgradesPerWork is how many upgrades each work must live through.
const upgradesPerWork = 10

// runUpgrades is the subcommand.
func runUpgrades(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return runSteps(ctx, "upgrades", upgradesHelp, args, stdout, stderr, func(*trial) []step {
		return []step{
			{"A gate with an admin socket", upgradable},
			{"psql, COPY out", copyOutUpgraded},
			{"psql, COPY in", copyInUpgraded},
			{"JDBC, COPY out, keys changed after 64 MiB", jdbcOutUpgraded},
			{"JDBC, COPY in, keys changed after 64 MiB", jdbcInUpgraded},
			{"pgx, a pipeline of 1,000 queries", pipelineUpgraded},
			{"`pg_basebackup`", backupUpgraded},
			{"A physical standby and a logical subscriber", followersUpgraded},
		}
	}, []string{"wal_keep_size=2GB", "checkpoint_timeout=1h", "max_wal_size=8GB"})
}

// upgradable gives the gate what an upgrade needs.
func upgradable(ctx context.Context, t *trial) (string, error) {
	t.gate.Kill()
	keys := bySocket(t.server.SocketDir, t.server.Port)
	keys["admin.socket"] = t.file("admin.sock")
	keys["limits.drain_timeout"] = gate.Timeout.String()
	var err error
	if t.gate, err = t.startGate(ctx, keys); err != nil {
		return "", err
	}
	_, err = t.ask(ctx, t.straight(), "create unlogged table copied (n int8, body text); create table piped (n int8); grant all on copied, piped to app")
	return fmt.Sprintf("PostgreSQL %s, %d processors, %s", t.server.version, runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly)), err
}

// upgrade replaces the gate's process by another one, and waits until the old one has ended.
func (t *trial) upgrade(ctx context.Context) error {
	old := t.gate
	u, err := old.BeginUpgrade(ctx, t.binary, "")
	if err != nil {
		return err
	}
	if _, err := u.Wait(); err != nil {
		return err
	}
	next, err := u.Successor()
	if err != nil {
		return err
	}
	t.atEnd(next.Kill)
	t.gate = next
	if err := old.Expect(gate.Timeout); err != nil {
		return err
	}
	// The new process notices the end a moment later; until then it refuses another upgrade.
	return gate.Eventually(ctx, "another upgrade is possible", gate.Timeout, func() error {
		_, err := harness.Output(ctx, "", os.Environ(), t.binary, "upgrade", "--dry-run", "--config", filepath.Join(next.Dir, "pgwicket.yaml"))
		return err
	})
}

// upgrades are those of one work. Its methods are for one goroutine, and nobody may use the gate of the
// trial meanwhile.
type upgrades struct {
	trial *trial
	size  int64 // of the whole work
	done  int64 // of it
	begun int
	under chan error // gets the end of the upgrade that is under way; nil: none is
	moved int        // sessions, when the work began
}

func (t *trial) upgrades(size int64) *upgrades {
	return &upgrades{trial: t, size: size, moved: t.moved()}
}

// moved counts the sessions that were handed over.
func (t *trial) moved() (n int) {
	for _, r := range t.gate.Records() {
		if count, ok := r["moved"].(float64); ok && r.Is(gate.MessageHandedOver) {
			n += int(count)
		}
	}
	return n
}

// did takes note that more of the work is done, and begins an upgrade at each eleventh. If the one before is
// still under way it waits, and the last one must be over before the work can be.
func (u *upgrades) did(ctx context.Context, more int64) error {
	u.done += more
	for u.begun < upgradesPerWork && u.done*(upgradesPerWork+1) >= u.size*int64(u.begun+1) {
		if err := u.wait(); err != nil {
			return err
		}
		u.begun++
		u.under = make(chan error, 1)
		go func() { u.under <- u.trial.upgrade(ctx) }()
	}
	if u.begun == upgradesPerWork {
		return u.wait()
	}
	return nil
}

func (u *upgrades) wait() error {
	if u.under == nil {
		return nil
	}
	err := <-u.under
	u.under = nil
	return err
}

// end waits for the last upgrade, and fails unless there were enough, each with a session handed over.
func (u *upgrades) end() (string, error) {
	if err := u.wait(); err != nil {
		return "", err
	}
	moved := u.trial.moved() - u.moved
	if u.begun < upgradesPerWork || moved < upgradesPerWork {
		return "", fmt.Errorf("%d upgrades and %d sessions handed over, want %d of each", u.begun, moved, upgradesPerWork)
	}
	return fmt.Sprintf("%d upgrades", u.begun), nil
}

// Write implements io.Writer: bytes are the work.
func (u *upgrades) Write(b []byte) (int, error) {
	return len(b), u.did(context.Background(), int64(len(b)))
}
