package proxy

import (
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Refused is a connection that was turned away, by the gate or by PostgreSQL, or a
// session that the gate has ended for what a new connection would be refused for.
type Refused struct {
	At       time.Time
	Outcome  Outcome
	Session  bool // it had been admitted
	Listener string

	// What follows is the client's, printable and cut.
	Client         netip.AddrPort
	User, Database string
	Subject        string // of its certificate
	Reason         string // more than it was told
}

// refusalsKept bounds what a flood can make the gate remember, textKept each text
// of it.
const (
	refusalsKept = 100
	textKept     = 200
)

// refusals are the last of them.
type refusals struct {
	mu   sync.Mutex
	kept [refusalsKept]Refused
	n    int // since the start
}

func (r *refusals) add(one Refused) {
	for _, text := range []*string{&one.User, &one.Database, &one.Subject, &one.Reason} {
		*text = kept(*text)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[r.n%refusalsKept] = one
	r.n++
}

// kept is a copy, or a few bytes would keep the packet alive that they are from.
func kept(s string) string {
	if s = printable(s); len(s) > textKept {
		return strings.ToValidUTF8(s[:textKept], "") + "…"
	}
	return strings.Clone(s)
}

// last returns them, the newest first.
func (r *refusals) last() []Refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Refused, 0, min(r.n, refusalsKept))
	for i := r.n - 1; i >= 0 && len(all) < refusalsKept; i-- {
		all = append(all, r.kept[i%refusalsKept])
	}
	return all
}

// rememberRefusal keeps a connection among the refusals, if it is one. Port scans
// and health checks would soon be all of them.
func (s *Server) rememberRefusal(e end) {
	if e.outcome == Probe || e.outcome >= ClientClosed {
		return
	}
	p := e.peer
	one := Refused{
		At: time.Now(), Outcome: e.outcome, Session: e.admitted, Listener: p.request.Listener,
		Client: p.source, User: p.request.User, Database: p.request.Database,
	}
	if e.refusal != nil {
		one.Reason = e.refusal.Detail
	} else if sqlstate := e.relayed.Login.SQLSTATE; sqlstate != "" {
		one.Reason = "PostgreSQL says " + sqlstate
	}
	if id := p.request.Certificate; id != nil {
		one.Subject = id.DN
	}
	s.refusals.add(one)
}

// Refusals returns the last hundred, the newest first.
func (s *Server) Refusals() []Refused { return s.refusals.last() }

// Usage counts it.
func (s *Server) Usage() Usage {
	u := s.limiter.usage()
	u.CancelRequests = s.cancelKeys.inFlight()
	return u
}
