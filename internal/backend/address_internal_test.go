package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	lookup := func(_ context.Context, name string) ([]netip.Addr, error) {
		switch name {
		case "db.example":
			return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.1")}, nil
		case "empty.example":
			return nil, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	for _, c := range []struct {
		network, address string
		want             []string
	}{
		{"unix", "/run/postgresql/.s.PGSQL.5432", []string{"/run/postgresql/.s.PGSQL.5432"}},
		{"tcp", "192.0.2.7:5432", []string{"192.0.2.7:5432"}},
		{"tcp", "[2001:db8::7]:5432", []string{"[2001:db8::7]:5432"}},
		{"tcp", "db.example:5433", []string{"[2001:db8::1]:5433", "192.0.2.1:5433"}},
		{"tcp", "empty.example:5432", nil},
		{"tcp", "other.example:5432", nil},
	} {
		got, err := resolve(t.Context(), time.Minute, lookup, c.network, c.address)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.address, got, c.want)
		}
		var dns *net.DNSError
		if (c.want == nil) != errors.As(err, &dns) {
			t.Errorf("%s: %v", c.address, err)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f Failures
		expect := func(want ...string) {
			t.Helper()
			all := []string{"a", "b", "c"}
			f.Sort(all)
			if !slices.Equal(all, want) {
				t.Errorf("%v, want %v", all, want)
			}
		}
		expect("a", "b", "c")
		f.Note("a", true)
		expect("b", "c", "a")
		time.Sleep(time.Second)
		f.Note("b", true)
		expect("c", "a", "b")
		f.Note("a", false)
		expect("a", "c", "b")
		time.Sleep(remembered)
		expect("a", "b", "c")

		for i := range 3 * maxFailures {
			f.Note(fmt.Sprint(i), true)
			time.Sleep(time.Millisecond)
		}
		if n := len(f.at); n != maxFailures {
			t.Errorf("%d addresses are remembered, and at most %d may be", n, maxFailures)
		}
		if _, ok := f.at[fmt.Sprint(3*maxFailures-1)]; !ok {
			t.Error("the last failure is forgotten")
		}
	})
}

// An address with no name in it takes no timer: every session asks for its addresses.
func TestAddressesWithoutName(t *testing.T) {
	for _, h := range []*Host{{Network: "unix", Address: "/run/postgresql/.s.PGSQL.5432"}, {Network: "tcp", Address: "192.0.2.7:5432"}} {
		n := testing.AllocsPerRun(100, func() {
			if all, err := h.Addresses(t.Context(), new(Failures), time.Minute); len(all) != 1 || err != nil {
				t.Fatal(all, err)
			}
		})
		if n > 3 { // the lists, and the Failures
			t.Errorf("%s: %v allocations", h.Address, n)
		}
	}
}
