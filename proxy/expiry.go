package proxy

import (
	"fmt"
	"time"

	"pgwicket/internal/pgwire"
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

// expire ends the sessions that were idle, or that have lived, for too long.
func (s *Server) expire(at time.Time) {
	l := s.policy.Load().Limits
	if s.dismisses() {
		return // all of them are ending
	}
	for _, c := range s.all() {
		c.expire(l, at)
	}
}

func (c *session) expire(l Limits, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.relay.moved == nil || c.ended || c.refusal != nil && !c.waits {
		return // it has not begun, or it is ending
	}
	if age := at.Sub(c.began); l.SessionLifetime > 0 && age >= l.SessionLifetime {
		end := l.SessionLifetime + l.SessionLifetime/8
		e := ending{
			cause: SessionLifetime,
			words: pgwire.Fatal(shutdown, fmt.Sprintf("terminating connection: it has been open for the session_lifetime of %v", l.SessionLifetime), ""),
			idle:  age < end,
		}
		if !e.idle {
			e.by = c.began.Add(end + boundaryWait)
		}
		c.relay.end(e)
		return
	}
	up, down := c.relay.moved()
	if moved := up + down; moved != c.moved {
		c.moved, c.still = moved, at
		return
	}
	if l.IdleTimeout > 0 && at.Sub(c.still) >= l.IdleTimeout {
		c.relay.close(ending{
			cause: IdleTimeout,
			words: pgwire.Fatal(idleTimeout, fmt.Sprintf("terminating connection: it has been idle for the idle_timeout of %v", l.IdleTimeout), ""),
			by:    at.Add(boundaryWait),
		}, c.moved)
	}
}
