package upgrade

import (
	"errors"
	"os"
	"syscall"
	"time"

	"pgwicket/internal/handover"
)

// takeBack reports whether this process goes on to accept connections: not if the new one has the claim, and lives.
// err is that of hand, and why the reason.
func (s *Successor) takeBack(err error) (why error, mine bool) {
	s.mu.Lock()
	if s.withdrawn != "" {
		err, mine = errors.New(s.withdrawn), true
	} else if s.claim.Take() {
		if mine = true; err == nil {
			err = errors.New("the new process says that it serves, and has no claim to it")
		}
		s.withdrawn = err.Error()
	}
	s.mu.Unlock()
	return err, mine || err != nil && s.process.Ended(deathTimeout)
}

// Withdraw has Run fail, and reports whether it does: it does not when the new process accepts connections. Any
// goroutine may call it.
func (s *Successor) Withdraw(why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.withdrawn != "" {
		return true
	}
	if !s.claim.Take() {
		return false
	}
	s.withdrawn = why
	s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = s.conn.Send(handover.Failed, failure{why}, nil)
	s.conn.SetDeadline(time.Now()) // Run waits for nothing more
	return true
}

// Signal sends the new process a signal that this one has got for the gate.
func (s *Successor) Signal(sig os.Signal) {
	if number, ok := sig.(syscall.Signal); ok {
		_ = s.conn.Send(handover.Signal, signalled{number}, nil)
	}
}
