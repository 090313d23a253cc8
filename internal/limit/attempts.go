package limit

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"pgwicket/internal/printable"
)

// The delay of an attempt after one, two, three failures, and so on. It costs
// somebody who has mistyped a password nothing that he would notice.
const (
	firstAuthDelay = 100 * time.Millisecond
	maxAuthDelay   = 3 * time.Second
)

const (
	// maxAttempts is how many attempts of one Key that has not succeeded
	// lately may be in flight; maxWaiting how many more may wait for their
	// results.
	maxAttempts = 3
	maxWaiting  = 128
	// knownFor is how long a success counts. knownFailures times
	// Limits.AuthFailures without a success in between end it before.
	knownFor      = time.Hour
	knownFailures = 10
)

// Key is whose failed authentications count together. The certificate's public
// key is part of it, so that one client with a stale password does not lock out
// others behind the same address who hold other certificates.
type Key struct {
	Source netip.Prefix
	User   string
	SPKI   string // the hash of the certificate's public key, in hexadecimal; empty: no certificate
}

// Attempts keeps clients from guessing passwords: it bounds how many attempts
// are in flight, delays those after a failure and refuses those after many. Its
// memory is bounded: what was used least lately is forgotten. Its methods may be
// called concurrently.
type Attempts struct {
	mu sync.Mutex
	// The two are apart so that no flood of failures makes a success forgotten.
	failing *simplelru.LRU[Key, *authState]
	known   *simplelru.LRU[Key, *authState]
}

// authState is what is known of an Key.
type authState struct {
	failures  int       // in a row
	until     time.Time // refused, if there were enough of them
	succeeded time.Time // the last time; zero: never
	inFlight  int       // attempts whose result is not known
	waiting   int
	changed   chan struct{} // closed with the next result; nil: nobody waits
}

// NewAttempts returns the limiter of authentications.
func NewAttempts() *Attempts {
	l := new(Attempts)
	// The errors are for sizes that are not positive.
	l.failing, _ = simplelru.NewLRU[Key, *authState](sourcesKnown, nil)
	l.known, _ = simplelru.NewLRU[Key, *authState](sourcesKnown, nil)
	return l
}

// Attempt is one authentication that PostgreSQL is asked for. nil is one that
// counts for nothing.
type Attempt struct {
	limiter *Attempts
	key     Key
	state   *authState
	counted bool // among those in flight
	done    bool
}

// Begin waits until an attempt may be made, or refuses it. What it returns must be
// ended by Succeeded, Failed or Abandoned. The error is an *Error.
func (l *Attempts) Begin(ctx context.Context, limits Limits, key Key) (*Attempt, error) {
	if limits.AuthFailures <= 0 {
		return nil, nil
	}
	for {
		a, delay, changed, err := l.try(limits, key, time.Now())
		if err != nil {
			return nil, err
		}
		if a != nil {
			if err := sleep(ctx, delay); err != nil {
				a.Abandoned()
				return nil, err
			}
			return a, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err = &Error{Kind: BackedOff, Detail: "earlier attempts of this user from this source have no result yet"}
			if ctx.Err() == context.Canceled {
				err = &Error{Kind: Interrupted}
			}
		}
		l.stopWaiting(key)
		if err != nil {
			return nil, err
		}
	}
}

// try returns an attempt and how long it has to wait first, or a channel that is
// closed when it is worth trying again.
func (l *Attempts) try(limits Limits, key Key, now time.Time) (a *Attempt, delay time.Duration, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state(key)
	if s.isKnown(limits, now) {
		return &Attempt{limiter: l, key: key, state: s}, 0, nil, nil
	}
	may := 1
	switch {
	case s.failures < limits.AuthFailures:
		may = min(limits.AuthFailures-s.failures, maxAttempts)
	case now.Before(s.until):
		return nil, 0, nil, &Error{Kind: BackedOff, Detail: fmt.Sprintf("authentication has failed %d times in a row; refused until %s", s.failures, s.until.UTC().Format(time.RFC3339))}
	}
	if s.inFlight < may {
		s.inFlight++
		if s.failures > 0 {
			delay = min(firstAuthDelay<<min(s.failures-1, 10), maxAuthDelay)
		}
		return &Attempt{limiter: l, key: key, state: s, counted: true}, delay, nil, nil
	}
	if s.waiting >= maxWaiting {
		return nil, 0, nil, &Error{Kind: BackedOff, Detail: "too many attempts of this user from this source wait for the results of earlier ones"}
	}
	s.waiting++
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return nil, 0, s.changed, nil
}

