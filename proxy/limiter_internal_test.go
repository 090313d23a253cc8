package proxy

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// A source is an address, or of IPv6 what one customer has for himself.
func TestSourceOf(t *testing.T) {
	for addr, want := range map[string]string{
		"10.1.2.3": "10.1.2.3/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "::1": "::/64",
	} {
		if got := sourceOf(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s is %s, want %s", addr, got, want)
		}
	}
}

// A million sources cost no more than the first ones, and connections that come
// and go leave nothing behind.
func TestLimiterIsBounded(t *testing.T) {
	t.Parallel()
	l, now := newLimiter(), time.Now()
	limits := Limits{Connections: 10, PerSource: 10, PerAccount: 10, Rate: 1, Burst: 1, AuthFailures: 1, AuthRefusal: time.Hour}
	for i := range uint32(4 * sourcesKnown) {
		source := sourceOf(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i))))
		ticket, err := l.admit(limits, source, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.admit(limits, source, now); err == nil {
			t.Fatal("above the rate")
		}
		key := authKey{source, "app"}
		l.authFailed(limits, key, now)
		if _, err := l.authDelay(limits, key, now); err == nil {
			t.Fatal("after too many failures")
		}
		if _, err := l.authDelay(limits, key, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		ticket.Release()
		ticket.Release() // the second call counts for nothing
	}
	if l.all != 0 || len(l.sources) != 0 || l.rates.Len() != sourcesKnown || l.failures.Len() != sourcesKnown {
		t.Errorf("%d connections, %d sources, %d rates, %d failures", l.all, len(l.sources), l.rates.Len(), l.failures.Len())
	}
}
