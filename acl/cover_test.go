package acl_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgwicket/acl"
)

// shadows are the numbers of the rules that nothing reaches, as "rule by earlier rule".
func shadows(rules *acl.Rules) (out []string) {
	for _, s := range rules.Shadowed() {
		out = append(out, fmt.Sprintf("%d by %d", slices.Index(rules.All(), s.Rule), slices.Index(rules.All(), s.By)))
	}
	return out
}

func TestShadowed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, earlier, later string
		want                 bool
	}{
		{"the same again", "users: [a]", "users: [a]", true},
		{"an action of its own", "users: [a]", "users: [a], action: reject, replication: none", true},
		{"another user", "users: [a]", "users: [b]", false},
		{"a user of several", "users: [a, b]", "users: [b]", true},
		{"several of which one is new", "users: [a, b]", "users: [b, c]", false},
		{"everybody behind one", "users: [a]", "", false},
		{"one behind everybody", "users: [all]", "users: [a]", true},
		{"a glob", "users: ['a*']", "users: [abc]", true},
		{"a glob behind a name", "users: [abc]", "users: ['a*']", false},
		{"an expression", `users: ['/^a.*$']`, "users: [abc]", true},
		{"the same expression", `users: ['/^a.*$']`, `users: ['/^a.*$']`, true},
		{"a narrower network", "sources: [10.0.0.0/8]", "sources: [10.1.0.0/16, 10.2.3.4]", true},
		{"a wider network", "sources: [10.1.0.0/16]", "sources: [10.0.0.0/8]", false},
		{"any network behind one", "sources: [10.1.0.0/16]", "users: [a]", false},
		{"a listener of several", "listeners: ['10.0.0.5:5432', '10.0.0.6:5432']", "listeners: ['10.0.0.5:5432']", true},
		{"any listener behind one", "listeners: ['10.0.0.5:5432']", "users: [a]", false},
		{"a database", "databases: [shop, sameuser]", "databases: [sameuser], users: [a]", true},
		{"a database that sameuser may not be", "databases: [shop]", "databases: [sameuser]", false},
		{"more of the certificate", "certificate: {cn: all}", "certificate: {cn: a, dns: b}", true},
		{"less of the certificate", "certificate: {cn: a, dns: b}", "certificate: {cn: a}", false},
		{"another kind of name", "certificate: {cn: all}", "certificate: {dns: b}", false},
		{"no certificate", "certificate: {cn: all}", "users: [a]", false},
		{"a server name", "sni: ['*.example.com']", "sni: [a.example.com]", true},
		{"no server name", "sni: ['*.example.com']", "users: [a]", false},
		{"physical replication is left over", "", "replication: physical, users: [a]", false},
		{"and is not", "action: reject", "replication: physical, users: [a]", true},
		{"one kind of session", "replication: none", "users: [a]", false},
		{"a superuser is left over", "users: [all]", "users: [root]", false},
		{"a superuser is named", "users: [all, root]", "users: [root]", true},
		{"a reject of all who are left over", "users: [all]", "action: reject, replication: none", false},
		{"a reject of none who are left over", "users: [all]", "users: ['z*'], action: reject, replication: none", true},
		{"samename", "users: [samename]", "users: [samename], databases: [a]", true},
		{"the same group", "users: [+a]", "users: [+a], databases: [a]", true},
		{"one group of two", "users: [+a, +b]", "users: [+b]", true},
		{"another group", "users: [+a]", "users: [+b]", false},
		{"the group of another backend", "users: [+a]", "users: [+a], backend: b", false},
		{"the same group of another backend", "users: [+a], backend: b", "users: [+a], databases: [a], backend: b", true},
		{"a group behind everybody", "users: [all]", "users: [+root]", true},
		{"a group behind everybody of another backend", "users: [all]", "users: [+a], backend: b", true},
		{"the role of a group", "users: [+a]", "users: [a]", false},
		{"a reject of a group", "action: reject, users: [+a]", "users: [+a]", true},
		{"a reject of a group that may not be known", "users: [+a]", "action: reject, users: [+a]", false},
		{"samename behind a name", "users: [a]", "users: [samename]", false},
		{
			"the same template", `users: ['\1'], certificate: {cn: '/^(.*)@x$'}`,
			`users: ['\1'], databases: [a], certificate: {cn: '/^(.*)@x$'}`, true,
		},
		{
			"a template of another name", `users: ['\1'], certificate: {cn: '/^(.*)$'}`,
			`users: ['\1'], certificate: {cn: bob, dns: '/^(.*)$'}`, false,
		},
		{"a template of another group", `users: ['\1'], certificate: {cn: '/^(.*)@x$'}`, `users: ['\1'], certificate: {cn: '/^(.*)$'}`, false},
	} {
		list := options(t, c.earlier, c.later)
		rules, problems := acl.NewRules(list, listeners, superusers)
		if rules == nil {
			t.Fatalf("%s: %v", c.what, problems)
		}
		if got := len(rules.Shadowed()) > 0; got != c.want {
			t.Errorf("%s: %q behind %q is shadowed: %t", c.what, c.later, c.earlier, got)
		}
	}
}

