package relay

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Terminate implements Handle.
func (f *flow) Terminate(t Termination) {
	f.loop.post(func() { f.whenThawed(func() { f.take(t) }) })
}

// TerminateIf implements Handle.
func (f *flow) TerminateIf(s State, t Termination, moved int64) {
	f.loop.post(func() {
		if from, to := f.Moved(); !f.frozen && from+to == moved && s.holds(&f.tracker, len(f.backend.queue) > 0) {
			f.take(t)
		}
	})
}

// CancelTermination implements Handle.
func (f *flow) CancelTermination() {
	f.loop.post(func() {
		f.whenThawed(func() {
			if f.termination != nil && f.termination.WhenIdle {
				f.dropTermination()
			}
		})
	})
}

// Moved implements Handle.
func (f *flow) Moved() (fromClient, toClient int64) { return f.fromClient.Load(), f.toClient.Load() }

// Activity implements Handle.
func (f *flow) Activity() Activity { return Activity(f.activity.Load()) }

// BackendClosed implements Handle.
func (f *flow) BackendClosed() bool { return f.backendClosed.Load() }

// take is terminate for the owner of the flow.
func (f *flow) take(t Termination) {
	f.terminate(t)
	if t.Taken != nil {
		t.Taken()
	}
}

// terminate ends the flow now or at the next place for it.
func (f *flow) terminate(t Termination) {
	switch {
	case f.over, f.backend.ended && t.Message != nil: // it is ending
		return
	case t.Message == nil:
		f.endTerminated(t)
		return
	case t.WhenIdle && f.termination != nil && !f.termination.WhenIdle:
		return // its client is not heard any more
	}
	f.dropTermination()
	f.termination = &t
	if !t.WhenIdle {
		f.backend.closed, f.backend.queue = true, nil // not a byte more of what the client sends
	}
	if at, ok := f.loop.deadlines[f]; !t.Deadline.IsZero() && (!ok || t.Deadline.Before(at)) {
		f.loop.setFlowDeadline(f, t.Deadline)
	}
	f.step(func() {
		if t.WhenIdle && f.tracker.CopyBoth() && !f.client.ended {
			f.readClient()
			f.held = len(f.backend.queue) > 0
		}
		f.tryTerminate()
	})
}

// tryTerminate sends the message that ends the flow, if there is a termination
// and this is the place for it. The backend sees its client leave; the client gets
// all that was sent before, the message, and an orderly end.
func (f *flow) tryTerminate() {
	t := f.termination
	if t == nil || f.held || f.over || f.backend.ended || !t.canSend(&f.tracker) {
		return
	}
	f.causeTerminated(*t)
	l := f.loop
	if f.backend.tls != nil {
		l.outUp = f.backend.tls.CloseNotify(l.outUp)
		f.sendBackend(nil)
	}
	f.backend.ended, f.backend.shut, f.backend.closed, f.backend.queue = true, true, true, nil
	f.closeBackend()
	l.out, _ = f.client.tls.Seal(l.out, slices.Clip(t.Message)) // others may have the same
	l.out = f.client.tls.CloseNotify(l.out)
	f.sendRecords()
	l.setFlowDeadline(f, time.Now().Add(lingerTimeout)) // a client that does not read is not waited for
}

// closeBackend closes the backend's leg, which may be done more than once.
func (f *flow) closeBackend() {
	if f.backendClosed.Swap(true) {
		return
	}
	if f.tracker.Login != nil {
		// PostgreSQL would execute what it has received, after a FIN too, and there is no key
		// to cancel it with. After a reset its first answer fails, and it ends (ClientConnectionLost in
		// src/backend/libpq/pqcomm.c).
		_ = unix.SetsockoptLinger(f.backend.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	f.close(&f.backend)
}

// dropTermination takes back a termination that has not begun.
func (f *flow) dropTermination() {
	if f.termination == nil || f.over || f.backend.ended {
		return
	}
	f.termination, f.held = nil, false
	if f.tracker.Login == nil { // else the deadline is the login's
		delete(f.loop.deadlines, f)
	}
}

func (f *flow) endTerminated(t Termination) {
	f.causeTerminated(t)
	f.end(Terminated)
}

func (f *flow) causeTerminated(t Termination) {
	if !f.caused {
		f.result.Termination = t.Reason
	}
	f.cause(Terminated)
}
