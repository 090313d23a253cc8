package acl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
)

// Networks is a source allowlist: an address is admitted if an allowed prefix
// contains it and no denied prefix does. The zero value admits nobody. It is
// immutable and safe for concurrent use.
type Networks struct {
	allow, deny bart.Lite
}

// NewNetworks returns the allowlist of these prefixes, which must come from
// ParsePrefix. deny takes precedence over allow.
func NewNetworks(allow, deny []netip.Prefix) *Networks {
	n := new(Networks)
	for _, p := range allow {
		n.allow.Insert(p)
	}
	for _, p := range deny {
		n.deny.Insert(p)
	}
	return n
}

// Verdict says how an allowlist judged an address.
type Verdict uint8

// The verdicts of an allowlist.
const (
	NotAllowed Verdict = iota // no allowed prefix contains the address
	Denied                    // a denied prefix contains it
	Allowed
)

// Judge decides on addr. An IPv4 address that a dual-stack socket reports as
// ::ffff:10.0.0.1 is judged as 10.0.0.1, and a zone is ignored.
func (n *Networks) Judge(addr netip.Addr) Verdict {
	addr = addr.Unmap().WithZone("")
	switch {
	case n.deny.Contains(addr):
		return Denied
	case n.allow.Contains(addr):
		return Allowed
	}
	return NotAllowed
}

// Allowed returns the allowed networks in order. Denied may contain parts of them.
func (n *Networks) Allowed() []netip.Prefix { return slices.Collect(n.allow.AllSorted()) }

// Denied returns the denied networks in order.
func (n *Networks) Denied() []netip.Prefix { return slices.Collect(n.deny.AllSorted()) }

// Explain describes why Judge returns its verdict: it names the longest prefix
// that contains addr.
func (n *Networks) Explain(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	host := netip.PrefixFrom(addr, addr.BitLen())
	if p, ok := n.deny.LookupPrefixLPM(host); ok {
		return fmt.Sprintf("denied by %v of acl.deny", p)
	}
	if p, ok := n.allow.LookupPrefixLPM(host); ok {
		return fmt.Sprintf("allowed by %v of acl.allow", p)
	}
	return "in no network of acl.allow"
}

// Prefixes returns the allowed and the denied networks in order, each aggregated to
// the fewest prefixes with the same addresses.
func (n *Networks) Prefixes() (allow, deny []netip.Prefix) {
	return aggregate(&n.allow), aggregate(&n.deny)
}

func aggregate(t *bart.Lite) []netip.Prefix {
	c := t.Clone()
	c.Aggregate()
	return slices.Collect(c.AllSorted())
}

// Admitted returns the fewest networks that contain exactly the addresses that
// Judge allows.
func (n *Networks) Admitted() []netip.Prefix {
	var out bart.Lite
	for p := range n.allow.All() {
		n.addUndenied(p, &out)
	}
	return aggregate(&out)
}

// addUndenied adds the parts of p that are not denied to out.
func (n *Networks) addUndenied(p netip.Prefix, out *bart.Lite) {
	if n.deny.LookupPrefix(p) {
		return
	}
	denied := false
	for range n.deny.Subnets(p) {
		denied = true
		break
	}
	if !denied {
		out.Insert(p)
		return
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	n.addUndenied(low, out)
	n.addUndenied(netip.PrefixFrom(upperHalf(low), p.Bits()+1), out)
}

// upperHalf returns the first address after low, the lower half of a network.
func upperHalf(low netip.Prefix) netip.Addr {
	b := low.Addr().AsSlice()
	bit := low.Bits() - 1
	b[bit/8] |= 0x80 >> (bit % 8)
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// ParsePrefix reads a network in CIDR notation or a single address. Host bits
// right of the mask are an error, as in PostgreSQL's cidr type: 10.0.0.5/8 may
// mean the network or the address. An IPv4-mapped network becomes the IPv4 one,
// because addresses are judged in that form.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		if addr, err := netip.ParseAddr(s); err == nil {
			if addr.Zone() != "" {
				return netip.Prefix{}, fmt.Errorf("%q has a zone, which is not part of an address; write %s", s, addr.WithZone(""))
			}
			addr = addr.Unmap()
			return netip.PrefixFrom(addr, addr.BitLen()), nil
		}
	}
	p, err := netip.ParsePrefix(s)
	if before, rest, found := strings.Cut(s, "%"); err != nil && found {
		_, bits, _ := strings.Cut(rest, "/")
		return netip.Prefix{}, fmt.Errorf("%q has a zone, which is not part of a network; write %s/%s", s, before, bits)
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network; write it like 10.20.0.0/16, 192.0.2.7 or fd00::/8 (%s)", s, prefixMistake(err))
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q spans more than the IPv4-mapped addresses; write the IPv4 network", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set to the right of its mask; write %s for the network or %s for the address", s, p.Masked(), p.Addr())
	}
	return p, nil
}

// prefixMistake keeps the last part of netip's message; the rest repeats the
// input.
func prefixMistake(err error) string {
	msg := err.Error()
	if i := strings.LastIndex(msg, "): "); i >= 0 {
		msg = msg[i+3:]
	}
	return strings.TrimPrefix(msg, "netip.")
}
