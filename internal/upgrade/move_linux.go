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

// moveAll hands over the sessions that can go now. If the new process is gone, those of the last batch are
// this one's again, and it returns ErrSuccessorGone.
func (s *Successor) moveAll() error {
	for !s.stuck {
		batch := s.gate.Server.Freeze(batchSize, s.refused)
		if len(batch) == 0 {
			return nil
		}
		answer, err := s.offer(batch)
		if err == nil {
			err = s.conn.Send(handover.Commit, nil, nil)
		} else if !errors.Is(err, ErrSuccessorGone) && s.abort() == nil {
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
			_ = s.conn.Close()
			return fmt.Errorf("%w: %w", ErrSuccessorGone, err)
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
			return a, fmt.Errorf("%w: %w", ErrSuccessorGone, err)
		}
	}
	if err := s.conn.Send(handover.Batch, nil, nil); err != nil {
		return a, fmt.Errorf("%w: %w", ErrSuccessorGone, err)
	}
	select {
	case a = <-s.accepted:
		return a, nil
	case err := <-s.gone:
		return a, fmt.Errorf("%w: %w", ErrSuccessorGone, err)
	case <-time.After(acceptTimeout):
		return a, fmt.Errorf("it has not accepted %d sessions within %v", len(batch), acceptTimeout)
	}
}

// Finish ends the old process: it has sessions that stay until they end, and connections in their startup.
// For half of the time of a drain it leaves them alone. It reports what it does to the new process. If that
// one dies before the drain begins, Finish returns ErrSuccessorGone, and this process has to accept again.
func (s *Successor) Finish(drain func() <-chan error, drainNow <-chan struct{}) (err error) {
	defer func() {
		if errors.Is(err, ErrSuccessorGone) {
			s.close()
		}
	}()
	g := s.gate
	if err := s.moveAll(); err != nil && !g.Stopping() {
		return err
	}
	totals := g.Metrics.Totals()
	g.Log.Info("sessions handed over", "pid", s.pid, "moved", s.moved, "stay", totals.Open, "starting", totals.Starting)
	s.report()
	_ = s.conn.Send(handover.Rest, rest{s.moved, totals.Open}, nil)
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	half := time.NewTimer(g.DrainTimeout / 2)
	defer half.Stop()
	again := time.NewTicker(moveInterval)
	defer again.Stop()
	gone, now := s.gone, drainNow
	var drained <-chan error
	for {
		select {
		case <-tick.C:
			s.report()
		case <-now:
			now = nil
			if drained == nil {
				drained = drain()
			}
		case <-half.C:
			if drained == nil {
				drained = drain()
			}
		case <-again.C:
			if drained != nil {
				continue
			}
			if err := s.moveAll(); err != nil && !g.Stopping() {
				return err
			}
			if g.Server.Sessions() == 0 {
				drained = drain()
			}
		case err := <-drained:
			s.report()
			_ = s.sendKeysAndRates() // with the attempts that have ended here
			_ = s.sendCounters(false)
			_ = s.conn.Send(handover.End, nil, nil)
			return err
		case err := <-gone:
			gone = nil
			if drained == nil && !g.Stopping() {
				return fmt.Errorf("%w: %w", ErrSuccessorGone, err)
			}
			g.Log.Error("the new process is gone", "pid", s.pid, "error", err.Error())
		}
	}
}