// state returns what is known of a key, and makes it if there is nothing.
func (l *Attempts) state(key Key) *authState {
	if s, ok := l.known.Get(key); ok {
		return s
	}
	s, ok := l.failing.Get(key)
	if !ok {
		s = new(authState)
		l.failing.Add(key, s)
	}
	return s
}

// isKnown reports whether the last success is recent and not followed by very many
// failures: others who use the same source, user and certificate may have a stale
// password, and must not lock out those who have not.
func (s *authState) isKnown(limits Limits, now time.Time) bool {
	return !s.succeeded.IsZero() && now.Sub(s.succeeded) < knownFor && s.failures < knownFailures*limits.AuthFailures
}

func (l *Attempts) stopWaiting(key Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.state(key); s.waiting > 0 {
		s.waiting--
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		if ctx.Err() == context.DeadlineExceeded {
			return &Error{Kind: BackedOff, Detail: "the delay after failed attempts is longer than limits.startup_timeout"}
		}
		return &Error{Kind: Interrupted}
	}
}

// Succeeded says that PostgreSQL has taken the client's word: earlier failures are
// forgotten.
func (a *Attempt) Succeeded() {
	a.end(func() {
		a.state.failures, a.state.succeeded = 0, time.Now()
		a.limiter.failing.Remove(a.key)
		a.limiter.known.Add(a.key, a.state)
	})
}

// Failed says that PostgreSQL has refused it.
func (a *Attempt) Failed(limits Limits) {
	a.end(func() {
		a.state.failures++
		a.state.until = time.Now().Add(limits.AuthRefusal)
	})
}

// Abandoned says that it has come to no result.
func (a *Attempt) Abandoned() {
	a.end(func() {
		if s := a.state; s.failures == 0 && s.inFlight == 0 && s.waiting == 0 && s.succeeded.IsZero() {
			a.limiter.failing.Remove(a.key)
		}
	})
}

// end ends an attempt. Only the first end counts.
func (a *Attempt) end(record func()) {
	if a == nil {
		return
	}
	a.limiter.mu.Lock()
	defer a.limiter.mu.Unlock()
	if a.done {
		return
	}
	a.done = true
	if a.counted {
		a.state.inFlight--
	}
	record()
	if a.state.changed != nil {
		close(a.state.changed)
		a.state.changed = nil
	}
}

// Backoff is a client whose failed authentications make it wait, or refuse it.
type Backoff struct {
	Source   netip.Prefix
	User     string // printable
	SPKI     string // the hash of its certificate's public key, in hexadecimal; empty: no certificate
	Failures int    // in a row
	Until    time.Time
	Refused  bool // until then
}

// Backoffs returns the clients that have failed to authenticate, in no order.
func (l *Attempts) Backoffs(limits Limits, now time.Time) []Backoff {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Backoff
	for _, keys := range []*simplelru.LRU[Key, *authState]{l.failing, l.known} {
		for _, k := range keys.Keys() {
			st, ok := keys.Peek(k)
			if !ok || st.failures == 0 {
				continue
			}
			b := Backoff{Source: k.Source, User: printable.Text(k.User), SPKI: k.SPKI, Failures: st.failures, Until: st.until}
			b.Refused = st.failures >= limits.AuthFailures && now.Before(st.until) && !st.isKnown(limits, now)
			all = append(all, b)
		}
	}
	return all
}

// Lift forgets the failed authentications of a user, from a source; the
// zero value of either is any. It returns how many were forgotten.
func (l *Attempts) Lift(user string, source netip.Addr) (lifted int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, keys := range []*simplelru.LRU[Key, *authState]{l.failing, l.known} {
		for _, k := range keys.Keys() {
			st, ok := keys.Peek(k)
			if !ok || st.failures == 0 || user != "" && k.User != user || source.IsValid() && !k.Source.Contains(source) {
				continue
			}
			st.failures, st.until = 0, time.Time{}
			lifted++
			if st.changed != nil {
				close(st.changed)
				st.changed = nil
			}
		}
	}
	return lifted
}
