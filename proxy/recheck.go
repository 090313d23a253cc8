package proxy

import (
	"errors"
	"time"

	"pgwicket/internal/pgwire"
)

// Recheck says what becomes of a live session that the policy would no longer
// let in.
type Recheck uint8

// The ways to deal with it.
const (
	Immediate Recheck = iota // it is ended, between two messages of the backend's
	WhenIdle                 // it is ended when its backend is idle, outside of a transaction
	Off                      // it is counted
)

// boundaryWait is how long a session that must end may take to come to a place
// where it can be told so.
const boundaryWait = 500 * time.Millisecond

// tend looks after the live sessions until the server has stopped: it judges
// them anew whenever there is a new policy and as time passes, for certificates
// expire and lists go stale, and ends those whose own time is over.
func (s *Server) tend() {
	defer close(s.tended)
	policy := s.policy.Load()
	recheck, expire := every(policy.RecheckInterval), every(policy.Limits.precision())
	for {
		select {
		case <-s.stopped:
			recheck.Stop()
			expire.Stop()
			return
		case <-s.renewed:
			policy = s.policy.Load()
			reset(recheck, policy.RecheckInterval)
			reset(expire, policy.Limits.precision())
			s.recheck()
		case <-recheck.C:
			s.recheck()
		case at := <-expire.C:
			s.expire(at)
		}
	}
}

// every returns a ticker; 0 is never.
func every(d time.Duration) *time.Ticker {
	t := time.NewTicker(time.Hour)
	reset(t, d)
	return t
}

func reset(t *time.Ticker, d time.Duration) {
	if d > 0 {
		t.Reset(d)
	} else {
		t.Stop()
	}
}

// recheck judges every session anew.
func (s *Server) recheck() {
	began := time.Now()
	policy, failing := s.policy.Load(), 0
	for _, c := range s.all() {
		if c.recheck(policy, began) {
			failing++
		}
	}
	s.metrics.Rechecked(failing, time.Since(began))
}

func (s *Server) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*session, 0, len(s.sessions))
	for c := range s.sessions {
		all = append(all, c)
	}
	return all
}

// recheck judges a session that has been judged before by p, and ends it if it
// would not be let in now. A stale list turns newcomers away: those who are in
// came before, unless p says otherwise.
func (c *session) recheck(p *Policy, at time.Time) (failing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.proved || c.ended {
		return false
	}
	r := c.judgeAgain(p, at)
	if r != nil && r.Outcome == CRLStale && !p.EndOnStaleCRL {
		return false
	}
	switch {
	case r == nil:
		c.pardon()
		return false
	case p.Recheck == Off:
		c.pardon()
	case c.relay.end == nil: // on its way in: it has not begun, so it is refused
		c.refusal = r
		c.cut()
	case c.refusal == nil || c.waits && p.Recheck == Immediate:
		c.refusal, c.waits = r, p.Recheck == WhenIdle
		_, public := r.Message()
		e := ending{cause: r.Outcome, words: pgwire.Fatal(shutdown, "terminating connection: "+public, ""), idle: c.waits}
		if !c.waits {
			e.by = at.Add(boundaryWait)
		}
		c.relay.end(e)
	}
	return true
}

// judgeAgain returns why p would not let the session in; nil if it would. A panic
// costs one session its life.
func (c *session) judgeAgain(p *Policy, at time.Time) (r *Refusal) {
	defer func() {
		if panicked := recover(); panicked != nil {
			logPanic(c.server.log, panicked)
			r = &Refusal{Outcome: InternalError, Detail: "panic"}
		}
	}()
	if _, err := c.judge(p, at); err != nil && !errors.As(err, &r) {
		r = &Refusal{Outcome: InternalError, Detail: err.Error()}
	}
	return r
}

// pardon takes back a sentence that waits for the session to be idle.
func (c *session) pardon() {
	if c.waits {
		c.refusal, c.waits = nil, false
		c.relay.spare()
	}
}
