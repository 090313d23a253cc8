package limit

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Clients that only wait for their password keep nobody out of the sessions: one of them gives way,
// of the network that holds most and only after it has had time to log in. Sessions that are
// proved stay.
func TestUnprovedSessionsGiveWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, limits := newConnections(), Limits{Startups: 1000, Sessions: 10}
		const honest, attacker = 10<<24 | 1, 11 << 24
		var gone [2]atomic.Int64
		session := func(addr uint32, evicted *atomic.Int64) (*Ticket, error) {
			var ticket *Ticket
			ticket, err := l.Admit(limits, source4(addr), time.Now(), func() {
				evicted.Add(1)
				time.Sleep(10 * time.Millisecond)
				ticket.Release()
			})
			if err != nil || ticket.Over() != nil {
				t.Fatalf("it is over a limit before it says anything: %v, %v", err, ticket.Over())
			}
			err = ticket.AdmitSession(t.Context(), limits)
			if n := l.Usage().Sessions; n > limits.Sessions {
				t.Errorf("%d sessions", n)
			}
			return ticket, err
		}
		for range 2 {
			proved, err := session(attacker, &gone[1])
			if err != nil {
				t.Fatal(err)
			}
			proved.Prove()
		}
		slow, err := session(honest, &gone[0])
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint32(7) {
			if _, err := session(attacker|i, &gone[1]); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		for i := range uint32(20) {
			next, err := session(12<<24|i<<8, &gone[0])
			if err != nil {
				t.Fatalf("session %d: %v", i, err)
			}
			if i == 0 && time.Since(began) < loginTime {
				t.Error("a login had no time")
			}
			if i < 3 {
				next.Prove()
			} else {
				next.Release()
			}
		}
		synctest.Wait()
		if a, b := gone[0].Load(), gone[1].Load(); a > 0 || b != 4 {
			t.Errorf("%d of others and %d of the attackers' sessions gave way, want 0 and 4", a, b)
		}
		if took := time.Since(began); took > 2*loginTime {
			t.Errorf("it took %v", took)
		}
		slow.Prove()
		// Full of proved sessions, the gate refuses at once.
		for l.Usage().Sessions < limits.Sessions {
			one, err := session(13<<24, &gone[0])
			if err != nil {
				t.Fatal(err)
			}
			one.Prove()
		}
	})
}

// Many clients of one network that only wait for their password, and open the next connection when
// one gives way, wait for each other: a free place goes to a client with a verified
// certificate, then to the network that holds fewest, then to the first that came.
func TestPlacesAmongSessionsAreFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, limits := newConnections(), Limits{Startups: 1000, Sessions: 10}
		ctx, stop := context.WithCancel(t.Context())
		hold := func(addr uint32, verified bool) (gone chan struct{}, err error) {
			closed := make(chan struct{})
			ticket, err := l.Admit(limits, source4(addr), time.Now(), func() { close(closed) })
			if err != nil {
				t.Fatal(err)
			}
			if verified {
				ticket.Verify(limits, time.Now())
			}
			bounded, cancel := context.WithTimeout(ctx, 10*time.Second) // limits.startup_timeout
			defer cancel()
			err, gone = ticket.AdmitSession(bounded, limits), make(chan struct{})
			go func() {
				defer close(gone)
				defer ticket.Release()
				if err == nil {
					select {
					case <-closed:
					case <-ctx.Done():
					}
				}
			}()
			return gone, err
		}
		const attackers, honest = 11 << 24, 12 << 24
		for range 190 {
			go func() {
				for ctx.Err() == nil {
					gone, _ := hold(attackers|1, false)
					<-gone
				}
			}()
		}
		synctest.Wait()
		time.Sleep(loginTime / 2)
		for i := range uint32(9) {
			began := time.Now()
			if _, err := hold(honest|i, i%2 == 0); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
			if took := time.Since(began); took > 2*loginTime {
				t.Errorf("client %d had its place after %v", i, took)
			}
			time.Sleep(100 * time.Millisecond)
		}
		stop()
		synctest.Wait()
		if u := l.Usage(); u != (Usage{}) || len(l.waiting) > 0 {
			t.Errorf("left over: %+v, %d wait", u, len(l.waiting))
		}
	})
	// The order, one place after the other.
	synctest.Test(t, func(t *testing.T) {
		l, limits := newConnections(), Limits{Sessions: 2}
		var order []string
		wait := func(name string, addr uint32, verified bool) *Ticket {
			ticket, err := l.Admit(limits, source4(addr), time.Now(), func() {})
			if err != nil {
				t.Fatal(err)
			}
			if verified {
				ticket.Verify(limits, time.Now())
			}
			go func() {
				if err := ticket.AdmitSession(t.Context(), limits); err != nil {
					t.Error(err)
				}
				order = append(order, name)
				if len(order) > 2 {
					ticket.Release()
				}
			}()
			synctest.Wait()
			return ticket
		}
		const one, two = 11 << 24, 12 << 24
		first := wait("a", one, false)
		wait("b", one, false)
		wait("c", one, false)
		wait("d", one, false)
		wait("e", two, false)
		wait("f", two, true)
		first.Release()
		synctest.Wait()
		if got := strings.Join(order, ""); got != "abfecd" {
			t.Errorf("they had their places in the order %s", got)
		}
	})
}

