package limit

import (
	"net/netip"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// KeyState is what is known of the authentications of a Key, for another process.
type KeyState struct {
	Source    netip.Prefix `json:"source"`
	User      []byte       `json:"user"` // it need not be UTF-8
	SPKI      string       `json:"spki"`
	Failures  int          `json:"failures"`
	Until     time.Time    `json:"until"`
	Succeeded time.Time    `json:"succeeded"`
}

// State returns what is known of all keys, those first that are forgotten first. Attempts in flight
// are not part of it.
func (l *Attempts) State() (all []KeyState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	add := func(k Key, s *authState) {
		if s.failures > 0 || !s.succeeded.IsZero() {
			all = append(all, KeyState{k.Source, []byte(k.User), k.SPKI, s.failures, s.until, s.succeeded})
		}
	}
	for _, keys := range l.idle() {
		for _, k := range keys.Keys() {
			if s, ok := keys.Peek(k); ok {
				add(k, s)
			}
		}
	}
	for k, after := range l.clean {
		add(k, &authState{succeeded: l.start.Add(after)})
	}
	for k, s := range l.active {
		add(k, s)
	}
	return all
}

// Restore takes over what another process has known, perhaps again. Of a key that is known here, the more failures
// and the later times count, unless it has succeeded since.
func (l *Attempts) Restore(limits Limits, all []KeyState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range all {
		k := Key{one.Source, string(one.User), one.SPKI}
		s := l.use(k)
		if failed := one.Until.Add(-limits.AuthRefusal); !s.succeeded.After(failed) {
			s.failures = max(s.failures, one.Failures)
			if one.Until.After(s.until) {
				s.until = one.Until
			}
		}
		if one.Succeeded.After(s.succeeded) {
			s.succeeded = one.Succeeded
		}
		l.settle(limits.AuthFailures, k)
	}
}

// RateState is how many new connections a source, or a network, may open at once, for another process.
type RateState struct {
	Source  netip.Prefix `json:"source"`
	Network bool         `json:"network"`
	Tokens  float64      `json:"tokens"`
}

// RateStates returns the sources and networks that may not open as many as Burst allows, those first that
// are forgotten first.
func (l *Connections) RateStates(now time.Time) (all []RateState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	add := func(of *simplelru.LRU[netip.Prefix, *rate.Limiter], network bool) {
		for _, k := range of.Keys() {
			if one, ok := of.Peek(k); ok {
				if tokens := one.TokensAt(now); tokens < float64(one.Burst()) {
					all = append(all, RateState{k, network, tokens})
				}
			}
		}
	}
	add(l.rates.sources, false)
	add(l.rates.networks, true)
	return all
}

// RestoreRates takes over what another process has returned.
func (l *Connections) RestoreRates(limits Limits, all []RateState, now time.Time) {
	if limits.Rate <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range all {
		of, perSecond, burst := l.rates.sources, limits.Rate, limits.Burst
		if one.Network {
			of, perSecond, burst = l.rates.networks, perNetwork*limits.Rate, perNetwork*limits.Burst
		}
		bucket := rate.NewLimiter(rate.Limit(perSecond), burst)
		bucket.AllowN(now, burst-min(max(int(one.Tokens), 0), burst))
		of.Add(one.Source, bucket)
	}
}

// Adopt gives a proved session of another process its place, whatever the limits are: it has been
// admitted. evict is as in Admit, and never called.
func (l *Connections) Adopt(source netip.Prefix) *Ticket {
	t := &Ticket{limiter: l, source: source, network: networkOf(source), evict: func() {}, session: true}
	l.mu.Lock()
	defer l.mu.Unlock()
	s, n := l.count(t)
	n.tickets++
	s.connections++
	n.connections++
	l.sessions++
	return t
}

// AdoptAccount is Adopt for the place of a session in its account.
func (l *Connections) AdoptAccount(a Account) AccountTicket {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accounts[a]++
	return AccountTicket{l, a}
}

// Adopt is Admit without limits, for a session that another process has admitted.
func (r *Rules) Adopt(rule, spki string) RuleTicket {
	t, _ := r.Admit(rule, spki, 0, 0) // only a limit refuses
	return t
}

// Of returns the rule and the certificate that the session is counted for; an empty rule is none.
func (t RuleTicket) Of() (rule, spki string) { return t.keys[0].rule, t.keys[1].spki }
