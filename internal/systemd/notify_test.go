//go:build unix

package systemd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// deadline bounds every wait of a test; it only matters for one that fails.
const deadline = time.Minute

// manager listens as a service manager does, and counts the watchdog's pings.
func manager(t *testing.T) *atomic.Int64 {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgw-") // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	pings := new(atomic.Int64)
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			pings.Add(int64(strings.Count(string(buf[:n]), "WATCHDOG=1")))
		}
	}()
	return pings
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", deadline, what)
		}
	}
}

// While the probe fails the manager gets no pings; when it succeeds again, it does.
func TestWatchdogNeedsProbe(t *testing.T) {
	pings := manager(t)
	t.Setenv("WATCHDOG_USEC", "40000")
	n := NewNotifier(slog.New(slog.DiscardHandler))
	var dead atomic.Bool
	var failures atomic.Int64
	stop := n.Watchdog(func(context.Context) error {
		if dead.Load() {
			failures.Add(1)
			return errors.New("stuck")
		}
		return nil
	})
	eventually(t, "pings", func() bool { return pings.Load() >= 3 })
	dead.Store(true)
	eventually(t, "a failed probe", func() bool { return failures.Load() >= 2 }) // no ping is under way after that
	before := pings.Load()
	eventually(t, "more failed probes", func() bool { return failures.Load() >= 12 })
	if got := pings.Load(); got != before {
		t.Errorf("%d pings while the probe failed", got-before)
	}
	dead.Store(false)
	eventually(t, "pings again", func() bool { return pings.Load() >= before+2 })
	stop()
	n.Close()
}

// A process that is not the main one any more does not keep the service alive.
func TestSilence(t *testing.T) {
	pings := manager(t)
	t.Setenv("WATCHDOG_USEC", "40000")
	n := NewNotifier(slog.New(slog.DiscardHandler))
	var probes atomic.Int64
	stop := n.Watchdog(func(context.Context) error { probes.Add(1); return nil })
	eventually(t, "pings", func() bool { return pings.Load() >= 3 })
	n.Silence(true)
	more := func() {
		t.Helper()
		before := probes.Load()
		eventually(t, "probes", func() bool { return probes.Load() >= before+5 })
	}
	more() // what was on its way has come
	before := pings.Load()
	more()
	if got := pings.Load(); got != before {
		t.Errorf("%d pings of a silent process", got-before)
	}
	n.Silence(false)
	eventually(t, "pings again", func() bool { return pings.Load() > before })
	stop()
	n.Close()
}
