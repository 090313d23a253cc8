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
	Connections int     // at once, those in their start-up included
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

// sourcesKnown bounds the memory of a crowd: a million sources cost no more.
// Those that were not seen for longest are forgotten first.
const sourcesKnown = 1 << 16

// crowd counts who is there and remembers who has misbehaved. A source is an
// address, or of IPv6 the /64 that one customer has for himself.
type crowd struct {
	mu       sync.Mutex
	all      int
	sources  map[netip.Prefix]int
	accounts map[account]int
	rates    *simplelru.LRU[netip.Prefix, *rate.Limiter]
	failures *simplelru.LRU[suspect, failure]
}

type account struct{ user, database string }

type suspect struct {
	source netip.Prefix
	user   string
}

type failure struct {
	times int
	until time.Time // refused, if there were enough of them
}

func newCrowd() *crowd {
	c := &crowd{sources: make(map[netip.Prefix]int), accounts: make(map[account]int)}
	// The errors are for sizes that are not positive.
	c.rates, _ = simplelru.NewLRU[netip.Prefix, *rate.Limiter](sourcesKnown, nil)
	c.failures, _ = simplelru.NewLRU[suspect, failure](sourcesKnown, nil)
	return c
}

func sourceOf(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// enter counts a connection in, unless there is no room for it.
func (c *crowd) enter(l Limits, source netip.Prefix, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.allow(l, source, now):
		return refuse(RateLimit, fmt.Sprintf("more than limits.connection_rate from %v", source))
	case l.Connections > 0 && c.all >= l.Connections:
		return refuse(ConnectionLimit, "limits.max_connections")
	case l.PerSource > 0 && c.sources[source] >= l.PerSource:
		return refuse(SourceLimit, fmt.Sprintf("limits.max_connections_per_source from %v", source))
	}
	c.all++
	c.sources[source]++
	return nil
}

func (c *crowd) allow(l Limits, source netip.Prefix, now time.Time) bool {
	if l.Rate <= 0 {
		return true
	}
	r, ok := c.rates.Get(source)
	if !ok {
		r = rate.NewLimiter(rate.Limit(l.Rate), l.Burst)
		c.rates.Add(source, r)
	} else if r.Limit() != rate.Limit(l.Rate) || r.Burst() != l.Burst { // a reload
		r.SetLimitAt(now, rate.Limit(l.Rate))
		r.SetBurstAt(now, l.Burst)
	}
	return r.AllowN(now, 1)
}

func (c *crowd) leave(source netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.sources[source]--; c.sources[source] == 0 {
		delete(c.sources, source)
	}
}

// open counts a session of an account, unless it has as many as it may.
func (c *crowd) open(l Limits, a account) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.PerAccount > 0 && c.accounts[a] >= l.PerAccount {
		return &Refusal{
			Outcome: AccountLimit,
			Public:  fmt.Sprintf("too many connections for role \"%s\" in database \"%s\"", a.user, a.database),
			Detail:  "limits.max_sessions_per_account",
		}
	}
	c.accounts[a]++
	return nil
}

// usage says who has most.
func (c *crowd) usage() (u Usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u.Connections = c.all
	for _, n := range c.sources {
		u.PerSource = max(u.PerSource, n)
	}
	for _, n := range c.accounts {
		u.PerAccount = max(u.PerAccount, n)
	}
	return u
}

func (c *crowd) close(a account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accounts[a]--; c.accounts[a] == 0 {
		delete(c.accounts, a)
	}
}

// The wait before an attempt after one, two, three failures, and so on. It
// costs somebody who has mistyped a password nothing that he would notice.
const (
	firstWait = 100 * time.Millisecond
	mostWait  = 3 * time.Second
)

// patience says how long a suspect has to wait before PostgreSQL is asked, or
// refuses to ask it.
func (c *crowd) patience(l Limits, s suspect, now time.Time) (time.Duration, error) {
	if l.AuthFailures <= 0 {
		return 0, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.failures.Get(s)
	switch {
	case !ok:
		return 0, nil
	case f.times >= l.AuthFailures && now.Before(f.until):
		return 0, refuse(AuthBackoff, fmt.Sprintf("authentication has failed %d times in a row; refused until %s", f.times, f.until.UTC().Format(time.RFC3339)))
	}
	return min(firstWait<<min(f.times-1, 10), mostWait), nil
}

// failed remembers that PostgreSQL has refused a suspect, passed that it has
// not.
func (c *crowd) failed(l Limits, s suspect, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, _ := c.failures.Get(s)
	c.failures.Add(s, failure{f.times + 1, now.Add(l.AuthRefusal)})
}

func (c *crowd) passed(s suspect) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures.Remove(s)
}
