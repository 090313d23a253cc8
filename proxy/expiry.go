package proxy

import (
	"fmt"
	"time"

	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
)

// precision is how often the sessions are looked at for the end of their time,
// so that none has an eighth more than it should.
func (l Limits) precision() time.Duration {
	least := min(l.IdleTimeout, l.SessionLifetime)
	if least <= 0 {
		least = max(l.IdleTimeout, l.SessionLifetime)
	}
	if least <= 0 {
		return 0
	}
	return min(max(least/8, 10*time.Millisecond), 5*time.Second)
}

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
	if age := at.Sub(s.peer.accepted); l.SessionLifetime > 0 && age >= l.SessionLifetime {
		end := l.SessionLifetime + l.SessionLifetime/8
		t := relay.Termination{
			Reason:   uint8(SessionLifetime),
			Message:  pgwire.Fatal(pgwire.SQLStateAdminShutdown, fmt.Sprintf("terminating connection: it has been open for the session_lifetime of %v", l.SessionLifetime), ""),
			WhenIdle: age < end,
		}
		if !t.WhenIdle {
			t.Deadline = s.peer.accepted.Add(end + boundaryWait)
		}
		s.relay.Terminate(t)
		return
	}
	fromClient, toClient := s.relay.Moved()
	if moved := fromClient + toClient; moved != s.moved {
		s.moved, s.since = moved, at
		return
	}
	if l.IdleTimeout > 0 && at.Sub(s.since) >= l.IdleTimeout {
		s.relay.TerminateIfQuiet(relay.Termination{
			Reason:   uint8(IdleTimeout),
			Message:  pgwire.Fatal(pgwire.SQLStateIdleSessionTimeout, fmt.Sprintf("terminating connection: it has been idle for the idle_timeout of %v", l.IdleTimeout), ""),
			Deadline: at.Add(boundaryWait),
		}, s.moved)
	}
}
