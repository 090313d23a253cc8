package proxy

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	"pgwicket/internal/limit"
)

// ClientState is what a server knows of clients besides their sessions, for the process that takes over.
type ClientState struct {
	Keys  []limit.KeyState  `json:"keys"`
	Rates []limit.RateState `json:"rates"`
}

// PauseAccepting holds up the accept loops until ResumeAccepting or Shutdown. Connections wait in the
// queues of the listening sockets.
func (s *Server) PauseAccepting() { s.shutdown.accepting.Begin(s.open()...) }

// ResumeAccepting ends PauseAccepting.
func (s *Server) ResumeAccepting() { s.shutdown.accepting.End(s.open()...) }

// HandedOver says that a successor has the listening sockets of a server whose accept loops are held up, and the
// connections in their queues. It goes on with its sessions, and with those that have been accepted. Drain must
// follow, or TakenBack.
func (s *Server) HandedOver() { s.shutdown.upgraded.Store(true) }

// TakenBack ends HandedOver: the successor is gone. ResumeAccepting must follow.
func (s *Server) TakenBack() { s.shutdown.upgraded.Store(false) }

// Idle reports whether nothing is open, and nothing that was accepted is about to be. It is for a server whose accept loops are
// held up: one of them may just have accepted a connection.
func (s *Server) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, loop := range s.listeners {
		if !loop.Held() {
			return false
		}
	}
	return len(s.sessions) == 0
}

// Drain is Shutdown after HandedOver: sessions are ended, in words, as they become idle, and nothing is accepted
// any more.
func (s *Server) Drain(ctx context.Context) error {
	s.beginShutdown()
	s.stopAccepting()
	return s.Shutdown(ctx)
}

// ClientState returns it.
func (s *Server) ClientState() ClientState {
	return ClientState{s.auth.State(), s.limiter.RateStates(time.Now())}
}

// Restore takes over the ClientState of another process, or a part of it.
func (s *Server) Restore(state ClientState) {
	limits := s.policy.Load().Limits
	s.auth.Restore(limits, state.Keys)
	s.limiter.RestoreRates(limits, state.Rates, time.Now())
}

// Place is what a session of another process takes of the limits of this one, and the key by which its
// statement is cancelled.
type Place struct {
	ID       string     `json:"id"`
	Source   netip.Addr `json:"source"`
	User     []byte     `json:"user"` // of its account, as Database; they need not be UTF-8
	Database []byte     `json:"database"`
	Rule     string     `json:"rule"` // for which it is counted; empty: none
	SPKI     string     `json:"spki"`
	Key      []byte     `json:"key"`
	Backend  string     `json:"backend"` // the name and the address of where it is
	Address  string     `json:"address"`
}

// Places returns those of the sessions that PostgreSQL has logged in.
func (s *Server) Places() (all []Place) {
	for _, one := range s.all() {
		if p, ok := one.takes(); ok {
			all = append(all, p)
		}
	}
	return all
}

func (s *session) takes() (p Place, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase < relaying || !s.login.Ready {
		return p, false
	}
	p = Place{
		ID: s.peer.request.Session, Source: s.peer.request.Source, User: []byte(s.account.User), Database: []byte(s.account.Database),
		Key: []byte(s.login.CancelKey()), Backend: s.host.backend, Address: s.host.Address,
	}
	p.Rule, p.SPKI = s.ofRule.Of()
	return p, true
}

// Predecessor is the sessions of the process before this one that have stayed there. They count for the
// limits of this one, which forwards CancelRequests to their backends. One goroutine may use it.
type Predecessor struct {
	server *Server
	places map[string]heldPlace
	certs  map[[sha256.Size]byte][]byte // of sessions that have come from there, by their SHA-256

	mu         sync.Mutex
	terminated []termination
}

type heldPlace struct {
	ticket    *limit.Ticket
	account   limit.AccountTicket
	rule      limit.RuleTicket
	cancelKey string
}

// Predecessor returns one without sessions.
func (s *Server) Predecessor() *Predecessor {
	return &Predecessor{server: s, places: make(map[string]heldPlace), certs: make(map[[sha256.Size]byte][]byte)}
}

// Hold counts a session of the process before, once.
func (p *Predecessor) Hold(one Place) {
	if _, ok := p.places[one.ID]; ok || one.ID == "" || !one.Source.IsValid() {
		return
	}
	l := p.server.limiter
	h := heldPlace{
		ticket:    l.Adopt(limit.SourceOf(one.Source)),
		account:   l.AdoptAccount(limit.Account{User: string(one.User), Database: string(one.Database)}),
		cancelKey: string(one.Key),
	}
	if one.Rule != "" {
		h.rule = l.Rules.Adopt(one.Rule, one.SPKI)
	}
	if host := p.server.policy.Load().HostOf(one.Backend, one.Address); host != nil {
		p.server.cancelKeys.Add(h.cancelKey, host)
	}
	p.places[one.ID] = h
}

// Release takes note that a session of the process before has ended.
func (p *Predecessor) Release(id string) {
	if h, ok := p.places[id]; ok {
		delete(p.places, id)
		p.server.cancelKeys.Remove(h.cancelKey)
		h.ticket.Release()
		h.account.Release()
		h.rule.Release()
	}
}

// ReleaseAll is Release for all of them: the process before is gone.
func (p *Predecessor) ReleaseAll() {
	for id := range p.places {
		p.Release(id)
	}
}
