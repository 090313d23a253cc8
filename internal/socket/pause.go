package socket

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Pause holds up the accept loops of some listeners, and ends them. Connections wait in their queues meanwhile.
// The zero value holds up nobody. Its methods may be called concurrently and in any order: once Stop has been
// called, Begin and End change nothing.
type Pause struct {
	mu      sync.Mutex
	over    chan struct{} // closed when the pause is over; nil: there is none
	stopped bool
}

// Begin interrupts the accepts that wait in listeners, and holds up their loops until End or Stop.
func (p *Pause) Begin(listeners ...net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	if p.over == nil {
		p.over = make(chan struct{})
	}
	interrupt(listeners)
}

// End has the loops go on. The listeners are those of Begin.
func (p *Pause) End(listeners ...net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	for _, ln := range listeners {
		if d, ok := ln.(deadliner); ok {
			_ = d.SetDeadline(time.Time{})
		}
	}
	p.goOn()
}

// Stop interrupts the accepts that wait in listeners now and later, and ends a pause, for good.
func (p *Pause) Stop(listeners ...net.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	interrupt(listeners)
	p.goOn()
}

func (p *Pause) goOn() {
	if p.over != nil {
		close(p.over)
		p.over = nil
	}
}

// Wait is for an accept loop whose accept has failed with err. It reports whether the loop must try again, when a
// pause is over: not after Stop, nor if something else has made the accept fail.
func (p *Pause) Wait(err error) bool {
	p.mu.Lock()
	over, stopped := p.over, p.stopped
	p.mu.Unlock()
	if stopped || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if over != nil {
		<-over
	}
	return !p.Stopped()
}

// Stopped reports whether Stop has been called.
func (p *Pause) Stopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

type deadliner interface{ SetDeadline(time.Time) error }

// interrupt has the accepts of listeners fail. One that cannot be interrupted is closed.
func interrupt(listeners []net.Listener) {
	for _, ln := range listeners {
		if d, ok := ln.(deadliner); !ok || d.SetDeadline(time.Unix(1, 0)) != nil {
			_ = ln.Close()
		}
	}
}
