// Package acl decides who may connect. It is data with methods: no I/O, no
// clock, no logging. What no line admits is refused.
package acl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
)

// Networks is a source allowlist: an address may come in if an allowed prefix
// holds it and no denied one does. The zero value admits nobody. It is safe for
// concurrent use.
type Networks struct {
	allow, deny bart.Lite
}

// NewNetworks returns the allowlist of these prefixes, which must come from
// ParsePrefix.
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
	NotAllowed Verdict = iota // no allowed prefix holds the address
	Denied                    // a denied prefix does
	Allowed
)

// Judge says whether addr may come in. An IPv4 address that a dual-stack
// socket reports as ::ffff:10.0.0.1 is judged as 10.0.0.1, and a zone is not
// part of the address.
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

// Allowed returns the networks that may come in, in order, but for those of Denied.
func (n *Networks) Allowed() []netip.Prefix { return slices.Collect(n.allow.AllSorted()) }

// Denied returns the networks that may not, in order.
func (n *Networks) Denied() []netip.Prefix { return slices.Collect(n.deny.AllSorted()) }

// Explain says in words how Judge comes to its verdict: the narrowest network
// that decides.
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

// Prefixes returns the networks that are allowed and those that are denied, in
// order, and of each no more than it takes to hold the same addresses.
func (n *Networks) Prefixes() (allow, deny []netip.Prefix) { return fewest(&n.allow), fewest(&n.deny) }

func fewest(t *bart.Lite) []netip.Prefix {
	c := t.Clone()
	c.Aggregate()
	return slices.Collect(c.AllSorted())
}

// Admitted returns networks that hold the addresses that Judge allows, and no
// others.
func (n *Networks) Admitted() []netip.Prefix {
	var out bart.Lite
	for p := range n.allow.All() {
		n.remain(p, &out)
	}
	return fewest(&out)
}

// remain adds what of a network is not denied: itself, or its halves' remains.
func (n *Networks) remain(p netip.Prefix, out *bart.Lite) {
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
	n.remain(low, out)
	n.remain(netip.PrefixFrom(upper(low), p.Bits()+1), out)
}

// upper is the first address of the network behind the lower half of one.
func upper(low netip.Prefix) netip.Addr {
	b := low.Addr().AsSlice()
	bit := low.Bits() - 1
	b[bit/8] |= 0x80 >> (bit % 8)
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// ParsePrefix reads a network as an operator writes it: a CIDR, or a single
// address. Bits behind the mask are a mistake, as in PostgreSQL's cidr type:
// 10.0.0.5/8 may have been meant as either. An IPv4-mapped network becomes the
// IPv4 one, because that is how addresses are judged.
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
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its mask; write %s for the network or %s for the one address", s, p.Masked(), p.Addr())
	}
	return p, nil
}

// prefixMistake keeps the last part of netip's message, which says what is
// wrong; the rest repeats the input.
func prefixMistake(err error) string {
	msg := err.Error()
	if i := strings.LastIndex(msg, "): "); i >= 0 {
		msg = msg[i+3:]
	}
	return strings.TrimPrefix(msg, "netip.")
}
