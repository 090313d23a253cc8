package limit

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// loginTime is how long an unproved session keeps its place when all of them are taken. A
// login takes some milliseconds.
const loginTime = time.Second

// waiter is a connection that waits for a place among the sessions.
type waiter struct {
	ticket *Ticket
	limits Limits
	served chan error // gets one: nil with the place, or the refusal
}

// AdmitSession gives an admitted connection its place among the sessions, or
// returns the limit that it is over, an *Error. If all are taken, a session that is unproved
// gives way, one of the network that holds most of them and not before its loginTime is over.
// AdmitSession waits for that, and for those that are being closed; next says who comes
// first. A connection that found all sessions in
// use when it came leaves the reserve if one has ended since: a pool that replaces a
// connection opens the next one while the last one is being closed.
func (t *Ticket) AdmitSession(ctx context.Context, limits Limits) error {
	l, w := t.limiter, &waiter{t, limits, make(chan error, 1)}
	l.mu.Lock()
	err := t.mayWait(limits)
	if err == nil {
		l.waiting = append(l.waiting, w)
		l.serve(time.Now())
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		select {
		case err := <-w.served:
			return err
		default:
		}
		select {
		case err := <-w.served:
			return err
		case <-time.After(l.makeRoom(time.Now())):
		case <-ctx.Done():
			if !l.stopWaiting(w) {
				return <-w.served
			}
			if ctx.Err() == context.Canceled {
				return &Error{Kind: Interrupted}
			}
			return sessionLimit()
		}
	}
}

// mayWait refuses a connection that is in the reserve, unless the limit that it was over has
// room by now. The caller holds mu, as for all below that do not lock it.
func (t *Ticket) mayWait(limits Limits) error {
	if t.over == nil {
		return nil
	}
	if t.over.Kind != OverSessions {
		return t.over
	}
	if full := t.limiter.full(limits, t); full != nil {
		return full
	}
	t.leaveReserve()
	return nil
}

// serve gives the places that are free to connections that wait. It refuses those that wait for nothing,
// since every session is proved.
func (l *Connections) serve(now time.Time) {
	for len(l.waiting) > 0 {
		i := l.next()
		w := l.waiting[i]
		var err error
		switch most := w.limits.Sessions; {
		case most <= 0 || l.sessions < most:
			w.ticket.begin(now)
		case l.sessions-l.logins.count >= most:
			err = sessionLimit()
		default:
			return
		}
		l.waiting = slices.Delete(l.waiting, i, i+1)
		w.served <- err
	}
}

// next returns which of those that wait comes next: one that is verified, then one of the
// network that holds fewest places without having logged in, then the first that came. So a
// network that opens many connections waits for itself. There must be one.
func (l *Connections) next() (first int) {
	fewest := math.MaxInt
	for i, w := range l.waiting {
		held := -1
		if w.ticket.unproved() {
			held = l.logins.held(w.ticket.network)
		}
		if held < fewest {
			first, fewest = i, held
		}
	}
	return first
}

// begin takes a place among the sessions.
func (t *Ticket) begin(now time.Time) {
	t.limiter.sessions++
	t.session = true
	if t.unproved() {
		t.login = t.limiter.logins.add(t.network, now, t.evict)
	} else {
		t.leave()
	}
}

func (t *Ticket) unproved() bool {
	return t.place != nil && t.place.in == &t.limiter.stages[Unproved]
}

// makeRoom has a session give way for those that wait, if it is time for that, and returns when to
// try again.
func (l *Connections) makeRoom(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve(now) // a reload may have raised the limit
	if closing := l.logins.count - l.logins.listed; closing < len(l.waiting) {
		if oldest := l.logins.oldest(); oldest != nil {
			if left := oldest.since.Add(loginTime).Sub(now); left > 0 {
				return left
			}
			oldest.evictNow()
		}
	}
	return loginTime
}

// stopWaiting reports whether the connection has waited until now.
func (l *Connections) stopWaiting(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, w)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}

func sessionLimit() *Error {
	return &Error{Kind: OverSessions, Detail: "limits.max_connections"}
}

// AccountTicket is a session's place in its account. The zero ticket is none.
type AccountTicket struct {
	limiter *Connections
	account Account
}

// AdmitAccount gives a session a place in its account, unless that has as many as
// it may. The error is an *Error.
func (l *Connections) AdmitAccount(limits Limits, a Account) (t AccountTicket, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limits.PerAccount > 0 && l.accounts[a] >= limits.PerAccount {
		return t, &Error{
			Kind:   OverAccount,
			Public: fmt.Sprintf("too many connections for role \"%s\" in database \"%s\"", a.User, a.Database),
			Detail: "limits.max_sessions_per_account",
		}
	}
	l.accounts[a]++
	return AccountTicket{l, a}, nil
}

// Release gives the place up. Only the first call counts.
func (t *AccountTicket) Release() {
	l := t.limiter
	if l == nil {
		return
	}
	t.limiter = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accounts[t.account]--; l.accounts[t.account] == 0 {
		delete(l.accounts, t.account)
	}
}
