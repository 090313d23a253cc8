package limit

import (
	"context"
	"fmt"
	"time"
)

// loginTime is how long an unproved session keeps its place when all of them are taken. A
// login takes some milliseconds.
const loginTime = time.Second

// AdmitSession gives an admitted connection its place among the sessions, or
// returns the limit that it is over, an *Error. If all are taken, a session that is unproved
// gives way, one of the network that holds most of them and not before its loginTime is over.
// AdmitSession waits for that, and for those that are being closed. A connection that found all sessions in
// use when it came leaves the reserve if one has ended since: a pool that replaces a
// connection opens the next one while the last one is being closed.
func (t *Ticket) AdmitSession(ctx context.Context, limits Limits) error {
	l := t.limiter
	for queued := false; ; queued = true {
		changed, most, err := t.trySession(limits, queued, time.Now())
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-time.After(most):
		case <-ctx.Done():
			l.mu.Lock()
			l.queued--
			l.mu.Unlock()
			if ctx.Err() == context.Canceled {
				return &Error{Kind: Interrupted}
			}
			return sessionLimit()
		}
	}
}

// trySession takes the place, refuses it, or returns a channel that is closed when it is worth
// trying again, which it is after some time in any case. queued says that the ticket waits
// already.
func (t *Ticket) trySession(limits Limits, queued bool, now time.Time) (changed <-chan struct{}, most time.Duration, err error) {
	l := t.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if queued {
		l.queued--
	}
	if t.over != nil {
		if t.over.Kind != OverSessions {
			return nil, 0, t.over
		}
		if full := l.full(limits, t); full != nil {
			return nil, 0, full
		}
		t.leaveReserve()
	}
	switch {
	case limits.Sessions <= 0 || l.sessions < limits.Sessions:
		l.sessions++
		t.session = true
		if t.place == nil || t.place.in != &l.stages[Unproved] {
			t.leave()
		} else {
			t.login = l.logins.add(t.network, now, t.evict)
		}
		return nil, 0, nil
	case l.sessions-l.logins.count >= limits.Sessions:
		return nil, 0, sessionLimit()
	}
	l.queued++
	most = loginTime
	if closing := l.logins.count - l.logins.listed; closing < l.queued {
		if oldest := l.logins.oldest(); oldest != nil {
			if most = oldest.since.Add(loginTime).Sub(now); most <= 0 {
				oldest.evictNow()
				most = loginTime
			}
		}
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed, most, nil
}

// wake has the connections that wait for a place among the sessions try again.
func (l *Connections) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
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
