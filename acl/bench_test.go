package acl_test

import (
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"testing"

	"pgwicket/acl"
)

// teams are n rules as they are written for real, each for a team with its networks, databases, roles and certificate, of
// which the last is the one for the request.
func teams(tb testing.TB, n int) (*acl.Rules, *acl.Request) {
	tb.Helper()
	var options []acl.RuleOptions
	for i := range n {
		team := fmt.Sprintf("team%05d", i)
		o := acl.RuleOptions{Name: team, Action: "allow", Databases: []string{team, team + "_*"}, Users: []string{team, team + "_ro"}}
		switch i % 4 {
		case 0:
			o.Sources = []string{fmt.Sprintf("10.%d.%d.0/24", i>>8&0xff, i&0xff), fmt.Sprintf("fd00:%x::/48", i)}
			o.Certificate.CN = team
		case 1:
			o.Certificate.DN = "CN=*,OU=" + team + ",O=Example"
		case 2:
			o.Users = []string{`\1`}
			o.Certificate.Email = `/^([a-z]+)@` + team + `\.example\.com$`
		case 3:
			o.Certificate.URI = "spiffe://example.com/ns/" + team + "/sa/*"
			o.SNI = []string{team + ".db.example.com"}
		}
		options = append(options, o)
	}
	options[n-1] = acl.RuleOptions{
		Action: "allow", Sources: []string{"10.20.0.0/16"}, Databases: []string{"shop", "shop_*"}, Users: []string{"samename"},
		Certificate: acl.CertificateOptions{CN: "app_*"},
	}
	rules, problems := acl.NewRules(options, nil, []string{"postgres"})
	if rules == nil {
		tb.Fatal(problems)
	}
	return rules, &acl.Request{
		Source: netip.MustParseAddr("10.20.1.7"), User: "app_17", Database: "shop_eu", SNI: "shop.db.example.com",
		Certificate: &acl.Identity{
			CN: "app_17", DN: "CN=app_17,OU=shop,O=Example", Issuer: "CN=Example CA,O=Example", SPKI: pin,
			DNS: []string{"app17.shop.example.com", "app17.example.com"}, Email: []string{"app@shop.example.com"}, URI: []string{"spiffe://example.com/ns/shop/sa/app"},
		},
	}
}

// BenchmarkRules is what a session pays before it is let in, and again at each recheck.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rules, q := teams(b, n)
			if rules.Decide(q) != rules.All()[n-1] {
				b.Fatal("the last rule does not decide")
			}
			b.ReportAllocs()
			for b.Loop() {
				rules.Decide(q)
			}
		})
	}
}

// A recheck asks for thousands of sessions at once, so to decide must leave nothing for the garbage collector. The one
// thing that does is a name that \1 may well be the user's: package regexp has no other way to tell what a group found.
func TestDecideDoesNotAllocate(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("with the race detector, a sync.Pool, such as package regexp has, loses what it is given at random")
	}
	everything := "users: [alice], databases: ['sh*'], sources: [10.0.0.0/8], listeners: ['10.0.0.5:5432'], sni: [/^d, 'x.*'], " +
		"certificate: {cn: 'a*', dn: '*,O=Firm', issuer: /CN, dns: '*.example', email: '*@x', uri: /^spiffe, spki: '" + pin + "'}"
	ask := `alice/shop sni=db cn=alice dn=CN=a\,O=Firm,O=Firm issuer=CN=ca dns=a.example email=b@y,alice@x uri=spiffe://x spki=` + pin
	for _, c := range []struct {
		what, rule, ask string
		decides         bool
		most            float64
	}{
		{"every condition", everything, ask, true, 0},
		{"an IPv4-mapped address and a zone", everything, ask + " from=::ffff:10.0.0.1%eth0", true, 0},
		{"the last condition", "users: [bob, 'x*', /y]", ask, false, 0},
		{"samename", "users: [samename]", ask, true, 0},
		{"superuser", "users: [all]", "postgres", false, 0},
		{"physical replication", "databases: [all, sameuser]", "alice replication=physical", false, 0},
		{`\1 of another name`, `users: ['\1'], certificate: {email: '/^(.*)@x$'}`, "carol email=alice@x", false, 0},
		{`\1 of another form`, `users: ['app_\1'], certificate: {email: '/^(.*)@x$'}`, "alice email=alice@x", false, 0},
		{`\1`, `users: ['\1'], certificate: {email: '/^(.*)@x$'}`, "alice email=alice@x", true, 2},
		{"upper case in the server name", everything, ask + " sni=DB", true, 2},
	} {
		rules, q := newRules(t, c.rule), request(t, c.ask)
		if decides := rules.Decide(q) != nil; decides != c.decides {
			t.Errorf("%s: decides is %v", c.what, decides)
		}
		if got := testing.AllocsPerRun(100, func() { rules.Decide(q) }); got > c.most {
			t.Errorf("%s: %v allocations", c.what, got)
		}
	}
}