// Where every session is proved, the next connection is over the limit at once, and one that waits is told as
// soon as it is so.
func TestProvedSessionsStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, limits := newConnections(), Limits{Sessions: 1}
		first, _ := l.Admit(limits, source4(1), time.Now(), func() { t.Error("it had to give way") })
		if err := first.AdmitSession(t.Context(), limits); err != nil {
			t.Fatal(err)
		}
		second, _ := l.Admit(limits, source4(2), time.Now(), func() {})
		began, refused := time.Now(), make(chan error)
		go func() { refused <- second.AdmitSession(t.Context(), limits) }()
		time.Sleep(loginTime / 2)
		first.Prove()
		var limited *Error
		if err := <-refused; !errors.As(err, &limited) || limited.Kind != OverSessions || time.Since(began) >= loginTime {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		bounded, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		third := &Ticket{limiter: l}
		if err := third.AdmitSession(bounded, limits); !errors.As(err, &limited) || limited.Kind != OverSessions {
			t.Error(err)
		}
		if len(l.waiting) != 0 {
			t.Errorf("%d wait", len(l.waiting))
		}
	})
}

// Clients with a good certificate that say nothing more have a bound of their own, beside that of the
// unproved, and so have connections that wait for their PROXY header.
func TestEveryStageIsBounded(t *testing.T) {
	t.Parallel()
	var counts [stageCount]atomic.Int64
	l, now := NewConnections(func(s Stage, by int) { counts[s].Add(int64(by)) }), time.Now()
	limits := Limits{Startups: 10}
	var gaveWay atomic.Int64
	evict := func() { gaveWay.Add(1) }
	var tickets []*Ticket
	var headers []*HeaderTicket
	for i := range uint32(100) {
		if ticket, err := l.Admit(limits, source4(i), now, evict); err == nil {
			ticket.Verify(limits, now)
			tickets = append(tickets, ticket)
		}
		if header, err := l.AwaitHeader(limits, netip.MustParseAddr("10.0.0.1"), now, evict); err == nil {
			headers = append(headers, header)
		}
	}
	u := l.Usage()
	if u.Verified != closing*limits.Startups || u.Headers != closing*limits.Startups || u.Startups > closing*limits.Startups {
		t.Errorf("usage %+v", u)
	}
	for s, want := range []int{Unproved: u.Startups, Verified: u.Verified, Header: u.Headers} {
		if got := int(counts[s].Load()); got != want {
			t.Errorf("stage %d: %d are counted, want %d", s, got, want)
		}
	}
	for _, ticket := range tickets {
		ticket.Release()
	}
	for _, header := range headers {
		header.Release()
		header.Release() // the second call counts for nothing
	}
	if u := l.Usage(); u != (Usage{}) {
		t.Errorf("usage %+v at the end", u)
	}
	for s := range counts {
		if n := counts[s].Load(); n != 0 {
			t.Errorf("stage %d: %d are counted at the end", s, n)
		}
	}
}

