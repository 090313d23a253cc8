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

// A million sources cost no more than the first ones, and who comes and goes
// leaves nothing behind.
func TestCrowdIsBounded(t *testing.T) {
	c, now := newCrowd(), time.Now()
	l := Limits{Connections: 10, PerSource: 10, PerAccount: 10, Rate: 1, Burst: 1, AuthFailures: 1, AuthRefusal: time.Hour}
	for i := range uint32(4 * sourcesKnown) {
		source := sourceOf(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i))))
		if err := c.enter(l, source, now); err != nil {
			t.Fatal(err)
		}
		if err := c.enter(l, source, now); err == nil {
			t.Fatal("above the rate")
		}
		s := suspect{source, "app"}
		c.failed(l, s, now)
		if _, err := c.patience(l, s, now); err == nil {
			t.Fatal("after too many failures")
		}
		if _, err := c.patience(l, s, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		c.leave(source)
	}
	if c.all != 0 || len(c.sources) != 0 || c.rates.Len() != sourcesKnown || c.failures.Len() != sourcesKnown {
		t.Errorf("%d connections, %d sources, %d rates, %d failures", c.all, len(c.sources), c.rates.Len(), c.failures.Len())
	}
}
