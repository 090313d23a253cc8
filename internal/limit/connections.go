package limit

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Connections bounds connections and sessions. Its methods, and those of its tickets, may
// be called concurrently. A source is an address, or of IPv6 the /64 that one
// customer has alone; a network is what holds many sources.
type Connections struct {
	// Rules counts the sessions of rules that have a limit.
	Rules Rules

	mu       sync.Mutex
	stages   [stageCount]stage
	logins   stage // sessions that are unproved; each is in the stage Unproved, too
	sessions int
	waiting  []*waiter // for a place among the sessions, in the order in which they came
	overs    int       // connections in the reserve
	sources  map[netip.Prefix]*sourceCount
	networks map[netip.Prefix]*networkCount
	accounts map[Account]int
	rates    *rates
	reserve  *rate.Limiter
}

type sourceCount struct {
	connections int // but for those in the reserve
	overs       int // in the reserve
}

type networkCount struct {
	tickets     int // as long as there is one, the network is counted
	connections int // but for those in the reserve
}

// Account is a user in a database, as PostgreSQL sees both.
type Account struct{ User, Database string }

// NewConnections returns the limiter of connections. It calls changed with each change of the
// number of connections in a stage, which must be fast.
func NewConnections(changed func(s Stage, by int)) *Connections {
	l := &Connections{
		sources:  make(map[netip.Prefix]*sourceCount),
		networks: make(map[netip.Prefix]*networkCount),
		accounts: make(map[Account]int),
		rates:    newRates(),
		reserve:  rate.NewLimiter(reserveRate, reserveBurst),
	}
	for i := range l.stages {
		l.stages[i].changed = func(by int) { changed(Stage(i), by) }
	}
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
	evict           func() // closes the connection, for another
	over            *Error // the limit that it is over, in the reserve
	place           *place // in its stage; nil: it is a proved session
	login           *place // among the unproved sessions
	session         bool   // it counts among the sessions
	released        bool
}

// Admit gives a connection a place among the unproved. One that is over a limit
// gets a place in the reserve, if there is one, and must be refused once it has
// said what it wants: see Ticket.Over. The error is an *Error. evict is called, in a goroutine of its own,
// when the connection has to give way.
func (l *Connections) Admit(limits Limits, source netip.Prefix, now time.Time, evict func()) (*Ticket, error) {
	t := &Ticket{limiter: l, source: source, network: networkOf(source), evict: evict}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.over = l.overLimit(limits, t, now); t.over != nil && !l.takeReserve(limits, source, now) {
		return nil, t.over
	}
	var err error
	if t.place, err = l.stages[Unproved].enter(limits, t.network, now, evict); err != nil {
		return nil, err
	}
	s, n := l.count(t)
	n.tickets++
	if t.over != nil {
		l.overs++
		s.overs++
	} else {
		s.connections++
		n.connections++
	}
	return t, nil
}

// count returns the counts of a ticket's source and network. The caller holds mu.
func (l *Connections) count(t *Ticket) (*sourceCount, *networkCount) {
	s := l.sources[t.source]
	if s == nil {
		s = new(sourceCount)
		l.sources[t.source] = s
	}
	n := l.networks[t.network]
	if n == nil {
		n = new(networkCount)
		l.networks[t.network] = n
	}
	return s, n
}

// overLimit returns the limit that another connection of a source is over; nil:
// none. The caller holds mu, as for all below that have no lock of their own.
func (l *Connections) overLimit(limits Limits, t *Ticket, now time.Time) *Error {
	if over := l.rates.allow(limits, t.source, now); over.IsValid() {
		return &Error{Kind: OverRate, Detail: fmt.Sprintf("more than limits.connection_rate from %v", over)}
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
	case limits.Sessions > 0 && l.sessions-l.logins.count >= limits.Sessions: // nobody would have to give way
		return sessionLimit()
	}
	return nil
}

// takeReserve reports whether there is room in the reserve.
func (l *Connections) takeReserve(limits Limits, source netip.Prefix, now time.Time) bool {
	if s := l.sources[source]; s != nil && s.overs >= reservePerSource {
		return false
	}
	return l.overs < max(minReserve, limits.Startups/reserveShare) && l.reserve.AllowN(now, 1)
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

// Over returns the limit that the connection is over, which is in the reserve then; nil:
// none.
func (t *Ticket) Over() *Error { return t.over }

// Verify takes the connection out of the unproved, since its certificate has been verified,
// unless it has had to give way. Until it is a session it is in the stage Verified.
func (t *Ticket) Verify(limits Limits, now time.Time) {
	l := t.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if !t.place.listed() {
		return
	}
	if p, err := l.stages[Verified].enter(limits, t.network, now, t.evict); err == nil { // else it stays where it is
		t.place.leave()
		t.place = p
	}
}

// Prove takes the connection out of the unproved, since PostgreSQL has logged it in, unless it
// has had to give way.
func (t *Ticket) Prove() {
	l := t.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.place != nil && !t.place.listed() || t.login != nil && !t.login.listed() {
		return
	}
	t.leave()
	l.serve(time.Now())
}

func (t *Ticket) leave() {
	t.place.leave()
	t.place = nil
	if t.login != nil {
		t.login.leave()
		t.login = nil
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
	t.leave()
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
		l.serve(time.Now())
	}
	if s.connections+s.overs == 0 {
		delete(l.sources, t.source)
	}
	if n.tickets--; n.tickets == 0 {
		delete(l.networks, t.network)
	}
}

// Usage is what clients take at the moment of what Limits bounds.
type Usage struct {
	Connections    int // those in their startup included
	Startups       int // of them unproved
	Headers        int // that wait for a PROXY header, and are not among the connections yet
	Verified       int // of the connections, those with a verified certificate that are no sessions yet
	Sessions       int
	PerSource      int // connections of the source that has most
	PerAccount     int // sessions of the user and database that have most
	CancelRequests int // in flight
}

// Usage counts it. CancelRequests is for the caller to fill in.
func (l *Connections) Usage() (u Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u.Startups, u.Sessions = l.stages[Unproved].count, l.sessions
	u.Headers, u.Verified = l.stages[Header].count, l.stages[Verified].count
	for _, s := range l.sources {
		u.Connections += s.connections + s.overs
		u.PerSource = max(u.PerSource, s.connections+s.overs)
	}
	for _, n := range l.accounts {
		u.PerAccount = max(u.PerAccount, n)
	}
	return u
}
