package proxy

import (
	"net/netip"
	"time"

	"pgwicket/internal/limit"
	"pgwicket/internal/outcome"
	"pgwicket/metrics"
)

// Limits bound what clients may take of a gate. Zero is no limit but where it says
// otherwise.
type Limits = limit.Limits

// Usage is what clients take at the moment of what Limits bounds.
type Usage = limit.Usage

// Backoff is a client whose failed authentications make it wait, or refuse it.
type Backoff = limit.Backoff

// limitOutcomes are the outcomes of what a limiter refuses.
var limitOutcomes = [...]Outcome{
	limit.OverRate:     outcome.RateLimit,
	limit.OverSource:   outcome.SourceLimit,
	limit.OverSessions: outcome.ConnectionLimit,
	limit.OverStartups: outcome.StartupLimit,
	limit.OverAccount:  outcome.AccountLimit,
	limit.BackedOff:    outcome.AuthBackoff,
	limit.Interrupted:  outcome.ShuttingDown,
}

// limitRefusal returns the refusal for what a limiter has refused.
func limitRefusal(e *limit.Error) *Refusal {
	return &Refusal{Outcome: limitOutcomes[e.Kind], Public: e.Public, Detail: e.Detail}
}

// Usage counts it.
func (s *Server) Usage() Usage {
	u := s.limiter.Usage()
	u.CancelRequests = s.cancelKeys.requests.InFlight()
	return u
}

// countStage returns what counts the connections that are no sessions yet.
func countStage(m *metrics.Set) func(limit.Stage, int) {
	return func(s limit.Stage, by int) {
		switch s {
		case limit.Unproved:
			m.Unproved(by)
		case limit.Verified:
			m.Verified(by)
		case limit.Header:
			m.AwaitsHeader(by)
		}
	}
}

// attemptKey returns whose failed authentications count together with those of p.
func attemptKey(p *peer) limit.Key {
	k := limit.Key{Source: limit.SourceOf(p.request.Source), User: p.request.User}
	if p.verified {
		k.SPKI = p.request.Certificate.SPKI
	}
	return k
}

// Backoffs returns the clients that have failed to authenticate, in no order.
func (s *Server) Backoffs() []Backoff {
	return s.auth.Backoffs(s.policy.Load().Limits, time.Now())
}

// LiftBackoffs forgets the failed authentications of a user, from a source; the
// zero value of either is any. It returns how many were forgotten.
func (s *Server) LiftBackoffs(user string, source netip.Addr) (lifted int) {
	return s.auth.Lift(s.policy.Load().Limits, user, source)
}
