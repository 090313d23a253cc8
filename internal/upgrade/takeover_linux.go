package upgrade

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/handover"
	"pgwicket/proxy"
)

// arrival is a session that has come, with its sockets.
type arrival struct {
	id              string
	*proxy.Arriving // nil: it cannot be gone on with here
	files           []int
}

// TakeOver says that this process is prepared, and takes over the state of the old one. When it returns,
// nobody accepts; Claim or Fail must follow.
func (p *Predecessor) TakeOver(g NewGate) error {
	for _, s := range p.sockets { // of addresses that the configuration does not have any more
		g.Log.Info("a socket of the process before is not needed", "role", s.Role, "address", s.Address)
		_ = s.Close()
	}
	p.gate, p.places, p.sockets = g, g.Server.Predecessor(), nil
	p.conn.SetDeadline(time.Now().Add(switchTimeout))
	if err := p.conn.Send(handover.Prepared, nil, nil); err != nil {
		return err
	}
	for {
		f, err := p.conn.Receive()
		if err != nil {
			return fmt.Errorf("the process before has ended the upgrade: %w", err)
		}
		if f.Kind == handover.Go {
			return p.goOn(&f)
		}
		var why failure
		if f.Kind == handover.Failed && f.Decode(&why) == nil {
			return errors.New(why.Reason)
		}
		if err := p.apply(&f); err != nil {
			return err
		}
	}
}

// goOn takes the last of what comes before this process accepts.
func (p *Predecessor) goOn(f *handover.Frame) error {
	if len(f.Files) != 2 {
		f.Close()
		return fmt.Errorf("%w: %v", handover.ErrFormat, f.Kind)
	}
	p.claim, p.tookBack, f.Files = handover.ClaimOf(f.Files[0]), handover.MarkOf(f.Files[1]), nil
	return f.Decode(&p.handed)
}

// apply takes over what a frame brings.
func (p *Predecessor) apply(f *handover.Frame) error {
	defer f.Close()
	g := p.gate
	switch f.Kind {
	case handover.State:
		var s state
		if err := f.Decode(&s); err != nil {
			return err
		}
		g.Server.Restore(s.Server)
		g.Metrics.RestoreBackends(s.Backends)
		for _, one := range s.Places {
			p.places.Hold(one)
		}
		for _, l := range s.Locks {
			if _, _, err := g.Locks.Add(l, g.Now()); err != nil {
				return fmt.Errorf("lock %s: %w", l.ID, err)
			}
		}
		if len(s.Locks) > 0 {
			g.LocksAdded()
		}
	case handover.Counters:
		return g.Metrics.Carry(f.Data)
	case handover.Signal:
		var s signalled
		if err := f.Decode(&s); err != nil {
			return err
		}
		g.Signal(s.Signal)
	case handover.Ended:
		var e ended
		if err := f.Decode(&e); err != nil {
			return err
		}
		for _, id := range e.IDs {
			p.places.Release(id)
		}
	default:
		return p.applySession(f)
	}
	return nil
}

// applySession is apply for what brings sessions.
func (p *Predecessor) applySession(f *handover.Frame) error {
	switch {
	case f.Kind == handover.Session && !p.accepted:
		return p.prepare(f)
	case f.Kind == handover.Batch && !p.accepted:
		p.accepted = true
		var a accepted
		for _, one := range p.batch {
			if one.Arriving == nil {
				a.Refused = append(a.Refused, one.id)
			}
		}
		return p.conn.Send(handover.Accepted, a, nil)
	case f.Kind == handover.Commit && p.accepted:
		p.commit()
	case f.Kind == handover.Abort:
		p.abort()
	case f.Kind == handover.Rest:
		var r rest
		if err := f.Decode(&r); err != nil {
			return err
		}
		p.report(Result{Moved: r.Moved, Stay: r.Stay, Starting: p.handed.Starting, Drain: p.handed.Drain})
	default:
		return fmt.Errorf("%v has come", f.Kind)
	}
	return nil
}

// report says, once, what the upgrade has done.
func (p *Predecessor) report(r Result) {
	if p.reported {
		return
	}
	p.reported = true
	r.PID, r.Version = p.PID, p.Version
	p.gate.Log.Info("upgraded from another process", "before", r.PID, "version_before", r.Version, "moved", r.Moved, "stay", r.Stay)
	if p.gate.Upgraded != nil {
		p.gate.Upgraded(r)
	}
}

// prepare has everything ready to go on with a session. One that this process cannot go on with stays in the
// other one.
func (p *Predecessor) prepare(f *handover.Frame) error {
	defer f.Wipe()
	var saved proxy.SavedSession
	if err := f.Decode(&saved); err != nil {
		return err
	}
	if saved.Relay == nil || len(f.Files) != 2 {
		return fmt.Errorf("%w: %v", handover.ErrFormat, f.Kind)
	}
	if err := saved.Relay.Join(f.Data); err != nil {
		return err
	}
	one := arrival{id: saved.Place.ID}
	arriving, err := p.places.Prepare(&saved, f.Files[0], f.Files[1])
	if err != nil {
		p.gate.Log.Error("cannot go on with a session", "session", saved.Place.ID, "error", err.Error())
	} else {
		one.Arriving, one.files, f.Files = arriving, f.Files, nil
	}
	p.batch = append(p.batch, one)
	return nil
}

// commit goes on with the sessions of a batch.
func (p *Predecessor) commit() {
	before := p.moved
	for _, one := range p.batch {
		if one.Arriving != nil {
			one.Start()
			p.moved++
		}
	}
	p.gate.Metrics.CarriedTaken(p.moved - before)
	p.batch, p.accepted = nil, false
}

// abort forgets the sessions of a batch: they are the other process's.
func (p *Predecessor) abort() {
	for _, one := range p.batch {
		if one.Arriving != nil {
			one.Discard()
		}
		for _, fd := range one.files {
			_ = unix.Close(fd)
		}
	}
	p.batch, p.accepted = nil, false
}

// settle decides on a batch when the channel has ended without a commit. It is this process's only if the
// kernel says that the other one is dead, and that one has not gone on with its sessions before: two must not
// seal records with the same keys and numbers.
func (p *Predecessor) settle() {
	if p.accepted && p.process.Ended(deathTimeout) && !p.tookBack.IsSet() {
		p.gate.Log.Warn("the process before has died while it handed sessions over; this one goes on with them", "sessions", len(p.batch))
		p.commit()
		return
	}
	p.abort()
}
