package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgwicket/acl"
	"pgwicket/proxy"
)

const nftTableName = "pgwicket"

// nftTable is the table inet pgwicket, as far as it decides: the rules of each
// chain, and the addresses of each set. It is what is printed, and what the kernel's
// is compared with.
type nftTable struct {
	sets   []nftSet
	chains []nftChain
}

type nftSet struct {
	name     string
	elements []netip.Prefix
	spans    []span // the same, as both nft and we come to it
}

type nftChain struct {
	name  string
	base  string // where the kernel calls it; empty: other chains do
	rules []string
	about string
}

// nftRules returns the table for a policy as nft reads it. action is rejects or
// drops.
func nftRules(p *proxy.Policy, listeners []string, action string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Made by «pgwicket firewall» from the configuration: make it anew when that changes.
# The first two lines take away the table of before, if there is one.
table inet %[1]s
delete table inet %[1]s

table inet %[1]s {
`, nftTableName)
	t := nftTableOf(p, listeners, action)
	for _, s := range t.sets {
		fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n\t\tflags interval\n\t\tauto-merge\n", s.name, s.kind())
		if len(s.elements) > 0 {
			b.WriteString("\t\telements = {\n")
			for _, e := range s.elements {
				fmt.Fprintf(&b, "\t\t\t%v,\n", e)
			}
			b.WriteString("\t\t}\n")
		}
		b.WriteString("\t}\n")
	}
	for _, c := range t.chains {
		fmt.Fprintf(&b, "\n\t# %s\n\tchain %s {\n", c.about, c.name)
		if c.base != "" {
			fmt.Fprintf(&b, "\t\t%s\n", c.base)
		}
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// kind is nft's type of a set, which its name ends with.
func (s nftSet) kind() string {
	if strings.HasSuffix(s.name, "6") {
		return "ipv6_addr"
	}
	return "ipv4_addr"
}

// nftTableOf makes the table. Every packet is judged by itself, so that sessions end
// with the permission for them, and no memory of connections can overflow.
func nftTableOf(p *proxy.Policy, listeners []string, action string) (t nftTable) {
	refuse := "counter drop"
	if action == rejects {
		refuse = "meta l4proto tcp counter reject with tcp reset"
	}
	allowed, denied := p.Networks.Prefixes()
	t.add("allow", allowed)
	t.add("deny", denied)
	t.chains = []nftChain{{name: "refuse", about: "Who is not let in.", rules: []string{refuse}}, {
		name: "sources", about: "acl.deny wins over acl.allow.", rules: []string{
			"ip saddr @deny4 goto refuse", "ip6 saddr @deny6 goto refuse",
			"ip saddr @allow4 accept", "ip6 saddr @allow6 accept", "goto refuse",
		},
	}}
	input := nftChain{
		name: "input", base: "type filter hook input priority filter; policy accept;", rules: []string{`iif "lo" accept`},
		about: "What this machine sends to itself is the gate's to judge.",
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

// addBalancers lets those in that speak for others, whom the gate asks for their
// header, and has all others judged as ever.
func (t *nftTable) addBalancers(name, listener string, from *acl.Networks) {
	t.add(name+"_from", from.Admitted())
	t.chains = append(t.chains, nftChain{
		name: name, about: listener + ": its load balancers first.",
		rules: []string{"ip saddr @" + name + "_from4 accept", "ip6 saddr @" + name + "_from6 accept", "goto sources"},
	})
}

// add makes a set of each family.
func (t *nftTable) add(name string, networks []netip.Prefix) {
	four, six := nftSet{name: name + "4"}, nftSet{name: name + "6"}
	for _, p := range networks {
		if p.Addr().Is4() {
			four.elements = append(four.elements, p)
		} else {
			six.elements = append(six.elements, p)
		}
	}
	for _, s := range []nftSet{four, six} {
		for _, p := range s.elements {
			s.spans = append(s.spans, spanOf(p))
		}
		s.spans = merged(s.spans)
		t.sets = append(t.sets, s)
	}
}

// wildcardsLast puts the listeners in the kernel's order: one that has the address
// gets the connection.
func wildcardsLast(listeners []string) []string {
	return slices.SortedStableFunc(slices.Values(listeners), func(a, b string) int {
		return cmp.Compare(wildness(a), wildness(b))
	})
}

func wildness(listener string) int {
	switch ap := netip.MustParseAddrPort(listener); ap.Addr() {
	case netip.IPv4Unspecified():
		return 1
	case netip.IPv6Unspecified():
		return 2
	}
	return 0
}

// destination matches what is for a listener. [::] takes IPv4, too.
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

// span is the addresses from one to another.
type span struct{ first, last netip.Addr }

func spanOf(p netip.Prefix) span {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return span{p.Masked().Addr(), last}
}

func (s span) String() string {
	if s.first == s.last {
		return s.first.String()
	}
	return s.first.String() + "-" + s.last.String()
}

// merged is the fewest spans of the same addresses, in order.
func merged(spans []span) (out []span) {
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	for _, s := range spans {
		if n := len(out); n > 0 && (s.first.Compare(out[n-1].last) <= 0 || out[n-1].last.Next() == s.first) {
			if s.last.Compare(out[n-1].last) > 0 {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// nftDifferences says what of the table that nft has listed, as JSON, is not as
// the policy has it. Whether others are rejected or dropped is left to whoever has
// loaded it.
func nftDifferences(p *proxy.Policy, listeners []string, kernel []byte) ([]string, error) {
	has, err := readNFT(kernel)
	if err != nil {
		return nil, fmt.Errorf("nft has printed something unexpected: %w", err)
	}
	found := has.differences(nftTableOf(p, listeners, rejects))
	if others := has.differences(nftTableOf(p, listeners, drops)); len(others) < len(found) {
		return others, nil
	}
	return found, nil
}

// differences says where t is not as it should be.
func (t nftTable) differences(should nftTable) (found []string) {
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, s := range should.sets {
		i := slices.IndexFunc(t.sets, func(o nftSet) bool { return o.name == s.name })
		if i < 0 {
			add("set %s is missing", s.name)
			continue
		}
		if less := lacks(t.sets[i].spans, s.spans); len(less) > 0 {
			add("set %s lacks %s", s.name, spelt(less))
		}
		if more := lacks(s.spans, t.sets[i].spans); len(more) > 0 {
			add("set %s has %s besides", s.name, spelt(more))
		}
	}
	for _, c := range should.chains {
		i := slices.IndexFunc(t.chains, func(o nftChain) bool { return o.name == c.name })
		switch {
		case i < 0:
			add("chain %s is missing", c.name)
		case t.chains[i].base != c.base:
			add("chain %s is «%s» and not «%s»", c.name, t.chains[i].base, c.base)
		case !slices.Equal(t.chains[i].rules, c.rules):
			add("chain %s has the rules «%s» and not «%s»", c.name, strings.Join(t.chains[i].rules, "; "), strings.Join(c.rules, "; "))
		}
	}
	for _, c := range t.chains {
		if !slices.ContainsFunc(should.chains, func(o nftChain) bool { return o.name == c.name }) {
			add("chain %s is not ours", c.name)
		}
	}
	return found
}

// lacks returns the spans that are not in a set as they are.
func lacks(set, spans []span) (out []span) {
	in := make(map[span]bool, len(set))
	for _, s := range set {
		in[s] = true
	}
	for _, s := range spans {
		if !in[s] {
			out = append(out, s)
		}
	}
	return out
}

// spelt keeps a list to what a line can hold.
func spelt(spans []span) string {
	var names []string
	for _, s := range spans {
		names = append(names, s.String())
	}
	return strings.Join(listed(names), ", ")
}

// nftObject is one entry of what nft lists.
type nftObject struct {
	Table *struct {
		Flags any `json:"flags"`
	} `json:"table"`
	Set *struct {
		Name string            `json:"name"`
		Elem []json.RawMessage `json:"elem"`
	} `json:"set"`
	Chain *struct {
		Name   string `json:"name"`
		Type   string `json:"type"`
		Hook   string `json:"hook"`
		Prio   int    `json:"prio"`
		Policy string `json:"policy"`
	} `json:"chain"`
	Rule *struct {
		Chain string           `json:"chain"`
		Expr  []map[string]any `json:"expr"`
	} `json:"rule"`
}

// readNFT reads a table that nft has listed.
func readNFT(text []byte) (t nftTable, err error) {
	var listing struct {
		Objects []nftObject `json:"nftables"`
	}
	if err := json.Unmarshal(text, &listing); err != nil {
		return t, err
	}
	rules := make(map[string][]string)
	for _, o := range listing.Objects {
		switch {
		case o.Table != nil && o.Table.Flags != nil:
			rules["input"] = append(rules["input"], fmt.Sprintf("(the table has the flags %v)", o.Table.Flags))
		case o.Set != nil:
			s := nftSet{name: o.Set.Name}
			for _, e := range o.Set.Elem {
				one, err := readSpan(e)
				if err != nil {
					return t, fmt.Errorf("set %s: %w", s.name, err)
				}
				s.spans = append(s.spans, one)
			}
			s.spans = merged(s.spans)
			t.sets = append(t.sets, s)
		case o.Chain != nil:
			c := nftChain{name: o.Chain.Name}
			if o.Chain.Hook != "" {
				c.base = fmt.Sprintf("type %s hook %s priority %d; policy %s;", o.Chain.Type, o.Chain.Hook, o.Chain.Prio, o.Chain.Policy)
				c.base = strings.Replace(c.base, "priority 0;", "priority filter;", 1)
			}
			t.chains = append(t.chains, c)
		case o.Rule != nil:
			rules[o.Rule.Chain] = append(rules[o.Rule.Chain], ruleText(o.Rule.Expr))
		}
	}
	for i, c := range t.chains {
		t.chains[i].rules = rules[c.name]
	}
	return t, nil
}

// readSpan reads an element: an address, a prefix or a range.
func readSpan(text json.RawMessage) (span, error) {
	var one netip.Addr
	if json.Unmarshal(text, &one) == nil {
		return span{one, one}, nil
	}
	var e struct {
		Prefix *struct {
			Addr netip.Addr `json:"addr"`
			Len  int        `json:"len"`
		} `json:"prefix"`
		Range []netip.Addr `json:"range"`
	}
	switch err := json.Unmarshal(text, &e); {
	case err != nil:
		return span{}, err
	case e.Prefix != nil:
		return spanOf(netip.PrefixFrom(e.Prefix.Addr, e.Prefix.Len)), nil
	case len(e.Range) == 2:
		return span{e.Range[0], e.Range[1]}, nil
	}
	return span{}, fmt.Errorf("%s is no address", text)
}

// ruleText writes a rule as it stands in nftRules. What that never has is written
// as JSON, and equals nothing.
func ruleText(expr []map[string]any) string {
	var words []string
	for _, e := range expr {
		for name, value := range e {
			words = append(words, expressionText(name, value))
		}
	}
	return strings.Join(words, " ")
}

func expressionText(name string, value any) string {
	m, _ := value.(map[string]any)
	switch {
	case name == "counter":
		return name // whatever it has counted
	case name == "accept" || name == "drop":
		return name
	case name == "goto":
		return fmt.Sprint("goto ", m["target"])
	case name == "reject" && len(m) == 1 && m["type"] == "tcp reset":
		return "reject with tcp reset"
	case name == "match" && m["op"] == "==":
		left, _ := m["left"].(map[string]any)
		payload, _ := left["payload"].(map[string]any)
		meta, _ := left["meta"].(map[string]any)
		switch {
		case meta["key"] == "iif":
			return fmt.Sprintf("iif %q", m["right"])
		case meta != nil:
			return fmt.Sprintf("meta %v %v", meta["key"], m["right"])
		case payload != nil:
			return fmt.Sprintf("%v %v %v", payload["protocol"], payload["field"], m["right"])
		}
	}
	text, _ := json.Marshal(map[string]any{name: value})
	return string(text)
}
