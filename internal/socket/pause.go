package socket

import (
	"net"
	"sync"
	"time"
)

// Pause holds up the accept loops of some listeners. Connections wait in their queues meanwhile. The
// zero value holds up nobody. Its methods may be called concurrently.
type Pause struct {
	mu   sync.Mutex
	over chan struct{} // closed when the pause is over; nil: there is none
}

// Begin interrupts the accepts that wait in listeners, and holds up their loops until End.
func (p *Pause) Begin(listeners ...net.Listener) {
	p.mu.Lock()
	if p.over == nil {
		p.over = make(chan struct{})
	}
	p.mu.Unlock()
	Interrupt(listeners...)
}

// End has the loops go on. The listeners are those of Begin.
func (p *Pause) End(listeners ...net.Listener) {
	for _, ln := range listeners {
		if d, ok := ln.(deadliner); ok {
			_ = d.SetDeadline(time.Time{})
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		close(p.over)
		p.over = nil
	}
}

// Wait is for an accept loop whose accept has failed. It reports whether that was for a pause, when
// the pause is over.
func (p *Pause) Wait() bool {
	p.mu.Lock()
	over := p.over
	p.mu.Unlock()
	if over == nil {
		return false
	}
	<-over
	return true
}

type deadliner interface{ SetDeadline(time.Time) error }

// Interrupt has the accepts of listeners fail that wait now. One that cannot be interrupted is closed.
func Interrupt(listeners ...net.Listener) {
	for _, ln := range listeners {
		if d, ok := ln.(deadliner); !ok || d.SetDeadline(time.Unix(1, 0)) != nil {
			_ = ln.Close()
		}
	}
}
