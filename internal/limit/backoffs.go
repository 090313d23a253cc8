package limit

import (
	"net/netip"
	"time"

	"pgwicket/internal/printable"
)

// Backoff is a client whose failed authentications make it wait, or refuse it.
type Backoff struct {
	Source   netip.Prefix // of IPv6 a /64, or a /48 whose sources are refused together
	User     string       // printable
	SPKI     string       // the hash of its certificate's public key, in hexadecimal; empty: no certificate
	Failures int          // in a row
	Until    time.Time
	Refused  bool // until then
}

// Backoffs returns the clients that have failed to authenticate, in no order.
func (l *Attempts) Backoffs(limits Limits, now time.Time) []Backoff {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Backoff
	l.eachFailed(func(k Key, s *authState) {
		isNetwork := k.Source == networkOf(k.Source)
		times := 1
		if isNetwork {
			times = perNetwork
		}
		may, _ := s.allowed(limits, times, now)
		refused := limits.AuthFailures > 0 && may == 0
		if !isNetwork || refused {
			all = append(all, Backoff{k.Source, printable.Text(k.User), k.SPKI, s.failures, s.until, refused})
		}
	})
	return all
}

// eachFailed calls f for each key that has failed. The caller holds mu.
func (l *Attempts) eachFailed(f func(Key, *authState)) {
	one := func(k Key, s *authState) {
		if s.failures > 0 {
			f(k, s)
		}
	}
	for k, s := range l.active {
		one(k, s)
	}
	for _, keys := range l.idle() {
		for _, k := range keys.Keys() {
			if s, ok := keys.Peek(k); ok {
				one(k, s)
			}
		}
	}
}

// Lift forgets the failed authentications of a user, from a source; the
// zero value of either is any. It returns how many were forgotten.
func (l *Attempts) Lift(limits Limits, user string, source netip.Addr) (lifted int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.eachFailed(func(k Key, _ *authState) {
		if user != "" && k.User != user || source.IsValid() && !k.Source.Contains(source) {
			return
		}
		s := l.use(k)
		s.failures, s.until = 0, time.Time{}
		s.wake()
		l.settle(limits.AuthFailures, k)
		if k.Source != networkOf(k.Source) {
			lifted++
		}
	})
	return lifted
}
