package upgrade

import (
	"bytes"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pgwicket/internal/handover"
	"pgwicket/metrics"
)

// A new process goes on with sessions that were not committed if the old one is dead, but for those with which
// the old one has gone on before it died: both would seal records with the same keys and numbers.
func TestUncommittedSessions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                   string
		accepted, alive, taken bool
		goesOn                 bool
	}{
		{"the old process is dead", true, false, false, true},
		{"it has gone on with them, and is dead", true, false, true, false},
		{"it lives", true, true, false, false},
		{"they were not accepted", false, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			old := exec.Command("sleep", "60")
			if err := old.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = old.Process.Kill(); _ = old.Wait() })
			process := handover.OpenProcess(old.Process.Pid)
			defer process.Close()
			ours, err := handover.NewMark()
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := unix.Dup(ours.Descriptor())
			if err != nil {
				t.Fatal(err)
			}
			if c.taken {
				if err := ours.Set(); err != nil {
					t.Fatal(err)
				}
			}
			ours.Close() // as the kernel does when the old process dies
			if !c.alive {
				_ = old.Process.Kill()
			}
			var log bytes.Buffer
			p := &Predecessor{process: process, accepted: c.accepted, batch: []arrival{{id: "a"}}, tookBack: handover.MarkOf(theirs)}
			defer p.tookBack.Close()
			p.gate.Log, p.gate.Metrics = slog.New(slog.NewTextHandler(&log, nil)), metrics.New("test")
			p.settle()
			if goesOn := strings.Contains(log.String(), "this one goes on with them"); goesOn != c.goesOn {
				t.Errorf("it goes on: %v, want %v", goesOn, c.goesOn)
			}
			if p.batch != nil || p.accepted {
				t.Error("the batch is not settled")
			}
		})
	}
}
