// Package limit bounds what clients may take of a gate: connections, sessions, cancel requests and attempts to authenticate.
package limit

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Limits bound what clients may take of a gate. Zero is no limit but where it says
// otherwise.
type Limits struct {
	// Startups is how many connections may be unproved at once: those whose
	// certificate has not been verified and, where none is asked for or sent, who
	// have not got as far as PostgreSQL's first ReadyForQuery. When they are so
	// many, one of the network that holds most of them is closed for the next.
	Startups int
	// HandshakeBytes is how much a client may send for its TLS handshake, its
	// certificates included. 0 is proxy.DefaultHandshakeBytes.
	HandshakeBytes int

	Sessions   int     // at once
	PerSource  int     // connections at once from one source, those in their startup included
	PerAccount int     // sessions of one user in one database, as PostgreSQL sees it
	Rate       float64 // new connections a second from one source
	Burst      int     // how many may come at once before Rate counts

	// AuthFailures is how often in a row PostgreSQL may refuse the
	// authentication of a user from one source, with one certificate, before it
	// is not asked any more for AuthRefusal. Each failure makes the next attempt
	// wait longer.
	AuthFailures int
	AuthRefusal  time.Duration

	// IdleTimeout ends a session in which nothing has moved for so long, either
	// way, while no query was under way. SessionLifetime ends one that is older,
	// as soon as it is outside of a transaction, and an eighth later in any case.
	// Both may be late by an eighth, or 5 seconds if that is less.
	//
	// IdleInTransaction is IdleTimeout for a session inside of a transaction; 0: the
	// same. The rule that admits a session may have its own limit for both.
	IdleTimeout       time.Duration
	IdleInTransaction time.Duration
	SessionLifetime   time.Duration
	// UnfinishedTimeout ends a session whose client has begun a request and then,
	// with no byte either way, does not send the rest of it for so long: PostgreSQL
	// waits for it, and the session is not idle. It may be late as the others.
	UnfinishedTimeout time.Duration
}

// sourcesKnown bounds the memory of a limiter: a million sources cost no more.
// The source that was not seen for longest is forgotten first.
const sourcesKnown = 1 << 16

// perNetwork is how many times as many connections as a source a whole network of
// IPv6 (a /48, which one customer can have of 65,536 sources) may have.
const perNetwork = 4

// The reserve is for connections over a limit: each may still say what it wants,
// so that a CancelRequest is forwarded and a client is told in words why it is
// refused. It is bounded in number (an eighth of Limits.Startups, 16 at least), for
// each source, in rate and, by OverLimitTimeout, in time. Beyond it a connection
// is closed at once.
const (
	reserveShare     = 8
	minReserve       = 16
	reservePerSource = 8
	reserveRate      = 100 // a second, in all
	reserveBurst     = 200
)

// OverLimitTimeout is how long a connection in the reserve may take for its startup.
const OverLimitTimeout = 5 * time.Second

// Kind is the kind of limit that has been reached.
type Kind uint8

// The kinds.
const (
	OverRate     Kind = iota // Limits.Rate
	OverSource               // Limits.PerSource
	OverSessions             // Limits.Sessions
	OverStartups             // Limits.Startups, and those that gave way are not closed yet
	OverAccount              // Limits.PerAccount
	BackedOff                // Limits.AuthFailures
	OverRule                 // what Rules.Admit is given
	Interrupted              // none: the context of the caller was canceled
)

// Error says which limit refuses a client.
type Error struct {
	Kind   Kind
	Public string // what the client may be told; empty: no more than the kind
	Detail string // for the log; may name what the client must not learn
}

func (e *Error) Error() string { return e.Detail }

// Connections bounds connections and sessions. Its methods, and those of its tickets, may
// be called concurrently. A source is an address, or of IPv6 the /64 that one
// customer has alone; a network is what holds many sources.
type Connections struct {
	// Rules counts the sessions of rules that have a limit.
	Rules Rules

	onUnproved, onProved func()

	mu       sync.Mutex
	unproved int
	sessions int
	overs    int // connections in the reserve
	sources  map[netip.Prefix]*sourceCount
	networks map[netip.Prefix]*networkCount
	accounts map[Account]int
	rates    *simplelru.LRU[netip.Prefix, *rate.Limiter]
	reserve  *rate.Limiter
}

type sourceCount struct {
	connections int // but for those in the reserve
	overs       int // in the reserve
}

type networkCount struct {
	tickets     int       // as long as there is one, the network is counted
	connections int       // but for those in the reserve
	unproved    list.List // of *Ticket, the oldest first
}

// Account is a user in a database, as PostgreSQL sees both.
type Account struct{ User, Database string }

