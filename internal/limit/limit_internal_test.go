package limit

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A source is an address, or of IPv6 what one customer has alone.
func TestSourceOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string][2]string{
		"10.1.2.3":             {"10.1.2.3/32", "10.1.2.0/24"},
		"2001:db8:1:2:3:4:5:6": {"2001:db8:1:2::/64", "2001:db8:1::/48"},
		"::1":                  {"::/64", "::/48"},
	} {
		source := SourceOf(netip.MustParseAddr(addr))
		if got := [2]string{source.String(), networkOf(source).String()}; got != want {
			t.Errorf("%s is %s, want %s", addr, got, want)
		}
	}
}

func newConnections() *Connections { return NewConnections(func(Stage, int) {}) }

func source4(i uint32) netip.Prefix {
	return SourceOf(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i))))
}

// A million sources cost no more than the first ones, and connections that come
// and go leave nothing behind.
func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	l, now := newConnections(), time.Now()
	limits := Limits{Startups: 10, Sessions: 10, PerSource: 10, PerAccount: 10, Rate: 1, Burst: 1}
	for i := range uint32(4 * sourcesKnown) {
		ticket, err := l.Admit(limits, source4(i), now, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ticket.AdmitSession(t.Context(), limits); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			ticket.Prove()
		}
		ticket.Release()
		ticket.Release() // the second call counts for nothing
	}
	u := l.Usage()
	if u != (Usage{}) || len(l.sources) != 0 || len(l.networks) != 0 || l.rates.sources.Len() != sourcesKnown {
		t.Errorf("usage %+v, %d sources, %d networks, %d rates", u, len(l.sources), len(l.networks), l.rates.sources.Len())
	}
}

// When the unproved are too many, the oldest of the network that holds most gives
// way, so that nobody drives out a slow client from elsewhere.
func TestOneOfTheLargestNetworkGivesWay(t *testing.T) {
	t.Parallel()
	l, now := newConnections(), time.Now()
	limits := Limits{Startups: 100}
	evicted := make(chan uint32, 1000)
	tickets := make(map[uint32][]*Ticket) // of an address, the oldest first
	admit := func(addr uint32) *Ticket {
		ticket, err := l.Admit(limits, source4(addr), now, func() { evicted <- addr })
		if err != nil {
			t.Fatal(err)
		}
		tickets[addr] = append(tickets[addr], ticket)
		return ticket
	}
	const honest, attacker = 10<<24 | 1, 11 << 24
	slow, proved := admit(honest), admit(attacker)
	proved.Prove()
	tickets[attacker] = nil
	for i := range uint32(1000) {
		admit(attacker | i%250) // of one /24
		if i < 99 {
			continue
		}
		addr := <-evicted
		if addr == honest {
			t.Fatal("the client of another network had to give way")
		}
		tickets[addr][0].Release()
		tickets[addr] = tickets[addr][1:]
	}
	// Those that have given way and do not close have a bound, too.
	for i := range uint32(1000) {
		if _, err := l.Admit(limits, source4(attacker|i%250), now, func() {}); err != nil {
			break
		}
	}
	if n := l.Usage().Startups; n != closing*limits.Startups {
		t.Errorf("%d unproved connections, want %d at most", n, closing*limits.Startups)
	}
	before := l.stages[Unproved].listed
	slow.Release()
	if after := l.stages[Unproved].listed; after != before-1 {
		t.Errorf("%d places were listed, and %d after one has become free: another had to give way", before, after)
	}
}

// A connection over a limit may say what it wants, from a reserve that is bounded
// for each source and in all; then it is refused by the limit.
func TestReserve(t *testing.T) {
	t.Parallel()
	l, now := newConnections(), time.Now()
	limits := Limits{Startups: 160, PerSource: 2}
	var over []*Ticket
	for i := range uint32(2 + reservePerSource + 5) {
		ticket, err := l.Admit(limits, source4(1), now, func() {})
		switch {
		case i < 2+reservePerSource && err != nil:
			t.Fatalf("connection %d: %v", i, err)
		case i >= 2+reservePerSource && err == nil:
			t.Fatalf("connection %d is in the reserve", i)
		case err != nil:
			continue
		case (ticket.over != nil) != (i >= 2):
			t.Fatalf("connection %d: over is %v", i, ticket.over)
		}
		over = append(over, ticket)
	}
	var r *Error
	if err := over[2].AdmitSession(t.Context(), limits); !errors.As(err, &r) || r.Kind != OverSource {
		t.Errorf("admitted to a session: %v", err)
	}
	all := l.overs
	for i := range uint32(1000) {
		for range 3 {
			if ticket, err := l.Admit(limits, source4(2+i), now, func() {}); err == nil && ticket.over != nil {
				all++
			}
		}
	}
	if want := limits.Startups / reserveShare; all != want {
		t.Errorf("the reserve holds %d, want %d", all, want)
	}
}

