package policy

import "time"

// Timer is for the moments at which verdicts change without a reload: a lock
// ends, a rule begins or ends, or members of roles are no longer known. Make one with NewTimer. One goroutine may use it.
type Timer struct {
	*time.Timer
	now  func() time.Time
	of   *Policy   // that next is of
	last time.Time // when the sessions were last judged for it
	next time.Time // the first moment after that; zero: none
}

// NewTimer returns a Timer that follows no policy yet, by a clock.
func NewTimer(now func() time.Time) *Timer {
	return &Timer{now: now, Timer: time.NewTimer(time.Hour)}
}

// clockStep is how soon a clock that somebody has set is noticed.
const clockStep = time.Second

// Follow sets the timer for the next moment of a policy. It reports whether one has
// passed since the last call, or the clock has gone back, so that the sessions must be
// judged again.
func (t *Timer) Follow(p *Policy) (passed bool) {
	now := t.now()
	passed = !t.next.IsZero() && !now.Before(t.next) || now.Before(t.last)
	if passed || t.of != p {
		t.of, t.next = p, p.NextChange(now)
	}
	t.last = now
	t.Stop()
	if !t.next.IsZero() {
		t.Reset(min(t.next.Sub(now), clockStep))
	}
	return passed
}
