package proxy

import (
	"time"

	"pgwicket/acl"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/policy"
	"pgwicket/internal/relay"
)

// maintenance is how the rest of the server talks to maintain.
type maintenance struct {
	policyChanged chan struct{}
	done          chan struct{} // closed when maintain has returned
	now           func() time.Time
}

// now is the clock by which clients are judged.
func (s *Server) now() time.Time { return s.maintenance.now() }

// maintain looks after the live sessions until the server has stopped: it judges
// them again whenever there is a new policy and as time passes, for certificates
// expire and lists go stale, and ends those whose own time is over.
func (s *Server) maintain() {
	defer close(s.maintenance.done)
	change := policy.NewTimer(s.now)
	policy := s.policy.Load()
	recheck, expire, summary := every(policy.RecheckInterval), every(policy.Precision()), every(summaryInterval)
	change.Follow(policy)
	defer s.logLeftOut()
	for {
		select {
		case <-s.shutdown.done:
			recheck.Stop()
			expire.Stop()
			summary.Stop()
			change.Stop()
			return
		case <-summary.C:
			s.logLeftOut()
		case <-s.maintenance.policyChanged:
			policy = s.policy.Load()
			reset(recheck, policy.RecheckInterval)
			reset(expire, policy.Precision())
			s.recheck()
			change.Follow(policy)
		case <-recheck.C:
			s.recheck()
		case <-change.C:
			policy = s.policy.Load() // RenewPolicy does not wake this
			if change.Follow(policy) {
				s.recheck()
			}
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

// recheck judges every session again.
func (s *Server) recheck() {
	began := time.Now()
	policy, failing, now := s.policy.Load(), 0, s.now()
	for _, c := range s.all() {
		if c.recheck(policy, now) {
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
// would not be admitted now. A stale list refuses new connections; live sessions
// stay, unless p says otherwise.
func (s *session) recheck(p *Policy, at time.Time) (failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != judged && s.phase != relaying {
		return false
	}
	r := s.judgeAgain(p, at)
	if r != nil && r.Outcome == outcome.CRLStale && !p.EndOnStaleCRL {
		return false
	}
	mode := p.Recheck
	switch {
	case r == nil:
	case r.Outcome == outcome.CertExpired:
		mode = p.OnExpiry
	case r.Outcome == outcome.Locked:
		mode = policy.Immediate // whoever locks means now
	}
	switch {
	case r == nil:
		s.cancelTermination()
		return false
	case mode == policy.Off:
		s.cancelTermination()
	case s.phase == judged:
		// It has not begun, and start will not begin it. Its goroutine waits for
		// nothing but its turn and the backend, so it is not interrupted: its
		// client is told why.
		s.phase, s.refusal = ending, r
	case s.refusal == nil || s.deferred && mode == policy.Immediate:
		_, public := r.Message()
		s.terminate(r, "terminating connection: "+public, mode == policy.WhenIdle)
	}
	return true
}

// Terminate ends the sessions that match, at once and with the words that PostgreSQL has for
// pg_terminate_backend. It returns how many. The detail is for the log.
func (s *Server) Terminate(matches func(*acl.Request) bool, detail string) (ended int) {
	for _, one := range s.all() {
		if one.terminateIf(matches, detail) {
			ended++
		}
	}
	return ended
}

func (s *session) terminateIf(matches func(*acl.Request) bool, detail string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != relaying || s.terminating() || !matches(&s.peer.request) {
		return false
	}
	s.terminate(&Refusal{Outcome: outcome.Terminated, Detail: detail}, "terminating connection due to administrator command", false)
	return true
}

// terminate ends a session that the relay has, with words for the client: at once, or when
// its backend is idle. The caller holds mu.
func (s *session) terminate(r *Refusal, words string, whenIdle bool) {
	s.refusal, s.deferred = r, whenIdle
	t := relay.Termination{
		Reason:   uint8(r.Outcome),
		Message:  pgwire.Fatal(pgwire.SQLStateAdminShutdown, words, ""),
		WhenIdle: true,
	}
	if whenIdle {
		s.relay.Terminate(t)
	} else {
		s.terminateNow(t)
	}
}

// judgeAgain returns why p would not admit the session; nil if it would. A panic
// ends one session and no other.
func (s *session) judgeAgain(p *Policy, at time.Time) (r *Refusal) {
	defer func() {
		if panicked := recover(); panicked != nil {
			logPanic(s.server.log, panicked)
			r = &Refusal{Outcome: outcome.InternalError, Detail: "panic"}
		}
	}()
	rule, err := s.peer.judge(p, at, at)
	if err == nil {
		s.times = policy.TimesOf(rule)
		return nil
	}
	if r = asRefusal(err); r.Outcome != outcome.CertExpired || p.OnExpiry == policy.Immediate {
		return r
	}
	return s.peer.besidesExpiry(p, r, at)
}

// besidesExpiry returns what p holds against a client besides a certificate of its chain that has expired; the same refusal
// if there is nothing else. A session that may go on with that certificate must not hide behind it from a revocation, a rule
// or a lock.
func (p *peer) besidesExpiry(by *Policy, expired *Refusal, at time.Time) *Refusal {
	other, certAt := expired, at
	for other.Outcome == outcome.CertExpired {
		// To OpenSSL, and to tlsconfig, it has expired at that second.
		last := other.Expired.Add(-time.Second)
		if other.Expired.IsZero() || !last.Before(certAt) {
			break
		}
		certAt = last
		_, err := p.judge(by, at, certAt)
		if err == nil {
			return expired
		}
		other = asRefusal(err)
	}
	switch other.Outcome {
	case outcome.CertExpired, outcome.CertNotYetValid, outcome.CRLStale: // a list that is current now may not have been then
		if _, err := p.judge(by, at, time.Time{}); err != nil {
			return asRefusal(err)
		}
		return expired
	}
	return other
}

// cancelTermination takes back a termination that waits for the session to be
// idle. The caller holds mu.
func (s *session) cancelTermination() {
	if s.deferred {
		s.refusal, s.deferred = nil, false
		s.relay.CancelTermination()
	}
}
