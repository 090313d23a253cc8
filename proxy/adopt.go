package proxy

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/limit"
	"pgwicket/internal/relay"
)

// Arriving is a session of the process before, as long as that one may take it back. Start or Discard must
// follow.
type Arriving struct {
	*relay.Prepared
	of        *Predecessor
	session   *session
	cancelKey string
	saved     *SavedSession
}

// Prepare has everything ready to go on with a session, and touches its sockets not yet. It fails for what
// cannot be a session; the sockets are the caller's then.
func (p *Predecessor) Prepare(saved *SavedSession, client, backend int) (*Arriving, error) {
	if saved.Relay == nil || saved.Place.ID == "" || !saved.Place.Source.IsValid() {
		return nil, errors.New("it has no id, no source or no relay")
	}
	defer saved.Relay.Wipe()
	peer, err := p.peerOf(saved)
	if err != nil {
		return nil, err
	}
	one := &session{
		server: p.server, peer: peer, phase: relaying, rule: saved.RuleName, login: saved.Relay.Login, moved: saved.Moved, since: saved.Since,
		account: limit.Account{User: string(saved.Place.User), Database: string(saved.Place.Database)},
	}
	one.host = usedHost{p.server.policy.Load().HostOf(saved.Place.Backend, saved.Place.Address), saved.Place.Backend, saved.HostSince}
	if one.host.Host == nil { // the configuration has it no more; nobody can cancel a query there
		one.host.Host = &Host{Network: "unix", Address: saved.Place.Address}
	}
	prepared, err := p.server.relay.Prepare(saved.Relay, client, backend, one.relayEnded)
	if err != nil {
		return nil, err
	}
	one.relay = prepared.Handle()
	return &Arriving{prepared, p, one, string(saved.Place.Key), saved}, nil
}

func (p *Predecessor) peerOf(s *SavedSession) (*peer, error) {
	of := &peer{
		accepted: s.Accepted, source: s.Client, proxy: s.Proxy, application: string(s.Application), version: s.Version,
		tls: tlsFacts{version: s.TLS.Version, suite: s.TLS.Suite, group: tls.CurveID(s.TLS.Group), complete: true, protocol: s.TLS.Protocol},
		request: acl.Request{
			Source: s.Place.Source, Listener: s.Listener, Session: s.Place.ID, User: string(s.User), Database: string(s.Database),
			Replication: s.Replication, SNI: string(s.TLS.SNI),
		},
	}
	for _, der := range s.TLS.Chain {
		of.tls.certificates = append(of.tls.certificates, p.certificate(der))
	}
	if of.verified = len(s.TLS.Chain) > 0; of.verified {
		var err error
		if of.request.Certificate, _, err = p.server.names.identities.Of(nil, of.tls.certificates[0]); err != nil {
			return nil, err
		}
	}
	return of, nil
}

// certificate returns the same memory for the same bytes: sessions share CAs and often more.
func (p *Predecessor) certificate(der []byte) []byte {
	digest := sha256.Sum256(der)
	if p.certs[digest] == nil {
		p.certs[digest] = bytes.Clone(der)
	}
	return p.certs[digest]
}

// Start goes on with the session, which is this process's from now on. It is judged by the policy of this
// process, as after a reload.
func (a *Arriving) Start() {
	one, server, place := a.session, a.session.server, a.saved.Place
	a.of.Hold(place) // if the process before has not said so earlier
	held := a.of.places[place.ID]
	delete(a.of.places, place.ID)
	one.ticket, one.place, one.ofRule = held.ticket, held.account, held.rule
	server.cancelKeys.Add(a.cancelKey, one.host.Host)
	server.mu.Lock()
	server.sessions[one] = struct{}{}
	server.wg.Add(1)
	server.mu.Unlock()
	server.metrics.SessionTaken()
	server.shutdown.live.Add(1)
	if one.since.IsZero() {
		one.since = time.Now()
	}
	a.Prepared.Start()
	a.of.judge(one)
}

// judge ends a session that would not be admitted any more, or that a command has ended on its way.
func (p *Predecessor) judge(one *session) {
	one.recheck(p.server.policy.Load(), p.server.now())
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.terminated {
		one.terminateIf(t.matches, t.detail)
	}
	if p.server.drains() {
		one.drain()
	}
}

// Terminate has sessions end as they arrive, as Server.Terminate does with those that are here. Any goroutine
// may call it.
func (p *Predecessor) Terminate(matches func(*acl.Request) bool, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.terminated = append(p.terminated, termination{matches, detail})
}

type termination struct {
	matches func(*acl.Request) bool
	detail  string
}