// New connections of a /48 have a rate, and forgetting a source in a flood of others gives it no
// new burst.
func TestRatesOfNetworks(t *testing.T) {
	t.Parallel()
	limits, now := Limits{Rate: 1, Burst: 10}, time.Now()
	r, allowed := newRates(), 0
	for i := range uint16(1000) {
		if !r.allow(limits, source6(1, i), now).IsValid() {
			allowed++
		}
	}
	if want := perNetwork * limits.Burst; allowed != want {
		t.Errorf("%d new connections of a /48, want %d", allowed, want)
	}
	r, allowed = newRates(), 0
	burst := func() {
		for range limits.Burst + 1 {
			if !r.allow(limits, source4(0), now).IsValid() {
				allowed++
			}
		}
	}
	burst()
	for range 3 {
		for i := range uint32(sourcesKnown) {
			r.allow(limits, source4(1+i), now)
		}
		burst()
	}
	if allowed != limits.Burst+3 {
		t.Errorf("%d new connections of a source beside a flood, want %d", allowed, limits.Burst+3)
	}
	if n := r.sources.Len(); n != sourcesKnown {
		t.Errorf("%d sources are kept", n)
	}
}

// CancelRequests with a key that no session has cost PostgreSQL a bounded number of processes a
// second, however short each of them is.
func TestUnknownCancelsHaveARate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		source func(i int) netip.Prefix
		want   int
	}{
		"one source":   {func(int) netip.Prefix { return source4(1) }, unknownSourceBurst + 9*unknownSourceRate},
		"one /48":      {func(i int) netip.Prefix { return source6(1, uint16(i)) }, unknownSourceBurst + 9*unknownSourceRate},
		"many sources": {func(i int) netip.Prefix { return source4(uint32(i)) }, unknownBurst + 9*unknownRate},
	} {
		cancels, now, begun := NewCancels(), time.Now(), 0
		for second := range 10 {
			for i := range 1000 {
				source := c.source(1000*second + i)
				if cancels.Begin(nil, source, 64, now.Add(time.Duration(second)*time.Second)) {
					begun++
					cancels.End(nil, source)
				}
				key := new(KeyCancels)
				if !cancels.Begin(key, source, 64, now) {
					t.Fatalf("%s: one with a key is refused", name)
				}
				cancels.End(key, source)
			}
		}
		if begun != c.want || cancels.InFlight() != 0 || len(cancels.sources) != 0 {
			t.Errorf("%s: %d in 10 seconds, want %d; %d in flight", name, begun, c.want, cancels.InFlight())
		}
	}
}

// A client that sends CancelRequests with the key of its own session, as fast and as many at a
// time as it can, takes none from others.
func TestCancelsOfOneKey(t *testing.T) {
	t.Parallel()
	cancels, own, other, now := NewCancels(), new(KeyCancels), new(KeyCancels), time.Now()
	held := 0
	for range 80 {
		if cancels.Begin(own, source4(1), 64, now) {
			held++
		}
	}
	if held != perKey || !cancels.Begin(other, source4(2), 64, now) {
		t.Errorf("%d with one key are in flight, want %d, and those with another key pass", held, perKey)
	}
	cancels.End(other, source4(2))
	for range held {
		cancels.End(own, source4(1))
	}
	begun := held
	for ms := range 10_000 {
		if cancels.Begin(own, source4(1), 64, now.Add(time.Duration(ms)*time.Millisecond)) {
			begun++
			cancels.End(own, source4(1))
		}
	}
	if want := keyBurst + 10*keyRate; begun < want-2 || begun > want || cancels.InFlight() != 0 {
		t.Errorf("%d in 10 seconds, want %d; %d in flight", begun, want, cancels.InFlight())
	}
}
