// Package nftables writes the allowlist of a policy as a table of the kernel's
// firewall, and compares the table that the kernel has with it. The kernel then
// refuses a source before it costs the gate a connection; the gate judges it all the
// same.
//
// nft prints sets in its own way (ranges, merged neighbours), so tables are compared
// by meaning: the addresses of the sets, and rules in one spelling. The package may
// import proxy and acl, whose networks it writes.
package nftables

import (
	"fmt"
	"net/netip"
	"strings"

	"pgwicket/proxy"
)

const tableName = "pgwicket"

// The actions on a source that is not allowed.
const (
	Reject = "reject" // with a TCP reset
	Drop   = "drop"
)

// table is the table inet pgwicket as far as it decides on packets: the rules of each
// chain and the addresses of each set.
type table struct {
	sets   []set
	chains []chain
}

type set struct {
	name     string
	elements []netip.Prefix
	spans    []span // the same addresses, in a form that can be compared
}

type chain struct {
	name  string
	base  string // its hook; empty: other chains go to it
	rules []string
	about string // a comment
}

// Rules returns the table for a policy and the addresses of its listeners, for
// nft -f. action is Reject or Drop.
func Rules(p *proxy.Policy, listeners []string, action string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Made by "pgwicket firewall" from the configuration. Run it again when that changes.
# The first two lines delete the previous table, if there is one.
table inet %[1]s
delete table inet %[1]s

table inet %[1]s {
`, tableName)
	t := tableOf(p, listeners, action)
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
func (s set) kind() string {
	if strings.HasSuffix(s.name, "6") {
		return "ipv6_addr"
	}
	return "ipv4_addr"
}
