package gate

import (
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"pgwicket/internal/upgrade"
)

// takeOver is the rest of start for a process that takes over from another one.
func (g *Gate) takeOver(signals Signals) error {
	p := g.Predecessor
	if err := p.TakeOver(upgrade.NewGate{Gate: g.shared(), LocksAdded: g.setLocks, Upgraded: g.Upgraded, Signal: g.queueSignal}); err != nil {
		return err
	}
	select {
	case sig := <-signals.Stop:
		return fmt.Errorf("a signal has come before the new process accepts connections: %v", sig)
	default:
	}
	g.followLocks() // the process before may have written its file since openLocks
	if err := p.Claim(); err != nil {
		return err
	}
	g.admin.upgrade.before.Store(p) // the first command may wait in the queue of the admin socket
	g.auditStart("upgraded", slog.Int("before", p.PID), slog.String("version_before", p.Version))
	g.serve(g.admin.upgrade.listeners)
	g.accepts.Store(true)
	p.Serving(func() { g.admin.upgrade.before.Store(nil) })
	g.ownSocket()
	return nil
}

// queueSignal has wait act on a signal that the process before has got for the gate.
func (g *Gate) queueSignal(sig os.Signal) {
	queue := g.admin.upgrade.told.stop
	if sig == syscall.SIGHUP {
		queue = g.admin.upgrade.told.reload
	}
	select {
	case queue <- sig:
	default: // wait has yet to act on the same
	}
}

// reloadNext takes note that this process reloads: a new one that has loaded its files before must do the same. One that
// serves reloads, too, if it was a signal: it may have been for the gate.
func (g *Gate) reloadNext(signal bool) {
	u := &g.admin.upgrade
	switch {
	case !u.under.Load():
	case !u.given.Load():
		u.reload = true
	case signal:
		u.next.Load().Signal(syscall.SIGHUP)
	}
}

// withdrawUpgrade ends an upgrade that is under way, and reports whether it has: not if the new process accepts
// connections. stopping is set, so that none can begin.
func (g *Gate) withdrawUpgrade() bool {
	next := g.admin.upgrade.next.Load()
	return next == nil || next.Withdraw("the gate is shutting down")
}

// leaveUpgrade is for a process that ends without waiting for an upgrade under way: it ends that, or leaves everything to
// the new process if that one has taken over.
func (g *Gate) leaveUpgrade(e *ending) {
	u := &g.admin.upgrade
	g.stopping.Store(true)
	next := u.next.Load()
	if next == nil || u.given.Load() || next.Withdraw("the process before has ended") {
		return
	}
	g.admin.file = nil // the socket is the new process's
	if e.asked != nil {
		next.Signal(e.asked)
	}
}

// onUpgrade goes on when an upgrade has been made or, without next, has failed.
func (g *Gate) onUpgrade(next *upgrade.Successor, e *ending) {
	u := &g.admin.upgrade
	reload := u.reload
	u.reload = false
	if next == nil {
		u.next.Store(nil)
		u.under.Store(false)
		if e.asked != nil && e.drained == nil {
			g.shutDown(e)
		}
		return
	}
	if reload {
		next.Signal(syscall.SIGHUP)
	}
	if e.asked != nil {
		next.Signal(e.asked)
		g.stopUpgraded()
	}
	e.drained = g.finishUpgrade(next)
}

// resumeAfterUpgrade has this process accept again, as its successor is gone.
func (g *Gate) resumeAfterUpgrade(err error) {
	g.Log.Error("the new process is gone; this process accepts connections again", "error", err)
	g.server.TakenBack()
	g.resumeServing()
	g.notifier.Silence(false)
	g.notifier.MainPID(os.Getpid()) // the new one has said its own
	g.notifier.Ready(g.status())
	g.admin.upgrade.given.Store(false)
	g.admin.upgrade.next.Store(nil)
	g.admin.upgrade.under.Store(false)
}
