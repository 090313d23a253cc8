package gate

import (
	"context"
	"os"
	"time"
)

// ending is how far the end of a gate has come. The goroutine of wait owns it.
type ending struct {
	drained chan error // gets one when nothing is open any more; nil: this process serves
	asked   os.Signal  // the signal that has begun it; nil: none has
	told    bool       // the process before has passed that one on, and this process may get the same from the system
}

// stop does what a signal is for that stops the gate. An error ends the gate at once.
func (g *Gate) stop(sig os.Signal, e *ending) error {
	switch {
	case e.told:
		e.told = false
		g.Log.Info("the process before has passed the same signal on", "signal", sig.String())
	case e.asked != nil:
		g.Log.Warn("second signal, exiting at once", "signal", sig.String(), "sessions", g.server.Sessions())
		return ErrKilled
	case e.drained != nil: // after an upgrade
		e.asked = sig
		g.Log.Info("this process ends its sessions as they become idle", "signal", sig.String(), "sessions", g.server.Sessions())
		g.stopUpgraded()
	default:
		e.asked = sig
		g.stopping.Store(true)
		if !g.withdrawUpgrade() {
			g.Log.Info("the new process has taken over; it is told to stop", "signal", sig.String())
			return nil // onUpgrade goes on
		}
		g.shutDown(e)
	}
	return nil
}

// stopAsTold is stop for a signal that the process before has passed on. A service manager sends one to both, in either
// order.
func (g *Gate) stopAsTold(sig os.Signal, e *ending) {
	if e.asked == nil {
		_ = g.stop(sig, e) // the first one is no error
		e.told = true
	}
}

// shutDown begins to end the gate, for a signal.
func (g *Gate) shutDown(e *ending) {
	e.drained = make(chan error, 1)
	g.beginShutdown()
	go g.drain(e.asked, e.drained)
	g.watch(false)
}

// beginShutdown tells the service manager of the shutdown and how long it may take.
func (g *Gate) beginShutdown() {
	g.stopping.Store(true)
	if before := g.admin.upgrade.before.Load(); before != nil {
		before.Stop()
	}
	const margin = 10 * time.Second // for what follows the drain
	g.notifier.Stopping(g.status(), g.started.DrainDelay+g.started.DrainTimeout+margin)
}

func (g *Gate) logStopped(err error) {
	if err != nil {
		g.Log.Warn("stopped; the remaining sessions were terminated")
	} else {
		g.Log.Info("stopped")
	}
}

func (g *Gate) drain(sig os.Signal, done chan<- error) {
	if g.started.ReusePort {
		g.admin.close() // health and metrics requests must reach the other gate
	}
	g.Log.Info("shutting down", "signal", sig.String(), "sessions", g.server.Sessions(), "drain_delay", g.started.DrainDelay.String(), "drain_timeout", g.started.DrainTimeout.String())
	time.Sleep(g.started.DrainDelay)
	ctx, cancel := context.WithTimeout(context.Background(), g.started.DrainTimeout)
	defer cancel()
	done <- g.server.Shutdown(ctx)
}
