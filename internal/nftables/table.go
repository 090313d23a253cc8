package nftables

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"pgwicket/acl"
	"pgwicket/proxy"
)

// tableOf builds the table. It judges each packet by the lists alone: a session ends
// when its permission does, and no connection table can overflow.
func tableOf(p *proxy.Policy, listeners []string, action string) (t table) {
	refuse := "counter drop"
	if action == Reject {
		refuse = "meta l4proto tcp counter reject with tcp reset"
	}
	allowed, denied := p.Networks.Prefixes()
	t.add("allow", allowed)
	t.add("deny", denied)
	t.chains = []chain{{name: "refuse", about: "Sources that are not allowed.", rules: []string{refuse}}, {
		name: "sources", about: "acl.deny wins over acl.allow.", rules: []string{
			"ip saddr @deny4 goto refuse", "ip6 saddr @deny6 goto refuse",
			"ip saddr @allow4 accept", "ip6 saddr @allow6 accept", "goto refuse",
		},
	}}
	input := chain{
		name: "input", base: "type filter hook input priority filter; policy accept;", rules: []string{`iif "lo" accept`},
		about: "The gate itself judges what this machine sends to itself.",
	}
	for i, listener := range wildcardsLast(listeners) {
		next := "sources"
		if from := p.Proxies[listener]; from != nil {
			next = fmt.Sprintf("listener%d", i+1)
			t.addBalancers(next, listener, from)
		}
		input.rules = append(input.rules, destination(listener)+" goto "+next)
	}
	t.chains = append(t.chains, input)
	return t
}

// addBalancers accepts the load balancers of a listener, of which the gate requires a
// PROXY header, and has all other sources judged.
func (t *table) addBalancers(name, listener string, from *acl.Networks) {
	t.add(name+"_from", from.Admitted())
	t.chains = append(t.chains, chain{
		name: name, about: listener + ": its load balancers.",
		rules: []string{"ip saddr @" + name + "_from4 accept", "ip6 saddr @" + name + "_from6 accept", "goto sources"},
	})
}

// add adds a set for each address family.
func (t *table) add(name string, networks []netip.Prefix) {
	four, six := set{name: name + "4"}, set{name: name + "6"}
	for _, p := range networks {
		if p.Addr().Is4() {
			four.elements = append(four.elements, p)
		} else {
			six.elements = append(six.elements, p)
		}
	}
	for _, s := range []set{four, six} {
		for _, p := range s.elements {
			s.spans = append(s.spans, spanOf(p))
		}
		s.spans = merge(s.spans)
		t.sets = append(t.sets, s)
	}
}

// wildcardsLast sorts listeners as the kernel prefers them: one with the exact
// address gets the connection.
func wildcardsLast(listeners []string) []string {
	return slices.SortedStableFunc(slices.Values(listeners), func(a, b string) int {
		return cmp.Compare(wildcardRank(a), wildcardRank(b))
	})
}

func wildcardRank(listener string) int {
	switch ap := netip.MustParseAddrPort(listener); ap.Addr() {
	case netip.IPv4Unspecified():
		return 1
	case netip.IPv6Unspecified():
		return 2
	}
	return 0
}

// destination matches the packets for a listener. [::] accepts IPv4, too.
func destination(listener string) string {
	ap := netip.MustParseAddrPort(listener)
	port := fmt.Sprintf("tcp dport %d", ap.Port())
	switch {
	case ap.Addr() == netip.IPv6Unspecified():
		return port
	case ap.Addr() == netip.IPv4Unspecified():
		return "meta nfproto ipv4 " + port
	case ap.Addr().Is4():
		return fmt.Sprintf("ip daddr %v %s", ap.Addr(), port)
	}
	return fmt.Sprintf("ip6 daddr %v %s", ap.Addr().WithZone(""), port)
}
