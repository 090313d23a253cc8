package limit

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// The delay of an attempt after one, two, three failures, and so on. It costs
// somebody who has mistyped a password nothing that he would notice. Beside a client
// that logs in, one with a stale password delays it by no more than maxKnownDelay.
const (
	firstAuthDelay = 100 * time.Millisecond
	maxAuthDelay   = 3 * time.Second
	maxKnownDelay  = time.Second
)

const (
	// maxAttempts is how many attempts of one Key may be in flight, unless it has
	// succeeded lately; maxWaiting how many more may wait for their results.
	maxAttempts = 3
	maxWaiting  = 128
	// attemptTime is how long a client may take to answer PostgreSQL while others wait
	// for the result. Then its attempt is closed for them, so that nobody keeps others out
	// with attempts that are never completed. One that does not give way, since PostgreSQL
	// has the answer, is asked again after askAgain.
	attemptTime = 2 * time.Second
	askAgain    = 200 * time.Millisecond
	// knownFor is how long a success counts. Limits.AuthFailures without a success in
	// between end that the attempts of its Key are neither bounded nor delayed, and
	// knownFailures times as many that they are not refused.
	knownFor      = time.Hour
	knownFailures = 10
	// keysKnown bounds the memory for each of two kinds of keys that have failed.
	keysKnown = sourcesKnown / 2
)

// Key is whose failed authentications count together. The certificate's public
// key is part of it, so that one client with a stale password does not lock out
// others behind the same address who hold other certificates.
type Key struct {
	Source netip.Prefix
	User   string
	SPKI   string // the hash of the certificate's public key, in hexadecimal; empty: no certificate
}

// network returns the key of all sources of an IPv6 /48 together, for the same user and
// certificate: one customer can have 65,536 of them. IPv4 has none.
func (k Key) network() (n Key, ok bool) {
	n = k
	n.Source = networkOf(k.Source)
	return n, k.Source.Addr().Is6()
}

// Attempts keeps clients from guessing passwords: it bounds how many attempts
// are in flight, delays those after a failure and refuses those after many. Its
// memory is bounded, and what is refused is not forgotten for what has failed once:
// to displace it takes keysKnown other keys with as many failures. Its methods may be
// called concurrently.
type Attempts struct {
	mu sync.Mutex
	// active are the keys with attempts in flight, or waiting: no more than there are
	// connections. The others are apart so that no flood of first failures makes a
	// refusal forgotten, and none of failures a success.
	active  map[Key]*authState
	failing *simplelru.LRU[Key, *authState]
	refused *simplelru.LRU[Key, *authState]
	known   *simplelru.LRU[Key, *authState] // have failed since they succeeded
	clean   map[Key]time.Duration           // have not: when they succeeded, after start; there is one for each certificate that is in use
	start   time.Time
}

// authState is what is known of a Key.
type authState struct {
	failures  int       // in a row
	until     time.Time // refused, if there were enough of them
	succeeded time.Time // the last time; zero: never
	inFlight  []*Attempt
	waiting   int
	changed   chan struct{} // closed with the next result; nil: nobody waits
}

// NewAttempts returns the limiter of authentications.
func NewAttempts() *Attempts {
	l := &Attempts{active: make(map[Key]*authState), clean: make(map[Key]time.Duration), start: time.Now()}
	// The errors are for sizes that are not positive.
	l.failing, _ = simplelru.NewLRU[Key, *authState](keysKnown, nil)
	l.refused, _ = simplelru.NewLRU[Key, *authState](keysKnown, nil)
	l.known, _ = simplelru.NewLRU[Key, *authState](sourcesKnown, nil)
	return l
}

// Attempt is one authentication that PostgreSQL is asked for. nil is one that
// counts for nothing.
type Attempt struct {
	limiter  *Attempts
	failures int       // Limits.AuthFailures
	keys     []Key     // its own and, of an unknown one, that of its network; nil once its result is known
	began    time.Time // when PostgreSQL is asked
	ask      time.Time // when it may be asked to give way
	giveWay  func() bool
}

