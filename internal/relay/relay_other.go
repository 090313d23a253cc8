//go:build !linux

package relay

import "errors"

// Relay moves the bytes of sessions, with two goroutines each.
type Relay struct{ observer Observer }

// New returns a relay that tells o what it does.
func New(o Observer) (*Relay, error) { return &Relay{o}, nil }

// Stop ends the relay, which must have no sessions any more.
func (r *Relay) Stop() {}

// Start takes a session over.
func (r *Relay) Start(s Session) (Handle, error) {
	p := newPump(s, r.observer)
	go p.run()
	return p, nil
}

// Prepared is a session of another process, which only Linux has.
type Prepared struct{ pump }

// Prepare fails.
func (r *Relay) Prepare(*Saved, int, int, func(Result)) (*Prepared, error) {
	return nil, errors.New("only Linux carries sessions to another process")
}

// Handle returns the session.
func (p *Prepared) Handle() Handle { return &p.pump }

// Start does nothing.
func (p *Prepared) Start() {}

// Discard does nothing.
func (p *Prepared) Discard() {}
