package upgrade

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/handover"
	"pgwicket/internal/lock"
	"pgwicket/proxy"
)

// maxPart is how many entries of a list one frame has: each is a few hundred bytes at most.
const maxPart = 2000

// sendState sends what this process knows besides the sessions.
func (s *Successor) sendState() error {
	g := s.gate
	if err := s.sendKeysAndRates(); err != nil {
		return err
	}
	if table := g.Locks; s.stateDir == "" || s.stateDir != directoryID(table.Directory()) {
		for _, l := range table.Set().At(g.Now()) {
			if err := s.conn.Send(handover.State, state{Locks: []lock.Lock{l}}, nil); err != nil {
				return err
			}
		}
	}
	if err := s.conn.Send(handover.State, state{Backends: g.Metrics.Backends()}, nil); err != nil {
		return err
	}
	return s.sendPlaces()
}

// directoryID is the same for two processes that have the same directory; empty: there is none.
func directoryID(dir string) string {
	var st unix.Stat_t
	if dir == "" || unix.Stat(dir, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func (s *Successor) sendKeysAndRates() error {
	all := s.gate.Server.ClientState()
	for len(all.Keys)+len(all.Rates) > 0 {
		k, r := min(len(all.Keys), maxPart), min(len(all.Rates), maxPart)
		part := proxy.ClientState{Keys: all.Keys[:k], Rates: all.Rates[:r]}
		if err := s.conn.Send(handover.State, state{Server: part}, nil); err != nil {
			return err
		}
		all.Keys, all.Rates = all.Keys[k:], all.Rates[r:]
	}
	return nil
}

// sendPlaces sends which sessions are here that the new process does not know yet, and which have ended.
func (s *Successor) sendPlaces() error {
	var fresh []proxy.Place
	here := make(map[string]bool)
	for _, p := range s.gate.Server.Places() {
		here[p.ID] = true
		if !s.sent[p.ID] {
			fresh = append(fresh, p)
		}
	}
	var gone []string
	for id := range s.sent {
		if !here[id] {
			gone = append(gone, id)
		}
	}
	for len(gone) > 0 {
		n := min(len(gone), maxPart)
		if err := s.conn.Send(handover.Ended, ended{gone[:n]}, nil); err != nil {
			return err
		}
		gone = gone[n:]
	}
	for len(fresh) > 0 {
		n := min(len(fresh), maxPart)
		if err := s.conn.Send(handover.State, state{Places: fresh[:n]}, nil); err != nil {
			return err
		}
		fresh = fresh[n:]
	}
	s.sent = here
	return nil
}

func (s *Successor) sendCounters(live bool) error {
	counters, err := s.gate.Metrics.Counters(live)
	if err != nil {
		return err
	}
	return s.conn.Send(handover.Counters, nil, counters)
}

// reportInterval is how often the new process hears of what the old one still has.
const reportInterval = time.Second

// report tells what has changed.
func (s *Successor) report() {
	s.conn.SetWriteDeadline(time.Now().Add(switchTimeout))
	err := s.sendPlaces()
	if err == nil {
		err = s.sendCounters(true)
	}
	if err != nil {
		_ = s.conn.Close() // a part of a frame may have gone; listen has the end
	}
}
