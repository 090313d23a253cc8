package limit

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var authLimits = Limits{AuthFailures: 3, AuthRefusal: time.Hour}

// gaveWay closes an attempt.
func gaveWay() bool { return true }

// source6 is a /64 of 2001:db8:site::/48.
func source6(site, subnet uint16) netip.Prefix {
	return SourceOf(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(site >> 8), byte(site), byte(subnet >> 8), byte(subnet), 15: 1}))
}

// fail makes attempts that PostgreSQL refuses, and returns how many it was asked for.
func fail(t *testing.T, l *Attempts, key Key, times int) (asked int) {
	t.Helper()
	for range times {
		a, err := l.Begin(t.Context(), authLimits, key, gaveWay)
		if err != nil {
			break
		}
		a.Failed(authLimits)
		asked++
	}
	return asked
}

func succeed(t *testing.T, l *Attempts, key Key) {
	t.Helper()
	a, err := l.Begin(t.Context(), authLimits, key, gaveWay)
	if err != nil {
		t.Fatal(err)
	}
	a.Succeeded()
}

// Attempts that are never completed keep nobody out for long: neither a client that is not known
// nor one that is.
func TestHeldAttemptsGiveWay(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"known": true, "unknown": false} {
		synctest.Test(t, func(t *testing.T) {
			l, key := NewAttempts(), guesser(1)
			if known {
				succeed(t, l, key)
			}
			var closed atomic.Int64
			held := 0
			for ; held < knownFailures*authLimits.AuthFailures && (known || held < maxAttempts); held++ {
				if _, err := l.Begin(t.Context(), authLimits, key, func() bool { closed.Add(1); return true }); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			succeed(t, l, key)
			synctest.Wait()
			if took := time.Since(began); took > attemptTime || closed.Load() != 1 {
				t.Errorf("%s: beside %d attempts without an end, it took %v, and %d of them gave way", name, held, took, closed.Load())
			}
		})
	}
}

// Where PostgreSQL reports a wrong password late (contrib/auth_delay), no more guesses than
// the limit reach it, however many wait: it has the answers, so those attempts do not give way.
func TestAnsweredAttemptsStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewAttempts()
		var asked, refused, closed atomic.Int64
		for range 12 {
			go func() {
				a, err := l.Begin(t.Context(), authLimits, guesser(1), func() bool { return false })
				if err != nil {
					refused.Add(1)
					return
				}
				asked.Add(1)
				time.Sleep(attemptTime + time.Second)
				a.Failed(authLimits)
			}()
		}
		time.Sleep(time.Minute)
		if asked.Load() != int64(authLimits.AuthFailures) || refused.Load() != 12-asked.Load() {
			t.Errorf("%d asked, %d refused", asked.Load(), refused.Load())
		}
		// One of them that does not answer gives way all the same.
		other := guesser(2)
		for i := range maxAttempts {
			give := func() bool { return false }
			if i == 1 {
				give = func() bool { closed.Add(1); return true }
			}
			if _, err := l.Begin(t.Context(), authLimits, other, give); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		succeed(t, l, other)
		if took := time.Since(began); closed.Load() != 1 || took > attemptTime {
			t.Errorf("%d gave way, after %v", closed.Load(), took)
		}
	})
}

// However many guesses of a known client's password are made at the same time, PostgreSQL is
// asked for no more than that client's own mistakes may be; and after the first of them the others
// come slowly.
func TestGuessesOfAKnownKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, key := NewAttempts(), guesser(1)
		succeed(t, l, key)
		var asked, now, most atomic.Int64
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				a, err := l.Begin(t.Context(), authLimits, key, gaveWay)
				if err != nil {
					return
				}
				asked.Add(1)
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(100 * time.Millisecond) // PostgreSQL's answer
				now.Add(-1)
				a.Failed(authLimits)
			})
		}
		wg.Wait()
		if want := int64(knownFailures * authLimits.AuthFailures); asked.Load() > want {
			t.Errorf("PostgreSQL was asked for %d guesses, want %d at most", asked.Load(), want)
		}
		if _, err := l.Begin(t.Context(), authLimits, key, gaveWay); err == nil {
			t.Error("it may go on")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l, key := NewAttempts(), guesser(1)
		succeed(t, l, key)
		fail(t, l, key, authLimits.AuthFailures)
		began := time.Now()
		for range maxAttempts {
			if _, err := l.Begin(t.Context(), authLimits, key, gaveWay); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(began) < firstAuthDelay {
			t.Error("guesses beside a client that is known are not delayed")
		}
		began = time.Now()
		succeed(t, l, key)
		if took := time.Since(began); took < time.Second || took > attemptTime+maxKnownDelay {
			t.Errorf("another one took %v, although there are %d in flight", took, maxAttempts)
		}
	})
}

