package acl_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgwicket/acl"
)

func prefixes(t testing.TB, texts ...string) (out []netip.Prefix) {
	t.Helper()
	for _, text := range texts {
		p, err := acl.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func TestParsePrefix(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.20.0.0/16":        "10.20.0.0/16",
		"192.0.2.7":           "192.0.2.7/32",
		"192.0.2.7/32":        "192.0.2.7/32",
		"0.0.0.0/0":           "0.0.0.0/0",
		"::/0":                "::/0",
		"fd00::/8":            "fd00::/8",
		"FD00::/8":            "fd00::/8",
		"2001:db8::1":         "2001:db8::1/128",
		"2001:db8:0:0::/64":   "2001:db8::/64",
		"::ffff:10.0.0.1":     "10.0.0.1/32", // supabase#20478: addresses are judged unmapped, so networks must be
		"::ffff:a00:1":        "10.0.0.1/32",
		"::ffff:10.0.0.0/104": "10.0.0.0/8",
		"::ffff:0.0.0.0/96":   "0.0.0.0/0",
		"::10.0.0.0/104":      "::a00:0/104", // IPv4-compatible (RFC 4291, section 2.5.5.1) is not IPv4-mapped
		"64:ff9b::/96":        "64:ff9b::/96",
	} {
		if got, err := acl.ParsePrefix(text); err != nil || got.String() != want {
			t.Errorf("%s: got %v, %v; want %s", text, got, err, want)
		}
	}
}

func TestParsePrefixMistakes(t *testing.T) {
	t.Parallel()
	const form = " is not a network; write it like 10.20.0.0/16, 192.0.2.7 or fd00::/8 "
	for text, want := range map[string]string{
		"":                   `""` + form + `(no '/')`,
		"office":             `"office"` + form + `(no '/')`,
		"all":                `"all"` + form + `(no '/')`,
		"10.0.0.0/":          `"10.0.0.0/"` + form + `(bad bits after slash: "")`,
		"10.0.0.0/33":        `"10.0.0.0/33"` + form + `(prefix length out of range)`,
		"::/129":             `"::/129"` + form + `(prefix length out of range)`,
		"10.0.0.0/-1":        `"10.0.0.0/-1"` + form + `(bad bits after slash: "-1")`,
		"10.0.0.0/08":        `"10.0.0.0/08"` + form + `(bad bits after slash: "08")`,
		"10.0.0.0/255.0.0.0": `"10.0.0.0/255.0.0.0"` + form + `(bad bits after slash: "255.0.0.0")`,
		// Some read a leading zero as octal (CVE-2021-29923): 10.8.0.0 or 10.010.0.0?
		"10.010.0.0/16":  `"10.010.0.0/16"` + form + `(IPv4 field has octet with leading zero)`,
		"10.0/16":        `"10.0/16"` + form + `(IPv4 address too short)`,
		"10.0.0.0.0/16":  `"10.0.0.0.0/16"` + form + `(IPv4 address too long)`,
		"10.0.0.256":     `"10.0.0.256"` + form + `(no '/')`,
		"10.0.0.0 /8":    `"10.0.0.0 /8"` + form + `(unexpected character (at " "))`,
		"10.0.0.0/8\n":   `"10.0.0.0/8\n"` + form + `(bad bits after slash: "8\n")`,
		"[fd00::]/8":     `"[fd00::]/8"` + form + `(each colon-separated field must have at least one digit (at "[fd00::]"))`,
		"10.0.0.1:5432":  `"10.0.0.1:5432"` + form + `(no '/')`,
		"10.20.0.5/16":   `"10.20.0.5/16" has bits set to the right of its mask; write 10.20.0.0/16 for the network or 10.20.0.5 for the address`,
		"fd00::1/8":      `"fd00::1/8" has bits set to the right of its mask; write fd00::/8 for the network or fd00::1 for the address`,
		"fe80::1%eth0":   `"fe80::1%eth0" has a zone, which is not part of an address; write fe80::1`,
		"fe80::%eth0/64": `"fe80::%eth0/64" has a zone, which is not part of a network; write fe80::/64`,
		// Every IPv6 network that begins there would be wrong: /8 of ::ffff:10.0.0.0 is ::/8.
		"::ffff:10.0.0.0/8":   `"::ffff:10.0.0.0/8" spans more than the IPv4-mapped addresses; write the IPv4 network`,
		"::ffff:10.0.0.5/104": `"::ffff:10.0.0.5/104" has bits set to the right of its mask; write 10.0.0.0/8 for the network or 10.0.0.5 for the address`,
	} {
		got, err := acl.ParsePrefix(text)
		if err == nil || got.IsValid() {
			t.Errorf("%q: got %v", text, got)
		} else if err.Error() != want {
			t.Errorf("%q\ngot  %s\nwant %s", text, err, want)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	type list []string
	for _, c := range []struct {
		allow, deny list
		addr        string
		want        acl.Verdict
	}{
		{nil, nil, "127.0.0.1", acl.NotAllowed},
		{nil, nil, "::1", acl.NotAllowed},
		{list{"10.0.0.0/8"}, nil, "10.255.255.255", acl.Allowed},
		{list{"10.0.0.0/8"}, nil, "11.0.0.0", acl.NotAllowed},
		{list{"10.0.0.0/8"}, nil, "9.255.255.255", acl.NotAllowed},
		{list{"192.0.2.7"}, nil, "192.0.2.7", acl.Allowed},
		{list{"192.0.2.7"}, nil, "192.0.2.6", acl.NotAllowed},
		{list{"10.20.0.0/17"}, nil, "10.20.127.255", acl.Allowed},
		{list{"10.20.0.0/17"}, nil, "10.20.128.0", acl.NotAllowed},
		{list{"fd00::/8"}, nil, "fdff::1", acl.Allowed},
		{list{"fd00::/8"}, nil, "fe00::1", acl.NotAllowed},
		{list{"2001:db8::/33"}, nil, "2001:db8:7fff::1", acl.Allowed},
		{list{"2001:db8::/33"}, nil, "2001:db8:8000::1", acl.NotAllowed},

		// Deny wins, whichever is narrower.
		{list{"10.0.0.0/8"}, list{"10.20.0.0/16"}, "10.20.0.1", acl.Denied},
		{list{"10.0.0.0/8"}, list{"10.20.0.0/16"}, "10.21.0.1", acl.Allowed},
		{list{"10.20.0.1"}, list{"10.0.0.0/8"}, "10.20.0.1", acl.Denied},
		{list{"10.20.0.1"}, list{"10.20.0.1"}, "10.20.0.1", acl.Denied},
		{nil, list{"10.0.0.0/8"}, "10.20.0.1", acl.Denied},
		{nil, list{"10.0.0.0/8"}, "11.0.0.1", acl.NotAllowed},

		// supabase#20478: an IPv4 client of a dual-stack socket is an IPv4 client.
		{list{"10.0.0.0/8"}, nil, "::ffff:10.0.0.1", acl.Allowed},
		{list{"10.0.0.0/8"}, list{"10.0.0.0/16"}, "::ffff:10.0.0.1", acl.Denied},
		{list{"::ffff:10.0.0.0/104"}, nil, "10.0.0.1", acl.Allowed},
		{list{"0.0.0.0/0"}, list{"::ffff:10.0.0.1"}, "10.0.0.1", acl.Denied},
		{list{"0.0.0.0/0"}, nil, "::1", acl.NotAllowed},
		{list{"0.0.0.0/0"}, nil, "fd00::1", acl.NotAllowed},
		{list{"::/0"}, nil, "10.0.0.1", acl.NotAllowed},
		{list{"::/0"}, nil, "::ffff:10.0.0.1", acl.NotAllowed},
		{list{"::/0"}, nil, "::a00:1", acl.Allowed},
		{list{"::/0", "0.0.0.0/0"}, nil, "::ffff:10.0.0.1", acl.Allowed},
		{list{"::/0", "0.0.0.0/0"}, list{"::/0"}, "10.0.0.1", acl.Allowed},

		// A zone names an interface of ours, not the client.
		{list{"fe80::/10"}, nil, "fe80::1%eth0", acl.Allowed},
		{list{"::/0"}, list{"fe80::1"}, "fe80::1%eth0", acl.Denied},
		{list{"0.0.0.0/0"}, nil, "::ffff:10.0.0.1%eth0", acl.Allowed},
	} {
		if got := acl.NewNetworks(prefixes(t, c.allow...), prefixes(t, c.deny...)).Judge(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("allow %q deny %q: %s has verdict %d, want %d", c.allow, c.deny, c.addr, got, c.want)
		}
	}
}

// What nobody has filled in admits nobody.
func TestJudgeZeroValues(t *testing.T) {
	t.Parallel()
	for _, addr := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), {}} {
		if got := new(acl.Networks).Judge(addr); got != acl.NotAllowed {
			t.Errorf("the zero Networks: %v has verdict %d", addr, got)
		}
	}
	everybody := acl.NewNetworks(prefixes(t, "0.0.0.0/0", "::/0"), nil)
	if got := everybody.Judge(netip.Addr{}); got != acl.NotAllowed {
		t.Errorf("no address at all has verdict %d", got)
	}
	if acl.Verdict(0) != acl.NotAllowed {
		t.Error("the zero Verdict admits")
	}
}

// naive is what the documentation says, in as many words.
func naive(allow, deny []netip.Prefix, addr netip.Addr) acl.Verdict {
	addr = addr.Unmap().WithZone("")
	holds := func(p netip.Prefix) bool { return p.Contains(addr) }
	switch {
	case slices.ContainsFunc(deny, holds):
		return acl.Denied
	case slices.ContainsFunc(allow, holds):
		return acl.Allowed
	}
	return acl.NotAllowed
}

// The tree of prefixes and a loop over them agree.
func TestJudgeAgreesWithLoop(t *testing.T) {
	t.Parallel()
	seen := map[acl.Verdict]int{}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		allow, deny := randomPrefixes(r, r.IntN(40)), randomPrefixes(r, r.IntN(10))
		n := acl.NewNetworks(allow, deny)
		for range 200 {
			addr := randomAddr(r)
			if all := slices.Concat(allow, deny); len(all) > 0 && r.IntN(2) == 0 {
				addr = nearEdge(r, all[r.IntN(len(all))])
			}
			got, want := n.Judge(addr), naive(allow, deny, addr)
			if got != want {
				t.Fatalf("seed %d: %v has verdict %d, want %d, by allow %v deny %v", seed, addr, got, want, allow, deny)
			}
			seen[got]++
		}
	}
	for _, v := range []acl.Verdict{acl.NotAllowed, acl.Denied, acl.Allowed} {
		if seen[v] < 1000 {
			t.Errorf("verdict %d was only tried %d times", v, seen[v])
		}
	}
}

