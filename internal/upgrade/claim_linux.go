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

// bound bounds the step that begins, unless the upgrade has been withdrawn: Withdraw has ended every wait.
func (s *Successor) bound(step time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.withdrawn == "" {
		s.conn.SetDeadline(time.Now().Add(step))
	}
}

// Signal sends the new process a signal that this one has got for the gate. It waits for at most a second: a process that
// reads nothing must not keep this one from the next signal.
func (s *Successor) Signal(sig os.Signal) {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = s.conn.Send(handover.Signal, signalled{number}, nil)
	}()
	select {
	case <-sent:
	case <-time.After(time.Second):
	}
}
