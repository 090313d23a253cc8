package relay

import (
	"errors"

	"golang.org/x/sys/unix"

	"pgwicket/internal/tlsrecord"
)

// Movable implements Handle.
func (f *flow) Movable() bool {
	_, client := f.client.tls.(*tlsrecord.Layer)
	_, backend := f.backend.tls.(*tlsrecord.Layer)
	return client && (backend || f.backend.tls == nil)
}

// Freeze implements Handle.
func (f *flow) Freeze(done func(*Frozen)) {
	f.loop.post(func() { done(f.freeze()) })
}

// freeze takes the flow out of its loop, as it is between two events. It returns nil for one that logs in, ends
// within seconds, or cannot be moved.
func (f *flow) freeze() *Frozen {
	if !f.Movable() || f.over || f.frozen || f.tracker.Login != nil || f.backend.ended || f.backend.closed || f.client.shut || f.termination != nil && !f.termination.WhenIdle {
		return nil
	}
	saved, err := f.save()
	if err != nil {
		return nil // its TLS has failed, and it ends
	}
	f.frozen = true
	f.watch(&f.client, clientSide, false, false)
	f.watch(&f.backend, backendSide, false, false)
	if f.over { // epoll_ctl has failed
		saved.Wipe()
		return nil
	}
	return &Frozen{
		Saved: saved, Client: f.client.fd, Backend: f.backend.fd,
		Thaw:   func() { f.loop.post(f.thaw) },
		Forget: func() { f.loop.post(f.forget) },
	}
}

// thaw puts the flow back, and does what was asked of it meanwhile.
func (f *flow) thaw() {
	f.frozen = false
	postponed := f.postponed
	f.postponed = nil
	f.step(func() {})
	for _, one := range postponed {
		one()
	}
}

// forget drops the flow, without a word to the peers: the other process has duplicates. The descriptors are out of
// epoll already.
func (f *flow) forget() {
	f.over, f.postponed = true, nil
	_ = unix.Close(f.client.fd)
	if !f.backendClosed.Swap(true) {
		_ = unix.Close(f.backend.fd)
	}
	f.wipe()
	clear(f.client.queue)
	clear(f.backend.queue)
	f.loop.remove(f)
}

// whenThawed runs a command now, or when the flow is not frozen any more.
func (f *flow) whenThawed(command func()) {
	if f.frozen {
		f.postponed = append(f.postponed, command)
		return
	}
	command()
}

func (f *flow) save() (*Saved, error) {
	from, to := f.Moved()
	s := &Saved{
		FromClient: from, ToClient: to, Tracker: f.tracker.State(), Login: f.result.Login,
		Guard:  SavedGuard{int(f.guard.read), f.guard.data, f.guard.lowYield},
		Caused: f.caused, Cause: f.result.Cause,
	}
	if f.result.Err != nil {
		s.Err = f.result.Err.Error()
	}
	for _, one := range []struct {
		from *leg
		to   *SavedLeg
	}{{&f.client, &s.Client}, {&f.backend, &s.Backend}} {
		*one.to = SavedLeg{Ended: one.from.ended, Shut: one.from.shut, Notified: one.from.notified, Queue: append([]byte(nil), one.from.queue...)}
		if layer, ok := one.from.tls.(*tlsrecord.Layer); ok {
			state, err := layer.Export()
			if err != nil {
				s.Wipe()
				return nil, err
			}
			one.to.TLS = state
		}
	}
	return s, nil
}

// Prepared is a session of another process that this relay can go on with. Start or Discard must follow.
type Prepared struct{ flow *flow }

// Prepare takes a saved session and its two sockets over, but does not touch them yet. With an error it has
// taken nothing over. It copies what it needs of s. done is Session.Done.
func (r *Relay) Prepare(s *Saved, client, backend int, done func(Result)) (*Prepared, error) {
	f := &flow{loop: r.loops[int(r.last.Add(1))%len(r.loops)], done: done}
	if s.Client.TLS == nil || s.Client.Shut || s.Backend.Ended || s.Cause > LimitReached || s.FromClient < 0 || s.ToClient < 0 {
		return nil, errSaved
	}
	if err := f.tracker.Restore(s.Tracker); err != nil {
		return nil, err
	}
	for _, one := range []struct {
		from *SavedLeg
		to   *leg
		fd   int
	}{{&s.Client, &f.client, client}, {&s.Backend, &f.backend, backend}} {
		*one.to = leg{fd: one.fd, ended: one.from.Ended, shut: one.from.Shut, notified: one.from.Notified}
		if len(one.from.Queue) > 0 {
			one.to.queue = append([]byte(nil), one.from.Queue...)
		}
		if one.from.TLS != nil {
			layer, err := tlsrecord.Import(one.from.TLS)
			if err != nil {
				return nil, err
			}
			one.to.tls = layer
		}
	}
	f.fromClient.Store(s.FromClient)
	f.toClient.Store(s.ToClient)
	f.guard = keyUpdateGuard{read: int32(s.Guard.Read), data: s.Guard.Data, lowYield: s.Guard.LowYield}
	f.caused, f.result = s.Caused, Result{Cause: s.Cause, Login: s.Login}
	if s.Err != "" {
		f.result.Err = errors.New(s.Err)
	}
	return &Prepared{f}, nil
}

// Handle returns the session, whose methods have an effect once it has started.
func (p *Prepared) Handle() Handle { return p.flow }

// Start begins to relay. It owns the sockets from now on.
func (p *Prepared) Start() {
	f := p.flow
	f.loop.post(func() {
		f.loop.add(f)
		f.loop.use(f.client.tls)
		f.loop.use(f.backend.tls)
		f.step(func() {})
	})
}

// Discard forgets the session. The sockets stay the caller's.
func (p *Prepared) Discard() { p.flow.wipe() }