// randomAddr has few values a byte, so that addresses and prefixes meet.
func randomAddr(r *rand.Rand) netip.Addr {
	b := make([]byte, 16)
	for i := range b {
		b[i] = []byte{0, 0, 1, 10, 127, 128, 255}[r.IntN(7)]
	}
	switch r.IntN(4) {
	case 0:
		a, _ := netip.AddrFromSlice(b)
		return a
	case 1:
		a, _ := netip.AddrFromSlice(b[:4])
		return netip.AddrFrom16(a.As16()) // as a dual-stack socket reports it
	default:
		a, _ := netip.AddrFromSlice(b[:4])
		return a
	}
}

func randomPrefixes(r *rand.Rand, n int) (out []netip.Prefix) {
	for range n {
		addr := randomAddr(r).Unmap()
		out = append(out, netip.PrefixFrom(addr, r.IntN(addr.BitLen()+1)).Masked())
	}
	return out
}

// nearEdge returns the first or the last address of a prefix, or the one before or behind.
func nearEdge(r *rand.Rand, p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(last); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	addr := []netip.Addr{p.Addr(), end, p.Addr().Prev(), end.Next()}[r.IntN(4)]
	if !addr.IsValid() { // beyond the first or the last address there is
		return p.Addr()
	}
	return addr
}

