package proxy

import "time"

// nextChange is the timer of the moments at which verdicts change by themselves: a lock
// ends, a rule begins or ends, or members of roles are no longer known. Only the goroutine of maintain uses it.
type nextChange struct {
	now   func() time.Time
	timer *time.Timer
	of    *Policy   // that next is of
	last  time.Time // when the sessions were last judged for it
	next  time.Time // the first moment after that; zero: none
}

func newNextChange(now func() time.Time) *nextChange {
	return &nextChange{now: now, timer: time.NewTimer(time.Hour)}
}

// clockStep is how soon a clock that somebody has set is noticed.
const clockStep = time.Second

// follow sets the timer for the next moment of a policy. It reports whether one has
// passed since the last call, or the clock has gone back, so that the sessions must be
// judged again.
func (n *nextChange) follow(p *Policy) (passed bool) {
	now := n.now()
	passed = !n.next.IsZero() && !now.Before(n.next) || now.Before(n.last)
	if passed || n.of != p {
		n.of, n.next = p, p.NextChange(now)
	}
	n.last = now
	n.timer.Stop()
	if !n.next.IsZero() {
		n.timer.Reset(min(n.next.Sub(now), clockStep))
	}
	return passed
}