// Begin waits until an attempt may be made, or refuses it. What it returns must be
// ended by Succeeded, Failed or Abandoned. giveWay is called, by the goroutine of another
// attempt and perhaps more than once, when that one waits and this one has taken long: it closes
// the attempt and reports true, unless PostgreSQL has the client's answer. The result of one that is closed still
// counts. The error is an *Error.
func (l *Attempts) Begin(ctx context.Context, limits Limits, key Key, giveWay func() bool) (*Attempt, error) {
	if limits.AuthFailures <= 0 {
		return nil, nil
	}
	for {
		a, wait, err := l.try(limits, key, giveWay, time.Now())
		if err != nil {
			return nil, err
		}
		if a != nil {
			if err := sleep(ctx, time.Until(a.began)); err != nil {
				a.Abandoned()
				return nil, err
			}
			return a, nil
		}
		if wait.slow != nil {
			if wait.giveWay() {
				l.mu.Lock()
				l.land(wait.slow)
				l.mu.Unlock()
			}
			continue
		}
		select {
		case <-wait.changed:
		case <-time.After(wait.most):
		case <-ctx.Done():
			err = &Error{Kind: BackedOff, Detail: "earlier attempts of this user from this source have no result yet"}
			if ctx.Err() == context.Canceled {
				err = &Error{Kind: Interrupted}
			}
		}
		l.stopWaiting(limits, wait.key)
		if err != nil {
			return nil, err
		}
	}
}

// turn is what an attempt waits for before it is worth trying again: a change or, at once,
// that the slow one is asked to give way.
type turn struct {
	slow    *Attempt
	giveWay func() bool // of it
	key     Key
	changed <-chan struct{}
	most    time.Duration
}

// try returns an attempt, or what it has to wait for first.
func (l *Attempts) try(limits Limits, key Key, giveWay func() bool, now time.Time) (*Attempt, turn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &Attempt{limiter: l, failures: limits.AuthFailures, keys: []Key{key}, giveWay: giveWay}
	if n, ok := key.network(); ok && !l.use(key).isKnown(limits, now) {
		a.keys = append(a.keys, n)
	}
	var delay time.Duration
	for i, k := range a.keys {
		times := 1
		if i > 0 {
			times = perNetwork
		}
		s := l.use(k)
		may, pause := s.allowed(limits, times, now)
		if delay = max(delay, pause); may == 0 {
			l.settle(limits.AuthFailures, a.keys...)
			return nil, turn{}, &Error{Kind: BackedOff, Detail: fmt.Sprintf("authentication has failed %d times in a row; refused until %s", s.failures, s.until.UTC().Format(time.RFC3339))}
		}
		if len(s.inFlight) < may {
			continue
		}
		var wait turn
		var err error
		next := slices.MinFunc(s.inFlight, func(a, b *Attempt) int { return a.ask.Compare(b.ask) })
		if left := next.ask.Sub(now); left <= 0 {
			next.ask = now.Add(askAgain)
			wait.slow, wait.giveWay = next, next.giveWay
		} else {
			wait, err = s.wait(k, left)
		}
		l.settle(limits.AuthFailures, a.keys...)
		return nil, wait, err
	}
	a.began = now.Add(delay)
	a.ask = a.began.Add(attemptTime)
	for _, k := range a.keys {
		s := l.use(k)
		s.inFlight = append(s.inFlight, a)
	}
	return a, turn{}, nil
}

// wait has another attempt wait, unless too many do.
func (s *authState) wait(k Key, most time.Duration) (turn, error) {
	if s.waiting >= maxWaiting {
		return turn{}, &Error{Kind: BackedOff, Detail: "too many attempts of this user from this source wait for the results of earlier ones"}
	}
	s.waiting++
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return turn{key: k, changed: s.changed, most: most}, nil
}