func BenchmarkJudge(b *testing.B) {
	for _, size := range []int{1, 100, 10_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			list := make([]netip.Prefix, size)
			for i := range list {
				addr := netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
				list[i] = netip.PrefixFrom(addr, 8+r.IntN(25)).Masked()
			}
			n := acl.NewNetworks(list, list[:size/10])
			addrs := make([]netip.Addr, 1024)
			for i := range addrs {
				addrs[i] = netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				n.Judge(addrs[i&1023])
				i++
			}
		})
	}
}

// Prefixes and Admitted hold the addresses that Judge speaks of, at the edges of every network, too, and no network
// that another one of them holds.
func TestNetworksInOtherWords(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		allow, deny := nested(rnd, rnd.IntN(6)), nested(rnd, rnd.IntN(6))
		n := acl.NewNetworks(allow, deny)
		allowed, denied := n.Prefixes()
		admitted := n.Admitted()
		for _, list := range [][]netip.Prefix{allowed, denied, admitted} {
			for i, p := range list {
				if p != p.Masked() || i > 0 && p.Overlaps(list[i-1]) || i > 0 && p.Addr().Less(list[i-1].Addr()) {
					t.Fatalf("%v of %v", p, list)
				}
			}
		}
		holds := func(list []netip.Prefix, a netip.Addr) bool {
			return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		for _, p := range slices.Concat(allow, deny, nested(rnd, 4)) {
			for _, a := range edges(p) {
				verdict := n.Judge(a)
				if holds(denied, a) != (verdict == acl.Denied) || holds(allowed, a) != holds(allow, a) || holds(admitted, a) != (verdict == acl.Allowed) {
					t.Fatalf("%v: verdict %v with allow %v, deny %v; but %v, %v, %v", a, verdict, allow, deny, allowed, denied, admitted)
				}
			}
		}
	}
}

// nested returns networks that are likely to hold one another.
func nested(rnd *rand.Rand, n int) (out []netip.Prefix) {
	for range n {
		addr := netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), byte(rnd.IntN(256)), byte(rnd.IntN(256))})
		if rnd.IntN(2) == 0 {
			addr = netip.AddrFrom16([16]byte{0xfd, byte(rnd.IntN(2)), byte(rnd.IntN(256)), 15: byte(rnd.IntN(256))})
		}
		p, _ := addr.Prefix(rnd.IntN(addr.BitLen() + 1))
		out = append(out, p)
	}
	return out
}

// edges are the first and last addresses of a network, and those beside it.
func edges(p netip.Prefix) (out []netip.Addr) {
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < p.Addr().BitLen(); bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	for _, a := range []netip.Addr{p.Addr(), p.Addr().Prev(), end, end.Next()} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	n := acl.NewNetworks([]netip.Prefix{netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("10.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")})
	if got := fmt.Sprint(n.Allowed()); got != "[10.0.0.0/8 fd00::/8]" {
		t.Error(got)
	}
}
