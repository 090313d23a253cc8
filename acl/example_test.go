package acl_test

import (
	"fmt"
	"net/netip"

	"pgwicket/acl"
)

func ExampleNetworks() {
	var allow, deny []netip.Prefix
	for _, text := range []string{"10.20.0.0/16", "fd00::/8"} {
		p, err := acl.ParsePrefix(text)
		if err != nil {
			fmt.Println(err)
			return
		}
		allow = append(allow, p)
	}
	deny = append(deny, netip.MustParsePrefix("10.20.9.0/24"))

	networks := acl.NewNetworks(allow, deny)
	for _, text := range []string{"10.20.1.7", "::ffff:10.20.1.7", "10.20.9.1", "192.0.2.1"} {
		addr := netip.MustParseAddr(text)
		fmt.Println(addr, networks.Judge(addr) == acl.Allowed, networks.Explain(addr))
	}
	// Output:
	// 10.20.1.7 true allowed by 10.20.0.0/16 of acl.allow
	// ::ffff:10.20.1.7 true allowed by 10.20.0.0/16 of acl.allow
	// 10.20.9.1 false denied by 10.20.9.0/24 of acl.deny
	// 192.0.2.1 false in no network of acl.allow
}

func ExampleParsePrefix() {
	_, err := acl.ParsePrefix("10.0.0.5/8")
	fmt.Println(err)
	// Output: "10.0.0.5/8" has bits set to the right of its mask; write 10.0.0.0/8 for the network or 10.0.0.5 for the address
}

// A certificate with an address in example.com admits the user of the same name, but
// never a superuser.
func ExampleRules_Decide() {
	rules, problems := acl.NewRules([]acl.RuleOptions{
		{Name: "no admin outside", Action: "reject", Users: []string{"admin"}},
		{Name: "people", Action: "allow", Users: []string{`\1`}, Certificate: acl.CertificateOptions{Email: `/^([a-z]+)@example\.com$`}},
	}, []string{"10.0.0.5:5432"}, []string{"postgres"})
	if rules == nil {
		fmt.Println(problems)
		return
	}
	for _, user := range []string{"alice", "bob", "admin", "postgres"} {
		rule := rules.Decide(&acl.Request{
			Source:      netip.MustParseAddr("10.20.1.7"),
			Listener:    "10.0.0.5:5432",
			User:        user,
			Database:    "shop",
			Certificate: &acl.Identity{Email: []string{"alice@example.com"}},
		})
		if rule == nil {
			fmt.Println(user, "no rule matches")
			continue
		}
		fmt.Println(user, rule.Name, rule.Allow)
	}
	// Output:
	// alice people true
	// bob no rule matches
	// admin no admin outside false
	// postgres no rule matches
}

func ExampleRules_Trace() {
	rules, _ := acl.NewRules([]acl.RuleOptions{
		{Name: "office", Action: "allow", Users: []string{"app"}, Sources: []string{"10.30.0.0/16"}},
		{Name: "app", Action: "allow", Users: []string{"app"}, Databases: []string{"shop_*"}},
	}, nil, nil)
	for _, step := range rules.Trace(&acl.Request{Source: netip.MustParseAddr("10.20.1.7"), User: "app", Database: "shop_2026"}) {
		if step.Mismatch != "" {
			fmt.Printf("%s does not match: %s\n", step.Rule.Name, step.Mismatch)
			continue
		}
		fmt.Printf("%s decides, allow is %v\n", step.Rule.Name, step.Rule.Allow)
	}
	// Output:
	// office does not match: 10.20.1.7 is not in its sources
	// app decides, allow is true
}
