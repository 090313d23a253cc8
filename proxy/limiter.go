package proxy

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Limits bound what clients may take of a gate. Zero is no limit.
type Limits struct {
	Connections int     // at once, those in their startup included
	PerSource   int     // likewise, from one source
	PerAccount  int     // sessions of one user in one database
	Rate        float64 // new connections a second from one source
	Burst       int     // how many may come at once before Rate counts

	// AuthFailures is how often in a row PostgreSQL may refuse the
	// authentication of a user from one source before it is not asked any more
	// for AuthRefusal. Each failure makes the next attempt wait longer.
	AuthFailures int
	AuthRefusal  time.Duration

	// IdleTimeout ends a session in which nothing has moved for so long, either
	// way, while no query was under way. SessionLifetime ends one that is older,
	// as soon as it is outside of a transaction, and an eighth later in any case.
	// Both may be late by an eighth, or 5 seconds if that is less.
	IdleTimeout     time.Duration
	SessionLifetime time.Duration
}

// sourcesKnown bounds the memory of a limiter: a million sources cost no more.
// The source that was not seen for longest is forgotten first.
const sourcesKnown = 1 << 16

// limiter counts connections and remembers failed authentications. A source is an
// address, or of IPv6 the /64 that one customer has alone.
type limiter struct {
	mu       sync.Mutex
	all      int
	sources  map[netip.Prefix]int
	accounts map[account]int
	rates    *simplelru.LRU[netip.Prefix, *rate.Limiter]
	failures *simplelru.LRU[authKey, authFailures]
}

type account struct{ user, database string }

// authKey is whose failed authentications count together.
type authKey struct {
	source netip.Prefix
	user   string
}

func authKeyOf(p *peer) authKey { return authKey{sourceOf(p.request.Source), p.request.User} }

type authFailures struct {
	times int
	until time.Time // refused, if there were enough of them
}

func newLimiter() *limiter {
	l := &limiter{sources: make(map[netip.Prefix]int), accounts: make(map[account]int)}
	// The errors are for sizes that are not positive.
	l.rates, _ = simplelru.NewLRU[netip.Prefix, *rate.Limiter](sourcesKnown, nil)
	l.failures, _ = simplelru.NewLRU[authKey, authFailures](sourcesKnown, nil)
	return l
}

func sourceOf(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// sourceTicket is a connection's place in the limiter. The zero ticket is none.
type sourceTicket struct {
	limiter *limiter
	source  netip.Prefix
}

// admit gives a connection a place, unless there is no room for it.
func (l *limiter) admit(limits Limits, source netip.Prefix, now time.Time) (t sourceTicket, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.allow(limits, source, now):
		return t, refuse(RateLimit, fmt.Sprintf("more than limits.connection_rate from %v", source))
	case limits.Connections > 0 && l.all >= limits.Connections:
		return t, refuse(ConnectionLimit, "limits.max_connections")
	case limits.PerSource > 0 && l.sources[source] >= limits.PerSource:
		return t, refuse(SourceLimit, fmt.Sprintf("limits.max_connections_per_source from %v", source))
	}
	l.all++
	l.sources[source]++
	return sourceTicket{l, source}, nil
}

func (l *limiter) allow(limits Limits, source netip.Prefix, now time.Time) bool {
	if limits.Rate <= 0 {
		return true
	}
	r, ok := l.rates.Get(source)
	if !ok {
		r = rate.NewLimiter(rate.Limit(limits.Rate), limits.Burst)
		l.rates.Add(source, r)
	} else if r.Limit() != rate.Limit(limits.Rate) || r.Burst() != limits.Burst { // a reload
		r.SetLimitAt(now, rate.Limit(limits.Rate))
		r.SetBurstAt(now, limits.Burst)
	}
	return r.AllowN(now, 1)
}

// Release gives the place up. Only the first call counts.
func (t *sourceTicket) Release() {
	l := t.limiter
	if l == nil {
		return
	}
	t.limiter = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.sources[t.source]--; l.sources[t.source] == 0 {
		delete(l.sources, t.source)
	}
}

// accountTicket is a session's place in its account. The zero ticket is none.
type accountTicket struct {
	limiter *limiter
	account account
}

// admitAccount gives a session a place in its account, unless that has as many as
// it may.
func (l *limiter) admitAccount(limits Limits, a account) (t accountTicket, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limits.PerAccount > 0 && l.accounts[a] >= limits.PerAccount {
		return t, &Refusal{
			Outcome: AccountLimit,
			Public:  fmt.Sprintf("too many connections for role \"%s\" in database \"%s\"", a.user, a.database),
			Detail:  "limits.max_sessions_per_account",
		}
	}
	l.accounts[a]++
	return accountTicket{l, a}, nil
}

// Release gives the place up. Only the first call counts.
func (t *accountTicket) Release() {
	l := t.limiter
	if l == nil {
		return
	}
	t.limiter = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accounts[t.account]--; l.accounts[t.account] == 0 {
		delete(l.accounts, t.account)
	}
}

// usage returns the highest counts.
func (l *limiter) usage() (u Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u.Connections = l.all
	for _, n := range l.sources {
		u.PerSource = max(u.PerSource, n)
	}
	for _, n := range l.accounts {
		u.PerAccount = max(u.PerAccount, n)
	}
	return u
}

// The delay of an attempt after one, two, three failures, and so on. It costs
// somebody who has mistyped a password nothing that he would notice.
const (
	firstAuthDelay = 100 * time.Millisecond
	maxAuthDelay   = 3 * time.Second
)

// authDelay returns how long a client has to wait before PostgreSQL is asked, or
// refuses to ask it.
func (l *limiter) authDelay(limits Limits, k authKey, now time.Time) (time.Duration, error) {
	if limits.AuthFailures <= 0 {
		return 0, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.failures.Get(k)
	switch {
	case !ok:
		return 0, nil
	case f.times >= limits.AuthFailures && now.Before(f.until):
		return 0, refuse(AuthBackoff, fmt.Sprintf("authentication has failed %d times in a row; refused until %s", f.times, f.until.UTC().Format(time.RFC3339)))
	}
	return min(firstAuthDelay<<min(f.times-1, 10), maxAuthDelay), nil
}

// authFailed remembers that PostgreSQL has refused an authentication.
func (l *limiter) authFailed(limits Limits, k authKey, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, _ := l.failures.Get(k)
	l.failures.Add(k, authFailures{f.times + 1, now.Add(limits.AuthRefusal)})
}

// authSucceeded forgets the failures before.
func (l *limiter) authSucceeded(k authKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures.Remove(k)
}