// One customer has 65,536 sources of IPv6: its guesses of one user's password count together.
// Those of others, and of other users, do not.
func TestGuessesOfANetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, asked := NewAttempts(), 0
		for i := range uint16(100) {
			asked += fail(t, l, Key{source6(1, i), "app", ""}, 2)
		}
		if want := perNetwork * authLimits.AuthFailures; asked != want {
			t.Errorf("PostgreSQL was asked for %d guesses from one /48, want %d", asked, want)
		}
		refused := 0
		for _, b := range l.Backoffs(authLimits, time.Now()) {
			if b.Refused && b.Source.Bits() == 48 {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("%d networks are listed as refused", refused)
		}
		for what, key := range map[string]Key{
			"another network": {source6(2, 0), "app", ""}, "another user": {source6(1, 0), "other", ""}, "another key": {source6(1, 0), "app", "key"},
		} {
			if fail(t, l, key, 1) != 1 {
				t.Errorf("%s is refused", what)
			}
		}
		l.Lift(authLimits, "app", netip.MustParseAddr("2001:db8:1::1"))
		if fail(t, l, Key{source6(1, 1000), "app", ""}, 1) != 1 {
			t.Error("it is refused although that was lifted")
		}
	})
}

// No flood of other keys makes a refusal forgotten.
func TestRefusalsAreNotForgotten(t *testing.T) {
	t.Parallel()
	l, limits := NewAttempts(), Limits{AuthFailures: 2, AuthRefusal: time.Hour}
	refuse := func(key Key, times int) {
		for range times {
			a, _, err := l.try(limits, key, gaveWay, time.Now())
			if err != nil || a == nil {
				t.Fatalf("%v, %v", a, err)
			}
			a.Failed(limits)
		}
	}
	refuse(guesser(0), 2)
	for i := range uint32(2 * sourcesKnown) {
		refuse(guesser(1+i), 1)
	}
	var limited *Error
	if _, _, err := l.try(limits, guesser(0), gaveWay, time.Now()); !errors.As(err, &limited) || limited.Kind != BackedOff {
		t.Errorf("after %d others have failed once: %v", 2*sourcesKnown, err)
	}
	if n := l.failing.Len() + l.refused.Len(); n > sourcesKnown {
		t.Errorf("%d keys that have failed are kept", n)
	}
}

// A key with attempts in flight is not forgotten either, or its next attempts would count from
// nothing.
func TestAttemptsInFlightAreNotForgotten(t *testing.T) {
	t.Parallel()
	l, limits := NewAttempts(), Limits{AuthFailures: 3, AuthRefusal: time.Hour}
	now := time.Now()
	for range maxAttempts {
		if a, _, err := l.try(limits, guesser(0), gaveWay, now); err != nil || a == nil {
			t.Fatal(err)
		}
	}
	for i := range uint32(2 * sourcesKnown) {
		a, _, err := l.try(limits, guesser(1+i), gaveWay, now)
		if err != nil {
			t.Fatal(err)
		}
		a.Failed(limits)
	}
	if a, _, _ := l.try(limits, guesser(0), gaveWay, now); a != nil {
		t.Errorf("more than %d attempts are in flight", maxAttempts)
	}
}

// What has succeeded is displaced by others that have, and by nothing else.
func TestSuccessesAreBounded(t *testing.T) {
	t.Parallel()
	l, limits := NewAttempts(), Limits{AuthFailures: 2, AuthRefusal: time.Hour}
	for i := range uint32(sourcesKnown + 1000) {
		a, _, err := l.try(limits, guesser(i), gaveWay, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		a.Succeeded()
	}
	if n := len(l.clean); n != sourcesKnown {
		t.Errorf("%d keys that have succeeded are kept, want %d", n, sourcesKnown)
	}
	for i := range uint32(2 * sourcesKnown) {
		a, _, _ := l.try(limits, guesser(1<<24+i), gaveWay, time.Now())
		a.Failed(limits)
	}
	if n := len(l.clean); n != sourcesKnown {
		t.Errorf("after failures of others %d of them are kept, want %d", n, sourcesKnown)
	}
}