// allowed returns how many attempts may be in flight, none of a key that is refused, and how
// long the next one has to wait. times is how many times as much a network may as a
// source.
func (s *authState) allowed(limits Limits, times int, now time.Time) (may int, delay time.Duration) {
	most := times * limits.AuthFailures
	switch {
	case s.isKnown(limits, now):
		left := knownFailures*most - s.failures
		if s.failures < most {
			return left, 0
		}
		return min(left, maxAttempts), delayAfter(s.failures-most+1, maxKnownDelay)
	case s.failures < most:
		may = min(most-s.failures, times*maxAttempts)
	case now.Before(s.until):
		return 0, 0
	default:
		may = 1
	}
	if s.failures > 0 && times == 1 {
		delay = delayAfter(s.failures, maxAuthDelay)
	}
	return may, delay
}

func delayAfter(failures int, most time.Duration) time.Duration {
	return min(firstAuthDelay<<min(failures-1, 10), most)
}

// use returns what is known of a key, among the active ones: settle must follow.
func (l *Attempts) use(key Key) *authState {
	if s, ok := l.active[key]; ok {
		return s
	}
	s := new(authState)
	for _, keys := range l.idle() {
		if found, ok := keys.Peek(key); ok {
			keys.Remove(key)
			s = found
		}
	}
	if after, ok := l.clean[key]; ok {
		delete(l.clean, key)
		s.succeeded = l.start.Add(after)
	}
	l.active[key] = s
	return s
}

func (l *Attempts) idle() []*simplelru.LRU[Key, *authState] {
	return []*simplelru.LRU[Key, *authState]{l.failing, l.refused, l.known}
}

// settle takes keys out of the active ones that are not any more.
func (l *Attempts) settle(failures int, keys ...Key) {
	for _, key := range keys {
		s, ok := l.active[key]
		if !ok || len(s.inFlight) > 0 || s.waiting > 0 {
			continue
		}
		delete(l.active, key)
		s.inFlight = nil
		switch {
		case !s.succeeded.IsZero() && s.failures == 0:
			for other := range l.clean { // any other, which has succeeded, too
				if len(l.clean) < sourcesKnown {
					break
				}
				delete(l.clean, other)
			}
			l.clean[key] = s.succeeded.Sub(l.start)
		case !s.succeeded.IsZero() && s.failures < knownFailures*failures:
			l.known.Add(key, s)
		case s.failures >= failures:
			l.refused.Add(key, s)
		case s.failures > 0:
			l.failing.Add(key, s)
		}
	}
}

// isKnown reports whether the last success is recent and not followed by very many
// failures: others who use the same source, user and certificate may have a stale
// password, and must not lock out those who have not.
func (s *authState) isKnown(limits Limits, now time.Time) bool {
	return !s.succeeded.IsZero() && now.Sub(s.succeeded) < knownFor && s.failures < knownFailures*limits.AuthFailures
}

func (l *Attempts) stopWaiting(limits Limits, key Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.active[key]; s != nil && s.waiting > 0 {
		s.waiting--
	}
	l.settle(limits.AuthFailures, key)
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

// Succeeded says that PostgreSQL has accepted the client's password: earlier failures are
// forgotten.
func (a *Attempt) Succeeded() {
	a.end(func(s *authState, network bool) {
		if s.failures = 0; !network {
			s.succeeded = time.Now()
		}
	})
}

// Failed says that PostgreSQL has refused it.
func (a *Attempt) Failed(limits Limits) {
	a.end(func(s *authState, _ bool) {
		s.failures++
		s.until = time.Now().Add(limits.AuthRefusal)
	})
}

// Abandoned says that it has come to no result.
func (a *Attempt) Abandoned() { a.end(func(*authState, bool) {}) }

// end ends an attempt. Only the first end counts.
func (a *Attempt) end(record func(s *authState, network bool)) {
	if a == nil {
		return
	}
	l := a.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	l.land(a)
	for i, k := range a.keys {
		s := l.use(k)
		record(s, i > 0)
		s.wake()
	}
	l.settle(a.failures, a.keys...)
	a.keys, a.giveWay = nil, nil
}

// land takes an attempt out of those in flight.
func (l *Attempts) land(a *Attempt) {
	for _, k := range a.keys {
		if s := l.active[k]; s != nil {
			s.inFlight = slices.DeleteFunc(s.inFlight, func(other *Attempt) bool { return other == a })
		}
	}
}

// wake has those that wait try again.
func (s *authState) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}