// The sessions are bounded apart from the unproved, however they are spread over sources.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	l, now := newConnections(), time.Now()
	limits := Limits{Sessions: 3}
	var held []*Ticket
	for i := range uint32(4) {
		ticket, err := l.Admit(limits, source4(i), now, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ticket.AdmitSession(t.Context(), limits); (err == nil) != (i < 3) {
			t.Fatalf("session %d: %v", i, err)
		}
		ticket.Prove()
		held = append(held, ticket)
	}
	held[0].Release()
	ticket, err := l.Admit(limits, source4(9), now, nil)
	if err != nil || ticket.over != nil || ticket.AdmitSession(t.Context(), limits) != nil {
		t.Fatal("a place that was released is not free")
	}
	ticket.Prove()
	if ticket, err := l.Admit(limits, source4(9), now, nil); err != nil || ticket.over == nil || ticket.over.Kind != OverSessions {
		t.Errorf("another one is not over the limit: %v", err)
	}
}

// A connection that came when all sessions were in use has the place of one that ends
// before it asks for its own, but not above the limit of its source.
func TestSessionEndsMeanwhile(t *testing.T) {
	t.Parallel()
	l, now := newConnections(), time.Now()
	limits := Limits{Sessions: 1, PerSource: 2}
	admit := func() *Ticket {
		ticket, err := l.Admit(limits, source4(1), now, nil)
		if err != nil {
			t.Fatal(err)
		}
		return ticket
	}
	first := admit()
	if err := first.AdmitSession(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	first.Prove()
	second, third, fourth := admit(), admit(), admit()
	if second.AdmitSession(t.Context(), limits) == nil {
		t.Error("a second session")
	}
	first.Release()
	if err := second.AdmitSession(t.Context(), limits); err != nil || second.Over() != nil {
		t.Errorf("the place is not free: %v", err)
	}
	limits.Sessions = 3
	if err := third.AdmitSession(t.Context(), limits); err != nil {
		t.Errorf("a third session: %v", err)
	}
	var over *Error
	if err := fourth.AdmitSession(t.Context(), limits); !errors.As(err, &over) || over.Kind != OverSource {
		t.Errorf("more than the source may have: %v", err)
	}
	for _, ticket := range []*Ticket{second, third, fourth} {
		ticket.Release()
	}
	if l.overs != 0 || l.Usage() != (Usage{}) || len(l.sources) != 0 || len(l.networks) != 0 {
		t.Errorf("left over: %+v", l)
	}
}

// A /48 may hold no more than a few sources may.
func TestNetworkIsBounded(t *testing.T) {
	t.Parallel()
	l, now := newConnections(), time.Now()
	limits := Limits{PerSource: 5}
	within := 0
	for i := range 100 {
		addr := netip.MustParseAddr("2001:db8:7::1").As16()
		addr[7] = byte(i)
		if ticket, err := l.Admit(limits, SourceOf(netip.AddrFrom16(addr)), now, nil); err == nil && ticket.over == nil {
			within++
		}
	}
	if within != perNetwork*limits.PerSource {
		t.Errorf("%d connections of one /48, want %d", within, perNetwork*limits.PerSource)
	}
}

func guesser(i uint32) Key { return Key{Source: source4(i), User: "app"} }

// However many guesses come at the same time, PostgreSQL is asked as often as the
// limit says; the rest waits and is refused.
func TestGuessesAtTheSameTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewAttempts()
		limits := Limits{AuthFailures: 3, AuthRefusal: time.Minute}
		var asked, refused atomic.Int64
		for range 60 {
			go func() {
				a, err := l.Begin(t.Context(), limits, guesser(1), gaveWay)
				if err != nil {
					refused.Add(1)
					return
				}
				asked.Add(1)
				time.Sleep(time.Second) // PostgreSQL's answer
				a.Failed(limits)
			}()
		}
		time.Sleep(30 * time.Second)
		if asked.Load() != 3 || refused.Load() != 57 {
			t.Errorf("%d asked, %d refused", asked.Load(), refused.Load())
		}
		time.Sleep(time.Minute)
		a, err := l.Begin(t.Context(), limits, guesser(1), gaveWay)
		if err != nil {
			t.Fatalf("after the refusal's time: %v", err)
		}
		a.Succeeded()
	})
}

