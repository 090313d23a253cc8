package limit

import (
	"container/list"
	"net/netip"
	"time"
)

// Stage is what a connection that is no session yet waits for. Limits.Startups bounds each.
type Stage uint8

// The stages.
const (
	Unproved   Stage = iota // its client has to prove itself
	Verified                // its certificate has been verified; its startup packet, or a place among the sessions
	Header                  // the PROXY header of a load balancer
	stageCount = iota
)

// closing bounds a stage with those that have given way and are not closed yet:
// so many times Limits.Startups. On a busy machine a close takes its time.
const closing = 2

// stage is the connections of a stage.
type stage struct {
	changed  func(by int)                // nil: nobody counts
	count    int                         // those that have given way and are not closed yet included
	listed   int                         // the others
	networks map[netip.Prefix]*list.List // of *place, the oldest first
}

// place is a connection's place in a stage. nil is none.
type place struct {
	in      *stage
	network netip.Prefix
	since   time.Time
	evict   func()
	element *list.Element // nil: it has had to give way
}

// enter gives a connection a place. If there is none, the oldest of the network that holds most has to give
// way: a client that is fast cannot drive out those of other networks, and
// honest clients do not stay for long.
func (s *stage) enter(limits Limits, network netip.Prefix, now time.Time, evict func()) (*place, error) {
	if limits.Startups > 0 && s.count >= closing*limits.Startups {
		return nil, &Error{Kind: OverStartups, Detail: "limits.max_startups, and as many that gave way are not closed yet"}
	}
	if limits.Startups > 0 && s.count >= limits.Startups {
		if p := s.oldest(); p != nil { // else all of them are being closed
			p.evictNow()
		}
	}
	return s.add(network, now, evict), nil
}

func (s *stage) add(network netip.Prefix, now time.Time, evict func()) *place {
	if s.networks == nil {
		s.networks = make(map[netip.Prefix]*list.List)
	}
	of := s.networks[network]
	if of == nil {
		of = list.New()
		s.networks[network] = of
	}
	p := &place{in: s, network: network, since: now, evict: evict}
	p.element = of.PushBack(p)
	s.listed++
	s.grow(1)
	return p
}

// held returns how many places a network has, but for those that have given way.
func (s *stage) held(network netip.Prefix) int {
	if of := s.networks[network]; of != nil {
		return of.Len()
	}
	return 0
}

func (s *stage) grow(by int) {
	s.count += by
	if s.changed != nil {
		s.changed(by)
	}
}

// oldest returns the oldest place of the network that holds most; nil: there is none that has
// not had to give way.
func (s *stage) oldest() *place {
	var most *list.List
	for _, of := range s.networks {
		if most == nil || of.Len() > most.Len() {
			most = of
		}
	}
	if most == nil {
		return nil
	}
	return most.Front().Value.(*place)
}

// listed reports whether there is a place that has not had to give way.
func (p *place) listed() bool { return p != nil && p.element != nil }

// evictNow has the connection give way. It counts until it leaves.
func (p *place) evictNow() {
	p.unlist()
	go p.evict()
}

func (p *place) unlist() {
	if p.element == nil {
		return
	}
	of := p.in.networks[p.network]
	of.Remove(p.element)
	if of.Len() == 0 {
		delete(p.in.networks, p.network)
	}
	p.element = nil
	p.in.listed--
}

// leave gives the place up. It must be called once, unless p is nil.
func (p *place) leave() {
	if p != nil {
		p.unlist()
		p.in.grow(-1)
	}
}

// HeaderTicket is the place of a connection that waits for its PROXY header, for which it has
// no Ticket yet.
type HeaderTicket struct {
	limiter *Connections
	place   *place
}

// AwaitHeader gives a connection of a load balancer a place among those that wait for their
// PROXY header. evict is as in Admit. The error is an *Error.
func (l *Connections) AwaitHeader(limits Limits, balancer netip.Addr, now time.Time, evict func()) (*HeaderTicket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, err := l.stages[Header].enter(limits, SourceOf(balancer), now, evict)
	if err != nil {
		return nil, err
	}
	return &HeaderTicket{l, p}, nil
}

// Release gives the place up. Only the first call counts; nil is no ticket.
func (t *HeaderTicket) Release() {
	if t == nil {
		return
	}
	t.limiter.mu.Lock()
	defer t.limiter.mu.Unlock()
	t.place.leave()
	t.place = nil
}
