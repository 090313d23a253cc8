package proxy

import (
	"fmt"
	"time"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
)

// expire ends the sessions that have been idle, or open, for too long.
func (s *Server) expire(at time.Time) {
	l := s.policy.Load().Limits
	if s.drains() {
		return // all of them are ending
	}
	for _, one := range s.all() {
		one.expire(l, at)
	}
}

func (s *session) expire(l Limits, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != relaying || s.terminating() {
		return // it has not begun, or it is ending
	}
	l = s.times.Apply(l)
	if l.SessionLifetime > 0 && s.expireOld(l.SessionLifetime, at) {
		return
	}
	if s.hasMoved(at) {
		return
	}
	s.expireQuiet(relay.Idle, outcome.IdleTimeout, l.IdleTimeout, at, "it has been idle for the idle_timeout of %v")
	words := "it has been idle in a transaction for the idle_in_transaction_timeout of %v"
	if l.IdleInTransaction == l.IdleTimeout {
		words = "it has been idle for the idle_timeout of %v"
	}
	s.expireQuiet(relay.IdleInTransaction, outcome.IdleTimeout, l.IdleInTransaction, at, words)
	s.expireQuiet(relay.Unfinished, outcome.UnfinishedRequest, l.UnfinishedTimeout, at, "its client has not sent the rest of a request for the unfinished_request_timeout of %v")
}

// hasMoved reports whether a byte has been moved since the last call, and takes note of
// when. The caller holds mu.
func (s *session) hasMoved(at time.Time) bool {
	fromClient, toClient := s.relay.Moved()
	if moved := fromClient + toClient; moved != s.moved {
		s.moved, s.since = moved, at
		return true
	}
	return false
}

// expireOld ends the session if it is older than lifetime. The caller holds mu.
func (s *session) expireOld(lifetime time.Duration, at time.Time) bool {
	age := at.Sub(s.peer.accepted)
	if age < lifetime {
		return false
	}
	detail := fmt.Sprintf("it has been open for the session_lifetime of %v", lifetime)
	words := "terminating connection: " + detail
	if age >= lifetime+lifetime/8 {
		s.terminate(&Refusal{Outcome: outcome.SessionLifetime, Detail: detail}, words, false)
		return true
	}
	s.relay.Terminate(relay.Termination{
		Reason:   uint8(outcome.SessionLifetime),
		Message:  pgwire.Fatal(pgwire.SQLStateAdminShutdown, words, ""),
		WhenIdle: true,
	})
	return true
}

// expireQuiet ends the session if it has been in a state, in which nothing moves, for
// timeout. The caller holds mu.
func (s *session) expireQuiet(in relay.State, o Outcome, timeout time.Duration, at time.Time, words string) {
	if timeout <= 0 || at.Sub(s.since) < timeout {
		return
	}
	t := relay.Termination{
		Reason:   uint8(o),
		Message:  pgwire.Fatal(pgwire.SQLStateIdleSessionTimeout, "terminating connection: "+fmt.Sprintf(words, timeout), ""),
		Deadline: at.Add(boundaryWait),
	}
	if in == relay.Unfinished { // else the backend does nothing
		t.Taken = s.cancelTerminated
	}
	s.relay.TerminateIf(in, t, s.moved)
}