// NewConnections returns the limiter of connections. It calls unproved for each connection
// that takes a place among the unproved, and proved for each that leaves it; both must be
// fast.
func NewConnections(unproved, proved func()) *Connections {
	l := &Connections{
		onUnproved: unproved,
		onProved:   proved,
		sources:    make(map[netip.Prefix]*sourceCount),
		networks:   make(map[netip.Prefix]*networkCount),
		accounts:   make(map[Account]int),
		reserve:    rate.NewLimiter(reserveRate, reserveBurst),
	}
	// The error is for a size that is not positive.
	l.rates, _ = simplelru.NewLRU[netip.Prefix, *rate.Limiter](sourcesKnown, nil)
	return l
}

// SourceOf returns the source of an address.
func SourceOf(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// networkOf returns the network of a source: of IPv6 the /48 that a site gets (RFC
// 6177), of IPv4 the /24 below which no route goes.
func networkOf(source netip.Prefix) netip.Prefix {
	bits := 24
	if source.Addr().Is6() {
		bits = 48
	}
	p, _ := source.Addr().Prefix(bits)
	return p
}

// Ticket is a connection's place in the limiter, from accept until its descriptor
// is closed.
type Ticket struct {
	limiter         *Connections
	source, network netip.Prefix
	evict           func()        // closes the connection, for another
	over            *Error        // the limit that it is over, in the reserve
	unproved        *list.Element // nil: it is proved, or has given way
	startup         bool          // it counts among the unproved
	session         bool          // it counts among the sessions
	released        bool
}

// Admit gives a connection a place among the unproved. One that is over a limit
// gets a place in the reserve, if there is one, and must be refused once it has
// said what it wants: see Ticket.Over. The error is an *Error. evict is called, in a goroutine of its own,
// when the connection has to give way.
func (l *Connections) Admit(limits Limits, source netip.Prefix, now time.Time, evict func()) (*Ticket, error) {
	t := &Ticket{limiter: l, source: source, network: networkOf(source), evict: evict, startup: true}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.over = l.overLimit(limits, t, now); t.over != nil && !l.takeReserve(limits, source, now) {
		return nil, t.over
	}
	if limits.Startups > 0 && l.unproved >= closing*limits.Startups {
		return nil, &Error{Kind: OverStartups, Detail: "limits.max_startups, and as many that gave way are not closed yet"}
	}
	if limits.Startups > 0 && l.unproved >= limits.Startups {
		l.evictOne()
	}
	l.unproved++
	l.onUnproved()
	s := l.sources[source]
	if s == nil {
		s = new(sourceCount)
		l.sources[source] = s
	}
	n := l.networks[t.network]
	if n == nil {
		n = new(networkCount)
		l.networks[t.network] = n
	}
	n.tickets++
	if t.over != nil {
		l.overs++
		s.overs++
	} else {
		s.connections++
		n.connections++
	}
	t.unproved = n.unproved.PushBack(t)
	return t, nil
}

// overLimit returns the limit that another connection of a source is over; nil:
// none. The caller holds mu, as for all below that have no lock of their own.
func (l *Connections) overLimit(limits Limits, t *Ticket, now time.Time) *Error {
	if !l.allow(limits, t.source, now) {
		return &Error{Kind: OverRate, Detail: fmt.Sprintf("more than limits.connection_rate from %v", t.source)}
	}
	return l.full(limits, t)
}

// full is overLimit without the rate.
func (l *Connections) full(limits Limits, t *Ticket) *Error {
	connections, ofNetwork := 0, 0
	if s := l.sources[t.source]; s != nil {
		connections = s.connections
	}
	if n := l.networks[t.network]; n != nil && t.network.Addr().Is6() {
		ofNetwork = n.connections
	}
	switch {
	case limits.PerSource > 0 && connections >= limits.PerSource:
		return &Error{Kind: OverSource, Detail: fmt.Sprintf("limits.max_connections_per_source from %v", t.source)}
	case limits.PerSource > 0 && ofNetwork >= perNetwork*limits.PerSource:
		return &Error{Kind: OverSource, Detail: fmt.Sprintf("%d times limits.max_connections_per_source from %v", perNetwork, t.network)}
	case limits.Sessions > 0 && l.sessions >= limits.Sessions:
		return sessionLimit()
	}
	return nil
}

func sessionLimit() *Error {
	return &Error{Kind: OverSessions, Detail: "limits.max_connections"}
}

func (l *Connections) allow(limits Limits, source netip.Prefix, now time.Time) bool {
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

// takeReserve reports whether there is room in the reserve.
func (l *Connections) takeReserve(limits Limits, source netip.Prefix, now time.Time) bool {
	if s := l.sources[source]; s != nil && s.overs >= reservePerSource {
		return false
	}
	return l.overs < max(minReserve, limits.Startups/reserveShare) && l.reserve.AllowN(now, 1)
}

// closing bounds the unproved with those that have given way and are not closed yet:
// so many times Limits.Startups. On a busy machine a close takes its time.
const closing = 2

// evictOne has the oldest unproved connection of the network that holds most of
// them closed. A client that is fast cannot drive out those of other networks, and
// honest clients are not unproved for long.
func (l *Connections) evictOne() {
	var most *networkCount
	for _, n := range l.networks {
		if most == nil || n.unproved.Len() > most.unproved.Len() {
			most = n
		}
	}
	if most == nil || most.unproved.Len() == 0 {
		return // all of them are being closed
	}
	t := most.unproved.Remove(most.unproved.Front()).(*Ticket)
	t.unproved = nil
	go t.evict()
}

// Over returns the limit that the connection is over, which is in the reserve then; nil:
// none.
func (t *Ticket) Over() *Error { return t.over }

// AdmitSession gives an admitted connection its place among the sessions, or
// returns the limit that it is over, an *Error. One that found all sessions in use when it
// came leaves the reserve if a session has ended since: a pool that replaces a
// connection opens the next one while the last one is being closed.
func (t *Ticket) AdmitSession(limits Limits) error {
	l := t.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case t.over != nil && t.over.Kind != OverSessions:
		return t.over
	case t.over != nil:
		if full := l.full(limits, t); full != nil {
			return full
		}
		t.leaveReserve()
	case limits.Sessions > 0 && l.sessions >= limits.Sessions:
		return sessionLimit()
	}
	l.sessions++
	t.session = true
	return nil
}

// leaveReserve counts the connection among those that are over no limit.
func (t *Ticket) leaveReserve() {
	s, n := t.limiter.sources[t.source], t.limiter.networks[t.network]
	t.limiter.overs--
	s.overs--
	s.connections++
	n.connections++
	t.over = nil
}

// Prove takes the connection out of the unproved, unless it has had to give way.
func (t *Ticket) Prove() {
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	if t.unproved != nil {
		t.leaveUnproved()
	}
}

func (t *Ticket) leaveUnproved() {
	if t.unproved != nil {
		t.limiter.networks[t.network].unproved.Remove(t.unproved)
		t.unproved = nil
	}
	if t.startup {
		t.startup = false
		t.limiter.unproved--
		t.limiter.onProved()
	}
}

// Release gives the place up. Only the first call counts; nil is no ticket.
func (t *Ticket) Release() {
	if t == nil {
		return
	}
	l := t.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.released {
		return
	}
	t.released = true
	t.leaveUnproved()
	s, n := l.sources[t.source], l.networks[t.network]
	if t.over != nil {
		l.overs--
		s.overs--
	} else {
		s.connections--
		n.connections--
	}
	if t.session {
		l.sessions--
	}
	if s.connections+s.overs == 0 {
		delete(l.sources, t.source)
	}
	if n.tickets--; n.tickets == 0 {
		delete(l.networks, t.network)
	}
}

// AccountTicket is a session's place in its account. The zero ticket is none.
type AccountTicket struct {
	limiter *Connections
	account Account
}

// AdmitAccount gives a session a place in its account, unless that has as many as
// it may. The error is an *Error.
func (l *Connections) AdmitAccount(limits Limits, a Account) (t AccountTicket, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limits.PerAccount > 0 && l.accounts[a] >= limits.PerAccount {
		return t, &Error{
			Kind:   OverAccount,
			Public: fmt.Sprintf("too many connections for role \"%s\" in database \"%s\"", a.User, a.Database),
			Detail: "limits.max_sessions_per_account",
		}
	}
	l.accounts[a]++
	return AccountTicket{l, a}, nil
}

// Release gives the place up. Only the first call counts.
func (t *AccountTicket) Release() {
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

// Usage is what clients take at the moment of what Limits bounds.
type Usage struct {
	Connections    int // those in their startup included
	Startups       int // of them unproved
	Sessions       int
	PerSource      int // connections of the source that has most
	PerAccount     int // sessions of the user and database that have most
	CancelRequests int // in flight
}

// Usage counts it. CancelRequests is for the caller to fill in.
func (l *Connections) Usage() (u Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u.Startups, u.Sessions = l.unproved, l.sessions
	for _, s := range l.sources {
		u.Connections += s.connections + s.overs
		u.PerSource = max(u.PerSource, s.connections+s.overs)
	}
	for _, n := range l.accounts {
		u.PerAccount = max(u.PerAccount, n)
	}
	return u
}