// Whatever is asked, a rule that is called unreachable does not decide; and it is called so not only where nothing
// would fit it anyway.
func TestShadowedDecidesNothing(t *testing.T) {
	t.Parallel()
	t.Logf("-seed=%d", seed())
	r := modelRand{rand.New(rand.NewPCG(seed(), 1))}
	names := []string{"root", "abb"}
	found, fitting := 0, 0
	for found < 1_500 {
		list := []acl.RuleOptions{r.rule(), r.rule()}
		if r.IntN(3) == 0 {
			list = append(list, narrower(r, list[r.IntN(2)]))
		}
		rules, _ := acl.NewRules(list, listeners, names)
		if rules == nil || len(rules.Shadowed()) == 0 {
			continue
		}
		found++
		for range 60 {
			q := r.request()
			decides := rules.Decide(q)
			for _, s := range rules.Shadowed() {
				if s.Rule == decides {
					t.Fatalf("-seed=%d: shadowed (%v), and decides on %+v\nof %+v:\n%+v", seed(), shadows(rules), *q, q.Certificate, list)
				}
				at := slices.Index(rules.All(), s.Rule)
				if modelDecides(list[at:at+1], names, q) == 0 {
					fitting++
				}
			}
		}
	}
	if fitting < 1_000 {
		t.Errorf("-seed=%d: only %d requests would have fitted the %d rules", seed(), fitting, found)
	}
}

// narrower returns a rule with a condition more.
func narrower(r modelRand, o acl.RuleOptions) acl.RuleOptions {
	switch more := r.rule(); r.IntN(4) {
	case 0:
		o.Databases = more.Databases
	case 1:
		o.SNI = more.SNI
	case 2:
		o.Certificate.URI = more.Certificate.URI
	case 3:
		o.Action, o.Users = more.Action, slices.DeleteFunc(more.Users, func(u string) bool { return strings.Contains(u, `\1`) })
	}
	return o
}

// A rule that asks for any certificate admits its users for each, unless it takes the user from it.
func TestMayAdmitUnbound(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]bool{
		"users: [app]":                         true,
		"users: ['a*']":                        true,
		"users: [+staff]":                      true,
		"":                                     true,
		"users: [app], certificate: {cn: '*'}": true,
		"users: [app], certificate: {issuer: 'CN=Staff CA'}": true,
		"users: [+staff], certificate: {cn: '/^ops-.*$'}":    true,
		"users: [samename, app]":                             true,
		"users: [samename]":                                  false,
		`users: ['\1'], certificate: {cn: '/^(.*)@x$'}`:      false,
		"users: [app], certificate: {cn: shop}":              false,
		"users: [+staff], certificate: {dns: a.example.com}": false,
		"users: [other]":                                     false,
		"users: [app], action: reject":                       false,
	} {
		rules := newRules(t, rule)
		if got := rules.MayAdmitUnbound("app") != nil; got != want {
			t.Errorf("%s: %v", rule, got)
		}
	}
	if newRules(t, "users: [all]").MayAdmitUnbound("root") != nil {
		t.Error("a superuser that no rule names")
	}
}
