package policy

import "time"

// Changes is a timer of the moments at which verdicts change without a new policy: a lock
// ends, a rule begins or ends, or members of roles are no longer known. One goroutine may use it.
type Changes struct {
	Timer *time.Timer // Follow must be called when it fires

	now  func() time.Time
	of   *Policy   // that next is of
	last time.Time // when the sessions were last judged for it
	next time.Time // the first moment after that; zero: none
}

// NewChanges returns one that goes by the clock now. Follow sets its timer.
func NewChanges(now func() time.Time) *Changes {
	return &Changes{now: now, Timer: time.NewTimer(time.Hour)}
}

// clockStep is how soon a clock that somebody has set is noticed.
const clockStep = time.Second

// Follow sets the timer for the next moment of a policy. It reports whether one has
// passed since the last call, or the clock has gone back, so that the sessions must be
// judged again.
func (n *Changes) Follow(p *Policy) (passed bool) {
	now := n.now()
	passed = !n.next.IsZero() && !now.Before(n.next) || now.Before(n.last)
	if passed || n.of != p {
		n.of, n.next = p, p.NextChange(now)
	}
	n.last = now
	n.Timer.Stop()
	if !n.next.IsZero() {
		n.Timer.Reset(min(n.next.Sub(now), clockStep))
	}
	return passed
}