// A client that has succeeded lately opens as many connections at once as it
// likes, and neither others at its address nor the first of its kind hold it up.
func TestKnownClientsAreNotHeldUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewAttempts()
		limits := Limits{AuthFailures: 3, AuthRefusal: time.Minute}
		good, bad := guesser(1), guesser(1)
		bad.SPKI = "a certificate with another key"
		began := time.Now()
		var through atomic.Int64
		for range 60 {
			go func() {
				a, err := l.Begin(t.Context(), limits, good, gaveWay)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(10 * time.Millisecond)
				a.Succeeded()
				through.Add(1)
			}()
		}
		synctest.Wait()
		time.Sleep(50 * time.Millisecond)
		if through.Load() != 60 {
			t.Errorf("%d of a pool of 60 are through after %v", through.Load(), time.Since(began))
		}
		for range 5 {
			if a, err := l.Begin(t.Context(), limits, bad, gaveWay); err == nil {
				a.Failed(limits)
			}
		}
		if _, err := l.Begin(t.Context(), limits, bad, gaveWay); err == nil {
			t.Error("the other certificate's guesses are not refused")
		}
		if _, err := l.Begin(t.Context(), limits, good, gaveWay); err != nil {
			t.Errorf("the good one is refused for another's guesses: %v", err)
		}
		// The same address and no certificate: one stale password among good ones.
		for i := range knownFailures*limits.AuthFailures + 1 {
			a, err := l.Begin(t.Context(), limits, good, gaveWay)
			if err != nil {
				if i < knownFailures*limits.AuthFailures {
					t.Errorf("refused after %d failures beside a success: %v", i, err)
				}
				break
			}
			a.Failed(limits)
		}
		if _, err := l.Begin(t.Context(), limits, good, gaveWay); err == nil {
			t.Error("a success long ago allows any number of guesses")
		}
	})
}

// What ends without a result frees its place, and the memory stays bounded.
func TestAuthLimiterIsBounded(t *testing.T) {
	t.Parallel()
	l := NewAttempts()
	limits := Limits{AuthFailures: 1, AuthRefusal: time.Hour}
	for i := range uint32(2 * sourcesKnown) {
		a, err := l.Begin(t.Context(), limits, guesser(i), gaveWay)
		if err != nil {
			t.Fatal(err)
		}
		a.Failed(limits)
		if _, err := l.Begin(t.Context(), limits, guesser(i), gaveWay); err == nil {
			t.Fatal("after too many failures")
		}
	}
	if n := l.refused.Len(); n != keysKnown {
		t.Errorf("%d refusals are remembered", n)
	}
	if len(l.active) > 0 {
		t.Errorf("%d keys have attempts in flight", len(l.active))
	}
	for range 10 {
		a, err := l.Begin(t.Context(), limits, guesser(3<<20), gaveWay)
		if err != nil {
			t.Fatal(err)
		}
		a.Abandoned()
		a.Abandoned() // the second call counts for nothing
	}
}

// A connection in the reserve may outlive every other of its network, proved or
// evicted: giving its place up must find the network's count.
func TestReserveOutlivesItsNetwork(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*Connections, *Ticket){
		"proved":  func(_ *Connections, over *Ticket) { over.Prove() },
		"evicted": func(l *Connections, _ *Ticket) { l.stages[Unproved].oldest().evictNow() },
	} {
		l, now := newConnections(), time.Now()
		limits := Limits{PerSource: 1}
		first, err := l.Admit(limits, source4(1), now, func() {})
		if err != nil {
			t.Fatal(err)
		}
		first.Prove()
		over, err := l.Admit(limits, source4(1), now, func() {})
		if err != nil || over.over == nil {
			t.Fatalf("%s: the second is not in the reserve: %v", name, err)
		}
		leave(l, over)
		first.Release()
		over.Release()
		if u := l.Usage(); u != (Usage{}) || len(l.sources) != 0 || len(l.networks) != 0 {
			t.Errorf("%s: usage %+v, %d sources, %d networks", name, u, len(l.sources), len(l.networks))
		}
	}
}
