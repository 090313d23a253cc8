package upgrade

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pgwicket/internal/handover"
	"pgwicket/proxy"
)

// How many sessions are frozen at a time, how long the new process may take to accept them, and how often
// the old one looks for more that can go.
const (
	batchSize     = 64
	acceptTimeout = 5 * time.Second
	moveInterval  = 20 * time.Millisecond
)

// moveAll hands over the sessions that can go now. If the channel breaks, those of the last batch are this process's
// again, and it returns why.
func (s *Successor) moveAll() error {
	leavers := s.gate.Server.Leavers()
	for !s.stuck {
		batch := leavers.Freeze(batchSize, s.refused)
		if len(batch) == 0 {
			return nil
		}
		answer, err := s.offer(batch)
		if err == nil {
			s.conn.SetWriteDeadline(time.Now().Add(acceptTimeout)) // offer may have used up its own
			err = s.conn.Send(handover.Commit, nil, nil)
		} else if !errors.Is(err, errChannel) && s.abort() == nil {
			s.stuck = true
		}
		if err != nil {
			// From here on this process seals records again: the other one must never go on from the keys and the
			// record numbers that it has, not even when this one is dead and the abort has not come.
			if e := s.tookBack.Set(); e != nil {
				s.gate.Log.Error("cannot mark that sessions stay", "error", e.Error())
			}
		}
		for _, one := range batch {
			id := one.Session.Place.ID
			if err != nil || slices.Contains(answer.Refused, id) {
				one.Stay()
				continue
			}
			delete(s.sent, id) // the new process has it
			one.Leave()
			s.moved++
		}
		switch {
		case s.stuck:
			s.gate.Log.Error("the new process does not take sessions over; they stay here", "pid", s.pid, "error", err.Error())
			return nil
		case err != nil:
			return err
		}
		for _, id := range answer.Refused {
			s.refused[id] = true
		}
		if len(answer.Refused) > 0 {
			s.gate.Log.Warn("the new process cannot go on with some sessions, which stay here", "sessions", len(answer.Refused))
		}
	}
	return nil
}

var errChannel = errors.New("the channel to the new process is closed")

// abort takes a batch back. Only with its error the new process may not know that.
func (s *Successor) abort() error {
	s.conn.SetWriteDeadline(time.Now().Add(acceptTimeout))
	return s.conn.Send(handover.Abort, nil, nil)
}

// offer sends a batch, and waits until the new process has accepted it.
func (s *Successor) offer(batch []*proxy.Leaving) (a accepted, err error) {
	s.conn.SetWriteDeadline(time.Now().Add(acceptTimeout))
	for _, one := range batch {
		data := one.Saved.Split()
		err := s.conn.Send(handover.Session, one.Session, data, one.Client, one.Backend)
		clear(data)
		if errors.Is(err, handover.ErrTooLarge) {
			return a, err
		}
		if err != nil {
			return a, fmt.Errorf("%w: %w", errChannel, err)
		}
	}
	if err := s.conn.Send(handover.Batch, nil, nil); err != nil {
		return a, fmt.Errorf("%w: %w", errChannel, err)
	}
	select {
	case a = <-s.accepted:
		return a, nil
	case <-s.gone:
		return a, fmt.Errorf("%w: %w", errChannel, s.goneWhy)
	case <-time.After(acceptTimeout):
		return a, fmt.Errorf("it has not accepted %d sessions within %v", len(batch), acceptTimeout)
	}
}

// Finish ends the old process: it has sessions that stay until they end, and connections in their startup.
// For half of the time of a drain it leaves them alone. It reports what it does to the new process. If that
// one dies before the drain begins, Finish returns ErrSuccessorGone, and this process has to accept again. As long as
// that one lives it accepts the connections, whatever has become of the channel.
func (s *Successor) Finish(drain func() <-chan error, drainNow <-chan struct{}) (err error) {
	defer func() {
		s.close()
		if errors.Is(err, ErrSuccessorGone) { // else the process ends
			s.claim.Close()
			s.process.Close()
		}
	}()
	f := finishing{Successor: s, drain: drain, died: make(chan struct{})}
	go func() {
		for !s.process.Ended(time.Minute) {
		}
		close(f.died)
	}()
	if err := s.moveAll(); err != nil {
		if err := f.lost(err); err != nil {
			return err
		}
	}
	totals := s.gate.Metrics.Totals()
	s.gate.Log.Info("sessions handed over", "pid", s.pid, "moved", s.moved, "stay", totals.Open, "starting", totals.Starting)
	s.report()
	_ = s.conn.Send(handover.Rest, rest{s.moved, totals.Open}, nil)
	return f.run(drainNow)
}

// finishing is a Finish under way.
type finishing struct {
	*Successor
	drain   func() <-chan error
	drained <-chan error  // nil: the drain has not begun
	died    chan struct{} // closed when the new process has ended; nil: that is known
	broken  bool          // the channel is closed
}

func (f *finishing) run(drainNow <-chan struct{}) error {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	half := time.NewTimer(f.gate.DrainTimeout / 2)
	defer half.Stop()
	again := time.NewTicker(moveInterval)
	defer again.Stop()
	gone := f.gone
	for {
		var err error
		select {
		case <-tick.C:
			f.report()
		case <-drainNow:
			drainNow = nil
			f.begin()
		case <-half.C:
			f.begin()
		case <-again.C:
			if f.drained == nil {
				err = f.moveAll()
			}
			if f.gate.Server.Idle() {
				f.begin()
			}
		case err := <-f.drained:
			f.report()
			_ = f.sendKeysAndRates() // with the attempts that have ended here
			_ = f.sendCounters(false)
			_ = f.conn.Send(handover.End, nil, nil)
			return err
		case <-gone:
			gone, err = nil, f.goneWhy
		case <-f.died:
			err = errors.New("it has ended")
		}
		if err != nil {
			if err = f.lost(err); err != nil {
				return err
			}
		}
	}
}

// begin begins the drain.
func (f *finishing) begin() {
	if f.drained == nil {
		f.drained = f.drain()
	}
}

// lost decides what follows when the channel has broken, or the new process has ended. It returns ErrSuccessorGone if
// this process has to accept again: only if the kernel says that the new one is dead.
func (f *finishing) lost(err error) error {
	within := deathTimeout
	if f.broken {
		within = 0
	}
	select {
	case <-f.gone: // before it has ended it may have said that it was told to stop
	case <-time.After(within):
	}
	_ = f.conn.Close()
	dead := false
	select {
	case <-f.died:
		dead, f.died = true, nil
	case <-time.After(within):
	}
	if dead && f.moved > 0 { // it has not said which have ended before
		f.gate.Log.Error("sessions have ended with the new process", "pid", f.pid, "sessions", f.moved)
		f.gate.Metrics.Lost(f.moved)
	}
	switch {
	case dead && f.drained == nil && !f.gate.Stopping():
		return fmt.Errorf("%w: %w", ErrSuccessorGone, err)
	case dead:
		f.gate.Log.Error("the new process is gone", "pid", f.pid, "error", err.Error())
	case !f.broken:
		f.gate.Log.Error("the channel to the new process is closed; that process accepts the connections, and this one finishes its sessions",
			"pid", f.pid, "error", err.Error())
	}
	f.stuck, f.broken = true, true
	return nil
}
