package proxy

import (
	"fmt"
	"testing"

	"pgwicket/acl"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
)

// staying is a session that never leaves.
type staying struct {
	relay.Handle
	looks *int
}

func (s staying) Movable() bool                   { *s.looks++; return true }
func (s staying) Freeze(done func(*relay.Frozen)) { done(nil) }

// Each session is looked at once, however many batches there are.
func TestLeaversAreLookedAtOnce(t *testing.T) {
	t.Parallel()
	const n = 1000
	s := &Server{sessions: make(map[*session]struct{})}
	looks, skip := 0, make(map[string]bool)
	for i := range n {
		one := &session{peer: &peer{request: acl.Request{Session: fmt.Sprint(i)}}, phase: relaying, login: pgwire.Login{Ready: true}, relay: staying{looks: &looks}}
		s.sessions[one] = struct{}{}
		skip[fmt.Sprint(i)] = i%10 == 0
	}
	l := s.Leavers()
	for range 3 {
		if all := l.Freeze(64, skip); len(all) > 0 {
			t.Errorf("%d leave", len(all))
		}
	}
	if looks != n {
		t.Errorf("%d looks at %d sessions", looks, n)
	}
}
