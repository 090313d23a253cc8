// Package health keeps what sessions have shown of the backends: when one was last
// served, and when and why one could not be.
package health

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Host is one address of a backend.
type Host struct{ Backend, Address string }

// State is what is known of a host.
type State struct {
	Host
	LastSuccess time.Time // zero: none
	LastFailure time.Time // zero: none
	Reason      string    // of the last failure
}

// Down reports whether the last attempt of a session has failed.
func (s State) Down() bool { return s.LastFailure.After(s.LastSuccess) }

// Known reports whether there was an attempt at all.
func (s State) Known() bool { return !s.LastFailure.IsZero() || !s.LastSuccess.IsZero() }

// Book has the states of the hosts that it was told to keep. The zero value keeps none.
// It may be used by many goroutines at once.
type Book struct {
	mu     sync.Mutex
	states map[Host]*State
}

// Keep forgets all other hosts.
func (b *Book) Keep(hosts []Host) {
	b.mu.Lock()
	defer b.mu.Unlock()
	states := make(map[Host]*State, len(hosts))
	for _, h := range hosts {
		if states[h] = b.states[h]; states[h] == nil {
			states[h] = &State{Host: h}
		}
	}
	b.states = states
}

// Succeeded records that PostgreSQL has served a session, and reports whether the host
// is kept.
func (b *Book) Succeeded(h Host, at time.Time) bool {
	return b.record(h, func(s *State) { s.LastSuccess = at })
}

// Failed records why a session was not served, and reports whether the host is kept.
func (b *Book) Failed(h Host, at time.Time, reason string) bool {
	return b.record(h, func(s *State) { s.LastFailure, s.Reason = at, reason })
}

func (b *Book) record(h Host, change func(*State)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.states[h]
	if s != nil {
		change(s)
	}
	return s != nil
}

// All returns the states by backend and address.
func (b *Book) All() []State {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]State, 0, len(b.states))
	for _, s := range b.states {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(x, y State) int {
		return cmp.Or(cmp.Compare(x.Backend, y.Backend), cmp.Compare(x.Address, y.Address))
	})
	return all
}
