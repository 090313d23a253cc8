package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier tells the service manager the state of the gate (sd_notify(3)). Without a
// service manager it does nothing. Its own goroutine writes to the manager, so
// that one that does not read cannot block the gate.
//
// Except for what Watchdog sends, one goroutine must use it.
type Notifier struct {
	log      *slog.Logger
	messages chan string
	done     chan struct{}
	status   string // the last one
	silent   atomic.Bool
}

// NewNotifier returns a Notifier, which must be closed.
func NewNotifier(log *slog.Logger) *Notifier {
	n := &Notifier{log: log}
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return n
	}
	const queued = 64 // far more than are ever under way
	n.messages, n.done = make(chan string, queued), make(chan struct{})
	go func() {
		defer close(n.done)
		for text := range n.messages {
			if _, err := daemon.SdNotify(false, text); err != nil {
				n.log.Warn("cannot notify the service manager", "error", err)
			}
		}
	}()
	return n
}

// Close sends what is queued, for at most a second.
func (n *Notifier) Close() {
	if n.messages == nil {
		return
	}
	close(n.messages)
	select {
	case <-n.done:
	case <-time.After(time.Second): // the manager does not read
	}
}

// Ready tells that the gate serves, after its start or a reload.
func (n *Notifier) Ready(status string) { n.sendStatus(status, daemon.SdNotifyReady) }

// Reloading tells that a reload has begun; Ready ends it.
func (n *Notifier) Reloading() {
	n.send(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
}

// Stopping tells that the gate shuts down, and how long that may take: the limit of
// the manager need not be kept in step with the configuration.
func (n *Notifier) Stopping(status string, timeout time.Duration) {
	n.sendStatus(status, daemon.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", timeout.Microseconds()))
}

// MainPID tells that another process of the service is its main one from now on. When it returns, the manager
// gets this before anything that the other process sends. Any goroutine may call it.
func (n *Notifier) MainPID(pid int) {
	if n.messages == nil {
		return
	}
	if _, err := daemon.SdNotify(false, fmt.Sprintf("MAINPID=%d", pid)); err != nil {
		n.log.Warn("cannot notify the service manager", "error", err)
	}
}

// Silence has everything but MainPID dropped from now on, or no more: another process speaks for the service. Any
// goroutine may call it.
func (n *Notifier) Silence(on bool) { n.silent.Store(on) }

// Status tells the status line, if it has changed.
func (n *Notifier) Status(status string) { n.sendStatus(status) }

func (n *Notifier) sendStatus(status string, lines ...string) {
	if status != n.status {
		n.status = status
		lines = append(lines, "STATUS="+status)
	}
	if len(lines) > 0 {
		n.send(lines...)
	}
}

func (n *Notifier) send(lines ...string) {
	if n.messages == nil || n.silent.Load() {
		return
	}
	select {
	case n.messages <- strings.Join(lines, "\n"):
	default:
		n.log.Warn("the service manager does not read notifications")
	}
}

// minProbe is the least time that a probe of the watchdog gets.
const minProbe = 500 * time.Millisecond

// Watchdog tells the manager, twice in the interval that it sets, that the gate is
// alive, as long as the probe succeeds before its context ends. It returns at once;
// stop ends it.
func (n *Notifier) Watchdog(probe func(context.Context) error) (stop func()) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("no watchdog", "error", err)
	}
	if n.messages == nil || interval <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.runWatchdog(ctx, interval/2, probe)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (n *Notifier) runWatchdog(ctx context.Context, every time.Duration, probe func(context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, max(every, minProbe))
		err := probe(one)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.log.Error("not alive; the service manager ends the gate unless this passes", "error", err)
		default:
			n.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
