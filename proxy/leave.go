package proxy

import (
	"net/netip"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/relay"
)

// SavedSession is a session on its way to another process, but for what its relay knows.
type SavedSession struct {
	Place       Place           `json:"place"`
	Accepted    time.Time       `json:"accepted"`
	Client      netip.AddrPort  `json:"client"`
	Proxy       netip.AddrPort  `json:"proxy"`
	Listener    string          `json:"listener"`
	TLS         SavedTLS        `json:"tls"`
	User        []byte          `json:"user"` // as it was asked for; texts of the client need not be UTF-8
	Database    []byte          `json:"database"`
	Application []byte          `json:"application"`
	Replication acl.Replication `json:"replication"`
	Version     uint32          `json:"version"`
	RuleName    string          `json:"rule_name"` // that has admitted it
	HostSince   time.Time       `json:"host_since"`
	Moved       int64           `json:"moved"`
	Since       time.Time       `json:"since"`
	Relay       *relay.Saved    `json:"relay"`
}

// SavedTLS is what is kept of a handshake.
type SavedTLS struct {
	Version  uint16   `json:"version"`
	Suite    uint16   `json:"suite"`
	Group    uint16   `json:"group"`
	Protocol string   `json:"protocol"`
	SNI      []byte   `json:"sni"`
	Chain    [][]byte `json:"chain"` // in DER, the client's own certificate first
}

// Leaving is a session that is frozen, for another process to go on with. Exactly one of Stay and Leave must
// follow.
type Leaving struct {
	*relay.Frozen
	Session *SavedSession
	of      *session
}

// Movable returns how many sessions another process could go on with, once they are logged in.
func (s *Server) Movable() (n int) {
	for _, one := range s.all() {
		one.mu.Lock()
		if one.relay != nil && one.relay.Movable() {
			n++
		}
		one.mu.Unlock()
	}
	return n
}

// Leavers are the sessions that a server has at one moment, on their way to another process. One goroutine may use them.
type Leavers struct{ left []*session }

// Leavers returns the sessions that are open now.
func (s *Server) Leavers() *Leavers { return &Leavers{s.all()} }

// Freeze stops at most so many sessions that it has not looked at yet, for another process to go on with, but none that
// skip names by its id, and none that are not logged in yet, are about to end, or cannot leave. It returns none only
// when it has looked at all.
func (l *Leavers) Freeze(most int, skip map[string]bool) (all []*Leaving) {
	for len(all) == 0 && len(l.left) > 0 {
		all = l.freeze(most, skip)
	}
	return all
}

func (l *Leavers) freeze(most int, skip map[string]bool) (all []*Leaving) {
	answers := make(chan *Leaving, most)
	asked := 0
	for asked < most && len(l.left) > 0 {
		one := l.left[0]
		l.left[0], l.left = nil, l.left[1:]
		one.mu.Lock()
		if one.phase == relaying && one.login.Ready && one.relay.Movable() && !one.cancelling && !one.terminating() && !skip[one.peer.request.Session] {
			asked++
			one.relay.Freeze(func(f *relay.Frozen) { answers <- &Leaving{Frozen: f, of: one} })
		}
		one.mu.Unlock()
	}
	for range asked {
		if a := <-answers; a.Frozen != nil {
			a.Session = a.of.save(a.Saved)
			all = append(all, a)
		}
	}
	return all
}

func (s *session) save(r *relay.Saved) *SavedSession {
	place, _ := s.takes()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peer
	saved := &SavedSession{
		Place: place, Accepted: p.accepted, Client: p.source, Proxy: p.proxy, Listener: p.request.Listener,
		User: []byte(p.request.User), Database: []byte(p.request.Database), Application: []byte(p.application),
		Replication: p.request.Replication, Version: p.version, RuleName: s.rule, HostSince: s.host.since, Moved: s.moved, Since: s.since, Relay: r,
		TLS: SavedTLS{
			Version: p.tls.version, Suite: p.tls.suite, Group: uint16(p.tls.group), Protocol: p.tls.protocol, SNI: []byte(p.request.SNI), Chain: p.tls.certificates,
		},
	}
	return saved
}

// Stay lets this process go on with the session.
func (l *Leaving) Stay() {
	l.Saved.Wipe()
	l.Thaw()
}

// Leave forgets the session: the other process has it.
func (l *Leaving) Leave() {
	l.Saved.Wipe()
	one, server := l.of, l.of.server
	one.mu.Lock()
	one.phase = ending
	key := one.login.CancelKey()
	one.mu.Unlock()
	l.Forget()
	server.metrics.SessionGiven()
	server.shutdown.live.Add(-1)
	server.forget(one, key)
}
