package proxy

import (
	"context"
	"time"

	"pgwicket/internal/backend"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
)

// boundaryWait is how long a session that must end may take to come to a place
// where it can be told why.
const boundaryWait = 500 * time.Millisecond

// terminateNow ends the session whatever it is doing: no byte of its client is forwarded any more,
// and its statement is cancelled until the backend's connection is closed. That begins when the relay
// has taken the termination: after pg_terminate_backend a client gets the FATAL error alone, and no
// ERROR of its statement before it (ProcessInterrupts in src/backend/tcop/postgres.c). The caller
// holds mu.
func (s *session) terminateNow(t relay.Termination) {
	t.WhenIdle, t.Deadline, t.Taken = false, time.Now().Add(boundaryWait), s.cancelTerminated
	s.relay.Terminate(t)
}

// cancelTerminated is cancelNow for the relay. Once relayEnded has run there is nothing left for it to do.
func (s *session) cancelTerminated() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == relaying {
		s.cancelNow()
	}
}

// cancelNow begins to cancel what the backend does, unless it has begun or there is no key yet. The
// caller holds mu.
func (s *session) cancelNow() {
	if s.cancelling || s.login.PID == 0 || len(s.login.Key) == 0 {
		return
	}
	s.cancelling = true
	handle, login := s.relay, s.login
	s.server.wg.Go(func() { s.cancelUntilClosed(handle, login) })
}

// cancelLeftover cancels what the backend still does for a session that the gate has ended on
// purpose without cancelling anything before: at the end of a drain, or for what its client has
// sent or not sent. A client that has closed its side while it waits for its answer is the cause of
// the end, also of a session that is terminated after that.
func (s *session) cancelLeftover(r relay.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.Cause {
	case relay.Terminated, relay.LimitReached, relay.Failed:
	default:
		if !s.terminating() {
			return
		}
	}
	if r.Busy && r.Login.Ready {
		s.login = r.Login
		s.cancelNow()
	}
}

// While a session that must end has its backend, its statement is cancelled again
// and again: one cancelled statement may be followed by the next of a pipeline that
// PostgreSQL has in its socket. Once the backend's connection is closed, PostgreSQL
// ends at the next bytes it sends, so what follows is for a statement that sends
// none.
const cancelInterval = 50 * time.Millisecond

// cancelsAtOnce is for all sessions: each CancelRequest costs PostgreSQL a process,
// and a reload may revoke thousands.
const cancelsAtOnce = 32

var cancelsAfterClose = [...]time.Duration{0, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}

// cancelUntilClosed cancels what the backend of a session does that must end at
// once. PostgreSQL only notices that its client has gone when it writes, and a
// DELETE of a revoked client would run to its end. All of it together takes no
// longer than one CancelRequest may, for a shutdown waits for it.
func (s *session) cancelUntilClosed(of relay.Handle, login pgwire.Login) {
	ctx, stop := context.WithTimeout(context.Background(), boundaryWait+backend.CancelTimeout)
	defer stop()
	cancel := func() {
		if s.server.cancelKeys.ownSlots.Acquire(ctx) == nil {
			defer s.server.cancelKeys.ownSlots.Release()
			s.host.CancelQuery(ctx, login)
		}
	}
	for closed := false; !closed && ctx.Err() == nil; time.Sleep(cancelInterval) {
		closed = of.BackendClosed()
		cancel()
	}
	for _, pause := range cancelsAfterClose {
		time.Sleep(pause)
		cancel()
	}
}
