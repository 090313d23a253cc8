package acl_test

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"pgwicket/acl"
)

var (
	listeners  = []string{"10.0.0.5:5432", "10.0.0.6:5432", "[::]:6432"}
	superusers = []string{"postgres", "root"}
	long       = strings.Repeat("x", 63)
	pin        = strings.Repeat("0123456789abcdef", 4)
)

// options parses rules as in a configuration, without the braces of each. The default action is allow.
func options(t testing.TB, texts ...string) (out []acl.RuleOptions) {
	t.Helper()
	for _, text := range texts {
		o := acl.RuleOptions{Action: "allow"}
		if err := yaml.Unmarshal([]byte("{"+text+"}"), &o); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		out = append(out, o)
	}
	return out
}

func newRules(t testing.TB, texts ...string) *acl.Rules {
	t.Helper()
	rules, problems := acl.NewRules(options(t, texts...), listeners, superusers)
	if rules == nil {
		t.Fatalf("%q: %v", texts, problems)
	}
	return rules
}

// request parses "user/database key=value ...". The default database has the name of the user. A list has commas.
// Any name of a certificate adds a certificate.
func request(t testing.TB, text string) *acl.Request {
	t.Helper()
	words := strings.Fields(text)
	user, database, named := strings.Cut(words[0], "/")
	if !named {
		database = user
	}
	q := &acl.Request{User: user, Database: database, Source: netip.MustParseAddr("10.1.2.3"), Listener: listeners[0]}
	var id acl.Identity
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "from":
			q.Source = netip.MustParseAddr(value)
			continue
		case "on":
			q.Listener = value
			continue
		case "sni":
			q.SNI = value
			continue
		case "replication":
			q.Replication = map[string]acl.Replication{"database": acl.LogicalReplication, "physical": acl.PhysicalReplication}[value]
			continue
		case "certificate": // without any name
		case "cn":
			id.CN = value
		case "dn":
			id.DN = value
		case "issuer":
			id.Issuer = value
		case "spki":
			id.SPKI = value
		case "dns":
			id.DNS = strings.Split(value, ",")
		case "email":
			id.Email = strings.Split(value, ",")
		case "uri":
			id.URI = strings.Split(value, ",")
		default:
			t.Fatalf("%s: %q is no key", text, key)
		}
		q.Certificate = &id
	}
	return q
}

// decision is a request, the rules, and whether they allow it.
type decision struct {
	want  bool
	ask   string
	rules []string
}

func allow(ask string, rules ...string) decision { return decision{true, ask, rules} }
func deny(ask string, rules ...string) decision  { return decision{false, ask, rules} }

func (d decision) check(t *testing.T) {
	t.Helper()
	rules, q := newRules(t, d.rules...), request(t, d.ask)
	rule := rules.Decide(q)
	if got := rule != nil && rule.Allow; got != d.want {
		t.Errorf("%s by %q: allowed is %v, want %v", d.ask, d.rules, got, d.want)
	}
	checkTrace(t, rules, q, rule)
}

// checkTrace compares the steps of Trace with the rule that Decide returns.
func checkTrace(t *testing.T, rules *acl.Rules, q *acl.Request, decided *acl.Rule) {
	t.Helper()
	steps := rules.Trace(q)
	for i, step := range steps {
		if fits := step.Mismatch == ""; step.Rule != rules.All()[i] || fits != (step.Rule == decided) {
			t.Fatalf("step %d of %+v: %v; %v decides", i, *q, steps, decided)
		}
	}
	elsewhere := len(steps) > 0 && strings.HasPrefix(steps[len(steps)-1].Mismatch, "an earlier rule with another backend")
	if n := len(rules.All()); decided == nil && len(steps) != n && !elsewhere {
		t.Fatalf("%+v: %d steps through %d rules that do not match", *q, len(steps), n)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, d := range []decision{
		// The first that fits decides, and without one there is no way in.
		deny("alice"),
		allow("alice", "users: [all]"),
		allow("alice", ""), // which names nothing, and so asks for nothing
		deny("alice", "action: reject"),
		deny("alice", "users: [bob]"),
		deny("alice", "users: [bob]", "users: [carol]"),
		allow("alice", "users: [bob]", "users: [alice]"),
		deny("alice", "users: [alice], action: reject", "users: [alice]"),
		allow("alice", "users: [alice]", "users: [alice], action: reject"),
		allow("alice", "users: [bob], action: reject", "users: [all]"),
		deny("bob", "users: [bob], action: reject", "users: [all]"),
		deny("alice", "action: reject, sources: [10.0.0.0/8]", "users: [alice]"),

		// All the conditions of a rule must be met, by any entry of each.
		allow("alice/shop", "users: [alice, bob], databases: [store, shop]"),
		deny("alice/shop", "users: [alice, bob], databases: [store]"),
		deny("carol/shop", "users: [alice, bob], databases: [store, shop]"),
		allow("alice sni=db from=10.9.9.9 cn=alice", "users: [alice], sni: [db], sources: [10.9.0.0/16], certificate: {cn: alice}"),
		deny("alice sni=db from=10.8.9.9 cn=alice", "users: [alice], sni: [db], sources: [10.9.0.0/16], certificate: {cn: alice}"),
		deny("alice sni=no from=10.9.9.9 cn=alice", "users: [alice], sni: [db], sources: [10.9.0.0/16], certificate: {cn: alice}"),
		deny("alice sni=db from=10.9.9.9 cn=bob", "users: [alice], sni: [db], sources: [10.9.0.0/16], certificate: {cn: alice}"),

		// Sources. supabase#20478: a dual-stack socket reports 10.1.2.3 as ::ffff:10.1.2.3, and a rule
		// that rejects the network must not be passed by for it; nor does a zone make another address.
		allow("alice from=10.1.2.3", "sources: [10.0.0.0/8]"),
		deny("alice from=11.1.2.3", "sources: [10.0.0.0/8]"),
		allow("alice from=11.1.2.3", "sources: [10.0.0.0/8, 11.1.2.3]"),
		allow("alice from=::ffff:10.1.2.3", "sources: [10.0.0.0/8]"),
		deny("alice from=::ffff:10.1.2.3", "sources: [10.0.0.0/8], action: reject", ""),
		allow("alice from=10.1.2.3", "sources: ['::ffff:10.0.0.0/104']"),
		allow("alice from=fe80::1%eth0", "sources: ['fe80::/10']"),
		deny("alice from=fe80::1%eth0", "sources: ['fe80::1'], action: reject", ""),
		allow("alice from=::ffff:10.1.2.3%eth0", "sources: [10.1.2.3]"),
		deny("alice from=10.1.2.3", "sources: ['::/0']"),
		deny("alice from=::1", "sources: [0.0.0.0/0]"),
		deny("alice from=::ffff:10.1.2.3", "sources: ['::/0']"),

		// Listeners. TestEveryListenerWithEveryRule has more of them.
		allow("alice on=10.0.0.5:5432", "listeners: ['10.0.0.5:5432']"),
		deny("alice on=10.0.0.6:5432", "listeners: ['10.0.0.5:5432']"),
		allow("alice on=[::]:6432", "listeners: ['10.0.0.5:5432', '[0::0]:6432']"),
		allow("alice on=[::]:6432", "listeners: ['*:6432']"), // as listen takes it
		deny("alice on=[::]:6432", "listeners: ['*:6432'], action: reject", ""),

		// Databases.
		allow("alice/shop", "databases: [all]"),
		allow("alice/shop", "databases: [shop]"),
		deny("alice/Shop", "databases: [shop]"), // to PostgreSQL, too, they are two
		deny("alice/shop2", "databases: [shop]"),
		allow("alice/shop_eu", "databases: ['shop_*']"),
		deny("alice/my_shop_eu", "databases: ['shop_*']"),
		allow("alice/shop7", "databases: ['/^shop[0-9]$']"),
		deny("alice/shop77", "databases: ['/^shop[0-9]$']"),
		allow("alice/alice", "databases: [sameuser]"),
		deny("alice/shop", "databases: [sameuser]"),
		allow("alice/shop", "databases: [sameuser, shop]"),
		allow("sameuser/sameuser", "databases: ['/^sameuser$']"),
		deny("alice/alice", "databases: ['/^sameuser$']"),

		// Users.
		deny("Alice", "users: [alice]"),
		allow("all", "users: [all]"),
		deny("alice", "users: ['/^all$']"), // the role of that name
		allow("all", "users: ['/^all$']"),
		allow("app_1", "users: ['app_*']"),
		allow("app_", "users: ['app_*']"),
		deny("app", "users: ['app_*']"),
		allow("team.app.rw", "users: ['team*rw']"), // dots are letters like others
		allow("a-b-c", "users: ['a*b*c']"),
		deny("a-c-b", "users: ['a*b*c']"),
		deny("ab", "users: ['ab*b']"), // no letter may be used twice
		allow("abb", "users: ['ab*b']"),
		allow("alice", "users: ['*']"),
		allow("al.ce", "users: ['al.c*']"),
		deny("alice", "users: ['al.c*']"), // what is special in a regular expression is not in a glob
		allow("a+c", "users: ['a+*']"),
		deny("aac", "users: ['a+*']"),
		allow("(a", "users: ['(*']"),

		// PostgreSQL anchors no regular expression, and knows case.
		allow("webapp2", "users: [/app]"),
		allow("appzz", "users: [/^app]"),
		deny("webapp", "users: [/^app]"),
		allow("webapp", "users: [/app$]"),
		deny("app2", "users: [/app$]"),
		deny("APP", "users: [/app]"),
		allow("APP", "users: ['/(?i)app']"),
		allow("alicex", "users: ['/^alice|bob$']"), // an operator's mistake, in pg_hba.conf as here; it is warned of
		allow("alice", "users: [/]"),

		// A certificate that a rule mentions must be there, with a name of that kind, and each kind must match.
		deny("alice", "certificate: {cn: all}"),
		deny("alice certificate", "certificate: {cn: all}"),
		allow("alice cn=x", "certificate: {cn: all}"),
		allow("alice cn=al", "certificate: {cn: al}"),
		deny("alice cn=AL", "certificate: {cn: al}"),
		allow("alice cn=web-1", "certificate: {cn: 'web-*'}"),
		allow("alice cn=web-1", "certificate: {cn: '/^web-[0-9]$'}"),
		deny("alice cn=web-x", "certificate: {cn: '/^web-[0-9]$'}"),
		allow("alice cn=a dns=a.example", "certificate: {cn: a, dns: a.example}"),
		deny("alice cn=a dns=b.example", "certificate: {cn: a, dns: a.example}"),
		deny("alice cn=b dns=a.example", "certificate: {cn: a, dns: a.example}"),
		deny("alice cn=a", "certificate: {cn: a, dns: a.example}"),
		deny("alice cn=evil", "certificate: {cn: evil}, action: reject", ""),
		allow("alice", "certificate: {cn: evil}, action: reject", ""), // no certificate, nothing to reject it for

		// What a certificate says is a name, even where it looks like a pattern.
		deny("alice cn=*", "certificate: {cn: alice}"),
		deny("alice cn=all", "certificate: {cn: alice}"),
		deny("alice cn=/^alice$", "certificate: {cn: alice}"),
		deny("alice cn=+alice", "certificate: {cn: alice}"),
		deny("alice dns=*.example", "certificate: {dns: a.example}"),
		allow("alice dns=*.example", "certificate: {dns: '*.example'}"),

		// A name of one kind is none of another.
		deny("alice dns=alice", "certificate: {cn: alice}"),
		deny("alice email=alice", "certificate: {cn: alice}"),
		deny("alice uri=alice", "certificate: {cn: alice}"),
		deny("alice dn=alice", "certificate: {cn: alice}"),
		deny("alice cn=alice", "certificate: {dns: alice}"),
		deny("alice cn=alice", "certificate: {dn: 'CN=alice'}"),
		deny("alice dns=a@b", "certificate: {email: a@b}"),
		deny("alice email=a.example", "certificate: {dns: a.example}"),
		deny("alice issuer=CN=ca", "certificate: {dn: CN=ca}"),
		deny("alice dn=CN=ca", "certificate: {issuer: CN=ca}"),
		deny("alice dns=alice", "users: [samename]"),

		// Distinguished names are one text, as PostgreSQL prints it.
		allow("alice dn=CN=alice,O=Firm", "certificate: {dn: 'CN=alice,O=Firm'}"),
		deny("alice dn=CN=alice,O=Firm", "certificate: {dn: 'CN=alice'}"),
		deny("alice dn=CN=alice,O=Firm", "certificate: {dn: 'O=Firm,CN=alice'}"),
		allow("alice dn=CN=alice,O=Firm", "certificate: {dn: '*,O=Firm'}"),
		allow("alice dn=CN=alice,O=Firm", "certificate: {dn: '/,O=Firm$'}"),
		allow(`alice dn=CN=a\,O\=Firm,O=Evil`, `certificate: {dn: 'CN=a\,O\=Firm,O=Evil'}`),
		deny(`alice dn=CN=a\,O=Firm,O=Evil`, `certificate: {dn: 'CN=a,O=Firm,O=Evil'}`),
		allow(`alice dn=CN=a\,b,O=Firm`, `certificate: {dn: 'CN=a\,*,O=Firm'}`), // a backslash does not unmake a glob
		deny(`alice dn=CN=a\,b,O=Firm`, `certificate: {dn: '*,O=Firm'}, action: reject`, ""),
		allow(`alice dn=CN=\C3\BC`, `certificate: {dn: 'CN=\C3\BC'}`),
		// A comma that is part of a value does not begin an attribute.
		deny(`alice dn=OU=x\,O=Firm`, "certificate: {dn: '*,O=Firm'}"),
		deny(`alice dn=OU=x\+O=Firm`, "certificate: {dn: '*+O=Firm'}"),
		deny(`alice dn=OU=x\,O=Firm\,`, "certificate: {dn: '*,O=Firm*'}"),
		deny(`alice dn=OU=x\\\,O=Firm`, "certificate: {dn: '*,O=Firm'}"),
		allow(`alice dn=OU=x\\,O=Firm`, "certificate: {dn: '*,O=Firm'}"), // here the backslash is the value's last letter
		allow(`alice dn=OU=x\,O=Firm,O=Firm`, "certificate: {dn: '*,O=Firm'}"),
		allow(`alice dn=OU=x\,O=Firm,O=Firm,C=DE`, "certificate: {dn: 'OU=*,O=Firm,*'}"),
		deny(`alice dn=OU=x\,O=Firm,C=DE`, "certificate: {dn: 'OU=*,O=Firm,*'}"),
		allow("alice dn=CN=x", "certificate: {dn: all}"),
		deny("alice cn=x", "certificate: {dn: all}"), // a subject that nobody can read
		allow("alice issuer=CN=ca,O=Firm", "certificate: {issuer: 'CN=ca,O=Firm'}"),
		deny("alice issuer=CN=ca2,O=Firm", "certificate: {issuer: 'CN=ca,O=Firm'}"),
		allow("alice issuer=CN=ca2,O=Firm", "certificate: {issuer: 'CN=*,O=Firm'}"),

		// One of several alternative names is enough. Those of hosts know no case.
		allow("alice dns=a.example,b.example", "certificate: {dns: b.example}"),
		deny("alice dns=a.example,b.example", "certificate: {dns: c.example}"),
		allow("alice dns=a.example", "certificate: {dns: A.Example}"),
		allow("alice dns=a.example", "certificate: {dns: '*.EXAMPLE'}"),
		allow("alice dns=a.example", `certificate: {dns: '/^A\.EXAMPLE$'}`),
		allow("alice dns=a.b.example", "certificate: {dns: '*.example'}"), // a glob goes on across dots
		deny("alice dns=a.example.evil", "certificate: {dns: '*.example'}"),
		deny("alice dns=all", "certificate: {dns: ALL}, action: reject", ""), // which is not the keyword
		allow("alice dns=x", "certificate: {dns: ALL}, action: reject", ""),
		allow("alice email=x@y,al@db.example", "certificate: {email: al@db.example}"),
		deny("alice email=Al@db.example", "certificate: {email: al@db.example}"), // the part before @ is the host's own affair
		allow("alice email=al@db.example", "certificate: {email: '*@db.example'}"),
		allow("alice uri=spiffe://db/al", "certificate: {uri: 'spiffe://db/al'}"),
		deny("alice uri=spiffe://db/al/x", "certificate: {uri: 'spiffe://db/al'}"),
		allow("alice uri=spiffe://db/al/x", "certificate: {uri: 'spiffe://db/*'}"),
		deny("alice uri=spiffe://db2/al", "certificate: {uri: 'spiffe://db/*'}"),

		// Keys.
		allow("alice spki="+pin, "certificate: {spki: '"+pin+"'}"),
		allow("alice spki="+pin, "certificate: {spki: '"+strings.ToUpper(pin)+"'}"),
		allow("alice spki="+pin, "certificate: {spki: '"+colons(strings.ToUpper(pin))+"'}"),
		deny("alice spki=f"+pin[1:], "certificate: {spki: '"+pin+"'}"),
		deny("alice certificate", "certificate: {spki: '"+pin+"'}"),

		// Server names: of what the client sends, case does not count.
		allow("alice sni=db.example", "sni: [db.example]"),
		allow("alice sni=DB.Example", "sni: [db.example]"),
		allow("alice sni=db.example", "sni: [DB.EXAMPLE]"),
		allow("alice sni=DB.example", `sni: ['/^db\.Example$']`),
		allow("alice sni=a.b.example", "sni: ['*.Example']"),
		deny("alice sni=db.example.org", "sni: [db.example]"),
		deny("alice", "sni: [db.example]"), // none sent
		allow("alice", "sni: [all]"),
		allow("alice", "sni: ['*']"),
		deny("alice sni=DB.example", "sni: [db.example], action: reject", ""),

		// samename.
		allow("alice cn=alice", "users: [samename]"),
		deny("alice cn=bob", "users: [samename]"),
		deny("alice cn=Alice", "users: [samename]"),
		deny("alice", "users: [samename]"),
		deny("alice certificate", "users: [samename]"),
		deny("samename", "users: [samename]"),
		deny("alice cn=samename", "users: [samename]"),
		allow("all cn=all", "users: [samename]"),
		deny("alice cn=all", "users: [samename]"),
		deny("alice cn=*", "users: [samename]"),
		allow("alice cn=bob", "users: [samename, alice]"),
		allow("alice", "users: [samename, alice]"), // whose name is enough
		deny("alice", "users: [samename, alice], action: reject", ""),
		allow("alice cn=alice dns=a", "users: [samename], certificate: {dns: a}"),
		deny("alice cn=alice dns=b", "users: [samename], certificate: {dns: a}"),
		deny("alice dns=a", "users: [samename], certificate: {dns: a}"),
		deny("alice cn=alice", "users: [samename], action: reject", "users: [all]"),
		allow("alice cn=bob", "users: [samename], action: reject", "users: [all]"),
		allow("alice", "users: [samename], action: reject", "users: [all]"),

		// \1, as in pg_ident.conf: what comes of the certificate is a name, never a keyword or a pattern.
		allow("alice email=alice@x", `users: ['\1'], certificate: {email: '/^(.*)@x$'}`),
		deny("bob email=alice@x", `users: ['\1'], certificate: {email: '/^(.*)@x$'}`),
		deny("alice email=alice@x.evil", `users: ['\1'], certificate: {email: '/^(.*)@x$'}`),
		deny("alice", `users: ['\1'], certificate: {email: '/^(.*)@x$'}`),
		deny("alice cn=alice@x", `users: ['\1'], certificate: {email: '/^(.*)@x$'}`),
		allow("app_alice_ro cn=alice", `users: ['app_\1_ro'], certificate: {cn: '/^(.*)$'}`),
		deny("app_alice cn=alice", `users: ['app_\1_ro'], certificate: {cn: '/^(.*)$'}`),
		deny("alice cn=alice", `users: ['app_\1_ro'], certificate: {cn: '/^(.*)$'}`),
		deny("aba cn=b", `users: ['ab\1ba'], certificate: {cn: '/^(.*)$'}`), // no letter may be used twice
		deny("alice cn=all", `users: ['\1'], certificate: {cn: '/^(.*)$'}`),
		allow("all cn=all", `users: ['\1'], certificate: {cn: '/^(.*)$'}`),
		deny("alice cn=*", `users: ['\1'], certificate: {cn: '/^(.*)$'}`),
		deny("alice cn=/.*", `users: ['\1'], certificate: {cn: '/^(.*)$'}`),
		deny("alice cn=+alice", `users: ['\1'], certificate: {cn: '/^(.*)$'}`),
		deny(`alice cn=\1`, `users: ['\1'], certificate: {cn: '/^(.*)$'}`),
		deny("app_ cn=@x", `users: ['app_\1'], certificate: {cn: '/^(.*)@x$'}`), // it found nothing: nobody's name
		deny("alice cn=@x", `users: ['\1'], certificate: {cn: '/^(.*)@x$'}`),
		deny("alice cn=b", `users: ['\1'], certificate: {cn: '/^(a)?b$'}`), // a group that took no part
		deny("b cn=b", `users: ['\1'], certificate: {cn: '/^(a)?b$'}`),
		allow("a cn=ab", `users: ['\1'], certificate: {cn: '/^(a)?b$'}`),
		allow("application cn=application", `users: ['\1'], certificate: {cn: '/^(app|application)'}`), // of two, the longer
		deny("app cn=application", `users: ['\1'], certificate: {cn: '/^(app|application)'}`),
		allow("a@b email=a@b@c", `users: ['\1'], certificate: {email: '/^(.*)@'}`),
		allow("a email=a@b@c", `users: ['\1'], certificate: {email: '/^(.*?)@'}`), // unless the shorter is asked for
		deny("a@b email=a@b@c", `users: ['\1'], certificate: {email: '/^(.*?)@'}`),
		allow("x cn=x-y", `users: ['\1'], certificate: {cn: '/^(.)-(.)$'}`), // the first of the groups
		deny("y cn=x-y", `users: ['\1'], certificate: {cn: '/^(.)-(.)$'}`),
		allow("x cn=x-y", `users: ['\1'], certificate: {cn: '/^((.)-.)$|^$'}`, `users: ['\1'], certificate: {cn: '/^(?:(.)-.)$'}`),
		allow("b dns=a.x,b.x", `users: ['\1'], certificate: {dns: '/^(.)\.x$'}`), // each name has another capture
		allow("a dns=a.x,b.x", `users: ['\1'], certificate: {dns: '/^(.)\.x$'}`),
		deny("c dns=a.x,b.x", `users: ['\1'], certificate: {dns: '/^(.)\.x$'}`),
		deny("b dns=a.x,b.y", `users: ['\1'], certificate: {dns: '/^(.)\.x$'}`), // that of a name that does not match is none
		allow("alice dns=alice.x cn=q", `users: ['\1'], certificate: {dns: '/^(.*)\.x$', cn: q}`),
		deny("alice dns=alice.x cn=r", `users: ['\1'], certificate: {dns: '/^(.*)\.x$', cn: q}`),
		deny("q dns=alice.x cn=q", `users: ['\1'], certificate: {dns: '/^(.*)\.x$', cn: '/^q$'}`),
		allow("bob email=alice@x", `users: ['\1', bob], certificate: {email: '/^(.*)@x$'}`),
		deny("bob", `users: ['\1', bob], certificate: {email: '/^(.*)@x$'}`),
		deny("alice email=alice@x", `users: ['\1'], certificate: {email: '/^(.*)@x$'}, action: reject`, "users: [all]"),
		allow("alice uri=spiffe://db/u/alice", `users: ['\1'], certificate: {uri: '/^spiffe://db/u/([^/]+)$'}`),
		allow("alice dn=CN=alice,O=F", `users: ['\1'], certificate: {dn: '/^CN=([^,]*),O=F$'}`),

		// Names are compared as PostgreSQL will take them, so one that it would cut fits nothing.
		allow(long+" cn="+long, "users: [samename]"),
		allow(long+" cn="+long, `users: ['\1'], certificate: {cn: '/^(.*)$'}`),
		deny(long+" email="+long+"y", `users: ['\1'], certificate: {email: '/^(.*)$'}`),
		deny(long+" email=x"+long, `users: ['\1'], certificate: {email: '/^(.*)$'}`),
		deny(long+" email="+long, `users: ['x\1'], certificate: {email: '/^(.*)$'}`),

		// To pg_hba.conf replication=database is a session of a database, and all does not match physical
		// replication. A rule that rejects is about all that it does not exclude.
		allow("alice replication=database", "users: [alice]"),
		allow("alice/shop replication=database", "databases: [shop]"),
		deny("alice/store replication=database", "databases: [shop]"),
		deny("alice replication=physical", "users: [alice]"),
		deny("alice replication=physical", "users: [all], databases: [all]"),
		deny("alice replication=physical", ""),
		deny("alice/shop replication=physical", "databases: [shop]"),
		deny("alice/alice replication=physical", "databases: [sameuser]"),
		allow("alice replication=physical", "users: [alice], replication: physical"),
		deny("bob replication=physical", "users: [alice], replication: physical"),
		deny("alice", "users: [alice], replication: physical"),
		deny("alice replication=database", "users: [alice], replication: physical"),
		allow("alice replication=database", "users: [alice], replication: database"),
		deny("alice", "users: [alice], replication: database"),
		deny("alice replication=physical", "users: [alice], replication: database"),
		allow("alice", "users: [alice], replication: none"),
		deny("alice replication=database", "users: [alice], replication: none"),
		deny("alice replication=physical", "users: [alice], replication: none"),
		deny("alice replication=physical", "users: [alice], action: reject", "replication: physical"),
		deny("alice replication=physical", "databases: [all], action: reject", "replication: physical"), // no less than without
		allow("alice/shop replication=physical", "databases: [shop, /], action: reject", "replication: physical"),
		allow("alice/alice replication=physical", "databases: [sameuser], action: reject", "replication: physical"),
		allow("alice replication=physical", "replication: none, action: reject", "replication: physical"),
		allow("alice replication=physical", "replication: database, action: reject", "replication: physical"),
		deny("alice replication=physical", "replication: physical, action: reject", "replication: physical"),
		deny("alice replication=database", "replication: database, action: reject", ""),
		allow("alice", "replication: database, action: reject", ""),
		allow("replication/replication", "databases: ['/^replication$']"),

		// Superusers must be named outright, by a rule that fits in all else; rules that reject need not.
		deny("postgres", ""),
		deny("postgres", "users: [all]"),
		deny("postgres", "users: ['*']"),
		deny("postgres", "users: ['post*']"),
		deny("postgres", "users: ['/^postgres$']"),
		deny("root", "users: [all, postgres]"),
		deny("postgres cn=postgres", "users: [samename]"),
		deny("postgres cn=postgres", `users: ['\1'], certificate: {cn: '/^(.*)$'}`),
		allow("postgres", "users: [postgres]"),
		allow("postgres", "users: ['*', postgres]"),
		allow("postgres cn=postgres", "users: [samename, postgres]"),
		allow("postgres", "users: [all]", "users: [postgres]"), // it goes on to the one that does
		deny("postgres", "users: [all]", "users: [postgres], action: reject"),
		deny("postgres", "users: ['post*'], action: reject", "users: [postgres]"),
		deny("postgres", "users: [postgres], databases: [shop]"),
		deny("postgres replication=physical", "users: [postgres]"),
		deny("postgres replication=physical", "replication: physical"),
		allow("postgres replication=physical", "replication: physical, users: [postgres]"),
		allow("Postgres", "users: [all]"), // another role
		allow("postgres2", "users: [all]"),
	} {
		d.check(t)
	}
}

func colons(hex string) string {
	var pairs []string
	for pair := range slices.Chunk([]byte(hex), 2) {
		pairs = append(pairs, string(pair))
	}
	return strings.Join(pairs, ":")
}

// cockroach#123602: each rule is for its own listeners and for none else.
func TestEveryListenerWithEveryRule(t *testing.T) {
	t.Parallel()
	for bits := range 1 << len(listeners) {
		var own []string
		for i, address := range listeners {
			if bits>>i&1 == 1 {
				own = append(own, address)
			}
		}
		if own == nil {
			continue
		}
		for _, action := range []string{"allow", "reject"} {
			rules, problems := acl.NewRules([]acl.RuleOptions{{Action: action, Users: []string{"alice"}, Listeners: own}}, listeners, nil)
			if rules == nil {
				t.Fatal(problems)
			}
			for _, address := range append(listeners, "", "10.0.0.5", "10.0.0.5:54321", "0.0.0.0:5432") {
				got := rules.Decide(&acl.Request{User: "alice", Database: "alice", Listener: address})
				if want := slices.Contains(own, address); (got != nil) != want || want && got.Allow != (action == "allow") {
					t.Errorf("%s on %q: a rule for %q decides with %v", action, address, own, got)
				}
			}
		}
	}
}

// supabase#20478: a listener of [::ffff:127.0.0.1]:5432 calls itself 127.0.0.1:5432, and a rule for it must hear of it.
func TestListenerOfMappedAddress(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "[::ffff:127.0.0.1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	itself := ln.Addr().String()
	mapped := fmt.Sprintf("[::ffff:127.0.0.1]:%d", ln.Addr().(*net.TCPAddr).Port)
	for _, known := range []string{mapped, itself} {
		for _, text := range []string{mapped, itself} {
			rules, problems := acl.NewRules([]acl.RuleOptions{{Action: "reject", Listeners: []string{text}}}, []string{known}, nil)
			if rules == nil || rules.Decide(&acl.Request{User: "alice", Listener: itself}) == nil {
				t.Errorf("a rule for %s of %s does not fit on %s: %v", text, known, itself, problems)
			}
		}
	}
}

// A role or a database may have a line break in its name. PostgreSQL's dot matches it, so a rule that rejects must not
// be passed by with one, and its $ is the end of the name only.
func TestLineBreaks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"/^evil.*$", "evil\nx", true},
		{"/^a.b$", "a\nb", true},
		{"/^app$", "app\n", false},
		{"/^app$", "x\napp", false},
		{"app*", "app\nx", true},
		{"*", "\n", true},
		{"/^.$", "\xff", true}, // not UTF-8, which nobody has promised it is
		{"a*\ufffd", "a\xff", false},
	} {
		rules, problems := acl.NewRules([]acl.RuleOptions{{Action: "reject", Users: []string{c.pattern}}}, nil, nil)
		if rules == nil {
			t.Fatal(problems)
		}
		if got := rules.Decide(&acl.Request{User: c.name}) != nil; got != c.want {
			t.Errorf("%q for %q: %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

// With real certificates: of what several programs read in several ways no rule hears, and all else is what
// PostgreSQL takes it for.
func TestRulesOfRealCertificates(t *testing.T) {
	t.Parallel()
	uri := func(uris ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, u := range uris {
				c.URIs = append(c.URIs, must(url.Parse(u)))
			}
		}
	}
	mail := func(c *x509.Certificate) { c.EmailAddresses = []string{"alice\x00@x", "alice@x\n"} }
	alice := name(utf8Attr(cn, "alice"))
	for _, c := range []struct {
		what    string
		subject []byte
		edit    func(*x509.Certificate)
		rule    string
		want    bool
	}{
		{"one CN", alice, nil, "certificate: {cn: alice}", true},
		{"one CN", alice, nil, "users: [samename]", true},
		{"CN and its DN", alice, nil, "certificate: {cn: alice, dn: CN=alice, issuer: CN=alice}", true},
		{"two CNs", name(utf8Attr(cn, "alice"), utf8Attr(cn, "bob")), nil, "users: [samename]", false},
		{"two CNs, the other way round", name(utf8Attr(cn, "bob"), utf8Attr(cn, "alice")), nil, "users: [samename]", false},
		{"two CNs", name(utf8Attr(cn, "alice"), utf8Attr(cn, "bob")), nil, "certificate: {cn: all}", false},
		{"two CNs, in a DN", name(utf8Attr(cn, "alice"), utf8Attr(cn, "bob")), nil, "certificate: {dn: 'CN=bob,CN=alice'}", true},
		{"NUL", name(utf8Attr(cn, "alice\x00.evil")), nil, "users: [samename]", false},
		{"NUL", name(utf8Attr(cn, "alice\x00.evil")), nil, "certificate: {cn: 'alice*'}", false},
		{"NUL, in a DN", name(utf8Attr(cn, "alice\x00.evil")), nil, "certificate: {dn: CN=alice}", false},
		{"NUL, in a DN", name(utf8Attr(cn, "alice\x00.evil")), nil, `certificate: {dn: 'CN=alice\00.evil'}`, true},
		{"BMPString", name(attrOf(cn, asn1.TagBMPString, bmp("alice"))), nil, "users: [samename]", false},
		{"BMPString, in a DN", name(attrOf(cn, asn1.TagBMPString, bmp("alice"))), nil, "certificate: {dn: CN=alice}", true},
		// As a role PostgreSQL would cut it to 63 bytes; as a name that a rule compares it is what it is.
		{"64 bytes", name(utf8Attr(cn, "alice"+strings.Repeat("x", 59))), nil, "certificate: {cn: 'alice*'}", true},
		{"65 bytes, literally", name(utf8Attr(cn, "spiffe://x/"+strings.Repeat("y", 54))), nil, "certificate: {cn: 'spiffe://x/" + strings.Repeat("y", 54) + "'}", true},
		{"64 bytes as a role", name(utf8Attr(cn, "alice"+strings.Repeat("x", 59))), nil, "users: [samename]", false},
		{"64 bytes, of which a part is captured", name(utf8Attr(cn, "alice@"+strings.Repeat("x", 58))), nil, `users: ['\1'], certificate: {cn: '/^(.*)@x+$'}`, false},
		{"T61String", name(attrOf(cn, asn1.TagT61String, "alice")), nil, "certificate: {cn: alice}", true},
		{"T61String is Latin-1", name(attrOf(cn, asn1.TagT61String, "M\xfcller")), nil, "certificate: {cn: Müller}", true},
		{"T61String as a role", name(attrOf(cn, asn1.TagT61String, "alice")), nil, "users: [samename]", false},
		{"T61String, of which a part is captured", name(attrOf(cn, asn1.TagT61String, "alice@x")), nil, `users: ['\1'], certificate: {cn: '/^(.*)@x$'}`, false},
		{"T61String with a NUL", name(attrOf(cn, asn1.TagT61String, "alice\x00.evil")), nil, "certificate: {cn: 'alice*'}", false},
		{"PrintableString", name(attrOf(cn, asn1.TagPrintableString, "alice")), nil, "users: [samename]", true},
		{"UTF8String", name(utf8Attr(cn, "Οδυσσέας")), nil, "certificate: {cn: 'Οδ*'}", true},
		{"UTF8String, in a DN", name(utf8Attr(cn, "ü")), nil, `certificate: {dn: 'CN=\C3\BC'}`, true},
		{"two OUs", name(utf8Attr(ou, "a"), utf8Attr(ou, "b"), utf8Attr(cn, "alice")), nil, "certificate: {dn: 'CN=alice,OU=b,OU=a'}", true},
		{"an OU that looks like a CN", name(utf8Attr(ou, "x,CN=alice")), nil, "certificate: {dn: '*,CN=alice'}", false},
		{"a DNS name is no CN", nameOf(), func(c *x509.Certificate) { c.DNSNames = []string{"alice"} }, "users: [samename]", false},
		{"a DNS name knows no case", alice, func(c *x509.Certificate) { c.DNSNames = []string{"DB.Example"} }, "certificate: {dns: db.example}", true},
		{"addresses with NUL or a line break", alice, mail, "certificate: {email: all}", false},
		{"SPIFFE ID", alice, uri("spiffe://db/alice"), "certificate: {uri: 'spiffe://db/alice'}", true},
		{"two SPIFFE IDs", alice, uri("spiffe://db/alice", "spiffe://db/bob"), "certificate: {uri: 'spiffe://db/alice'}", false},
		{"SPIFFE ID and another URI", alice, uri("https://db/", "spiffe://db/alice"), "certificate: {uri: 'spiffe://db/alice'}", false},
		{"another URI beside a SPIFFE ID", alice, uri("https://db/", "spiffe://db/alice"), "certificate: {uri: 'https://db/'}", false},
		{"two URIs", alice, uri("https://a/", "https://b/"), "certificate: {uri: 'https://b/'}", true},
		// crypto/x509 steps over what follows the value, and OpenSSL refuses it: what stands before is nobody's DN.
		{
			"more after the value", tlv(0x30, slices.Concat(
				tlv(0x31, tlv(0x30, slices.Concat(oidDER(cn), tlv(12, []byte("alice"))))),
				tlv(0x31, tlv(0x30, slices.Concat(oidDER(ou), tlv(12, []byte("x")), tlv(12, []byte("y"))))))),
			nil, "certificate: {dn: '*'}", false,
		},
	} {
		edit := c.edit
		if edit == nil {
			edit = func(*x509.Certificate) {}
		}
		id := acl.IdentityOf(parsed(t, certificate(t, c.subject, edit)))
		q := &acl.Request{User: "alice", Database: "alice", Certificate: &id}
		if got := newRules(t, c.rule).Decide(q) != nil; got != c.want {
			t.Errorf("%s by %s: %v, want %v\n%+v", c.what, c.rule, got, c.want, id)
		}
	}
}

// The key is what openssl says, in the words of the message that asks for it.
func TestKeyAsOpenSSL(t *testing.T) {
	t.Parallel()
	der := certificate(t, name(utf8Attr(cn, "alice")))
	public := openssl(t, der, "x509", "-inform", "DER", "-pubkey", "-noout")
	_, sum, _ := strings.Cut(openssl(t, []byte(openssl(t, []byte(public), "pkey", "-pubin", "-outform", "DER")), "dgst", "-sha256"), "= ")
	id := acl.IdentityOf(parsed(t, der))
	for _, text := range []string{sum, colons(strings.ToUpper(sum))} {
		if newRules(t, "certificate: {spki: '"+text+"'}").Decide(&acl.Request{User: "alice", Certificate: &id}) == nil {
			t.Errorf("openssl says %s, and the identity is %+v", text, id)
		}
	}
}

func TestNewRulesMistakes(t *testing.T) {
	t.Parallel()
	const (
		anybody = "warning: rules[0].users: admits every user except the superusers; " +
			`if PostgreSQL asks for no password (peer, trust), name the users, or take them from the certificate: samename or \1`
		empty  = "is empty; remove it to match everything, or add an entry"
		noText = "is empty; write all for every name, or remove the key"
		group  = "needs a regular expression with a group in certificate, like cn: /^(.*)@example\\.com$"
		longer = " also matches longer names, as in pg_hba.conf; to match whole names, begin each alternative with ^ and end it with $"
		rfc    = " is not in the form that PostgreSQL prints, and matches nothing; get the name with: " +
			"openssl x509 -in client.crt -noout -subject -issuer -nameopt RFC2253"
		sum = " is not a SHA-256 in hexadecimal; get it with: openssl x509 -in client.crt -pubkey -noout | " +
			"openssl pkey -pubin -outform DER | openssl dgst -sha256"
		members = "means the members of a role in pg_hba.conf, which only PostgreSQL knows; write the names"
	)
	for _, c := range []struct {
		rule string
		want []string
	}{
		{"users: [alice]", nil},
		{"users: [samename]", nil},
		{"users: [alice], action: ''", []string{"rules[0]: has no action; write action: allow or action: reject"}},
		{"users: [alice], action: deny", []string{`rules[0].action: "deny" is not known; write allow or reject`}},
		{"users: [alice], action: Allow", []string{`rules[0].action: "Allow" is not known; write allow or reject`}},

		{"users: []", []string{"rules[0].users: " + empty}},
		{"users: [alice], sources: []", []string{"rules[0].sources: " + empty}},
		{"users: [alice], listeners: []", []string{"rules[0].listeners: " + empty}},
		{"users: [alice], databases: []", []string{"rules[0].databases: " + empty}},
		{"users: [alice], sni: []", []string{"rules[0].sni: " + empty}},
		{"users: [alice, '']", []string{`rules[0].users[1]: "" ` + noText}},
		{"users: [alice], databases: ['']", []string{`rules[0].databases[0]: "" ` + noText}},
		{"users: [alice], sni: ['']", []string{`rules[0].sni[0]: "" ` + noText}},

		{
			"users: [alice], sources: [10.0.0.0/8, office]",
			[]string{`rules[0].sources[1]: "office" is not a network; write it like 10.20.0.0/16, 192.0.2.7 or fd00::/8 (no '/')`},
		},
		{
			"users: [alice], listeners: ['10.0.0.5:5433']",
			[]string{`rules[0].listeners[0]: "10.0.0.5:5433" is not an address of listen, which has 10.0.0.5:5432, 10.0.0.6:5432, [::]:6432`},
		},
		{
			"users: [alice], listeners: ['*:5432']",
			[]string{`rules[0].listeners[0]: "*:5432" is not an address of listen, which has 10.0.0.5:5432, 10.0.0.6:5432, [::]:6432`},
		},
		{
			"users: [alice], replication: 'true'",
			[]string{`rules[0].replication: "true" is not known; write none, database (logical) or physical, ` +
				"or remove it for everything except physical, like all in pg_hba.conf"},
		},
		{
			"users: [alice], replication: physical, databases: [all]",
			[]string{"rules[0].databases: has no effect on physical replication, which has no database; remove it"},
		},

		{"users: [+dba]", nil},
		{"users: [+Sales, '+a b', +all, +samename]", nil},
		{"users: ['+" + long + "']", nil},
		{"users: ['+" + long + "x']", []string{`rules[0].users[0]: "` + long + `x" is longer than a name in PostgreSQL can be (63 bytes)`}},
		{"users: ['+']", []string{`rules[0].users[0]: "+" names no role; write + and the name of one, like +dba`}},
		{"users: ['+app_*']", []string{`rules[0].users[0]: "+app_*" is not + and the name of one role; a role cannot be named by a pattern`}},
		{"users: ['+/^app']", []string{`rules[0].users[0]: "+/^app" is not + and the name of one role; a role cannot be named by a pattern`}},
		{"users: ['++dba']", []string{`rules[0].users[0]: "++dba" is not + and the name of one role; a role cannot be named by a pattern`}},
		{`users: ['+"Sales"']`, []string{`rules[0].users[0]: +"Sales" has quotes in it, which pg_hba.conf takes away and which would be part of the name here; write '+Sales'`}},
		{"users: [alice], databases: [+dba]", []string{`rules[0].databases[0]: "+dba" means the members of a role, which only users may name; write the names, a glob or a regular expression`}},
		{"users: ['@file']", []string{`rules[0].users[0]: "@file" means a file in pg_hba.conf; write the names here`}},
		{
			`users: ['+\1'], certificate: {cn: '/^(.*)$'}`,
			[]string{`rules[0].users[0]: "+\\1" is not + and the name of one role; a role cannot be named by a pattern`},
		},
		{`users: ['a\b']`, []string{`rules[0].users[0]: "a\\b" has a backslash; only a regular expression (/...) and, in users, \1 may have one`}},
		{`users: ['\2']`, []string{`rules[0].users[0]: "\\2" has a backslash; only a regular expression (/...) and, in users, \1 may have one`}},
		{
			`users: [alice], databases: ['\1'], certificate: {cn: '/^(.*)$'}`,
			[]string{`rules[0].databases[0]: "\\1" has a backslash; only a regular expression (/...) and, in users, \1 may have one`},
		},
		{"users: ['/(a']", []string{`rules[0].users[0]: "/(a" is not a regular expression (missing closing ): ` + "`(a`)"}},
		{`users: ['/a(?=b)']`, []string{`rules[0].users[0]: "/a(?=b)" is not a regular expression (invalid or unsupported Perl syntax: ` + "`(?=`)"}},
		{`users: ['/^(a)\1$']`, []string{`rules[0].users[0]: "/^(a)\\1$" is not a regular expression (invalid escape sequence: ` + "`\\1`)"}},
		{"users: ['" + strings.Repeat("*", 1025) + "']", []string{`rules[0].users[0]: "` + strings.Repeat("*", 1025) + `" is 1025 bytes long, more than 1024`}},
		{"users: [" + long + "]", nil},
		{"users: [y" + long + "]", []string{`rules[0].users[0]: "y` + long + `" is longer than a name in PostgreSQL can be (63 bytes)`}},
		{"users: [a], databases: [y" + long + "]", []string{`rules[0].databases[0]: "y` + long + `" is longer than a name in PostgreSQL can be (63 bytes)`}},
		{"users: [a], certificate: {email: y" + long + "}", nil},

		{
			"users: [a], databases: [replication]",
			[]string{"rules[0].databases[0]: replication is written replication: physical or replication: database here; if it is a name, write /^replication$"},
		},
		{"users: [a], databases: [samerole]", []string{"rules[0].databases[0]: samerole " + members + "; if it is a name, write /^samerole$"}},
		{"users: [a], databases: [samegroup]", []string{"rules[0].databases[0]: samegroup " + members + "; if it is a name, write /^samegroup$"}},
		{
			"users: [a], databases: [samename]",
			[]string{"rules[0].databases[0]: samename is for users; for a database with the name of the user write sameuser; if it is a name, write /^samename$"},
		},
		{
			"users: [sameuser]",
			[]string{"rules[0].users[0]: sameuser is for databases; for the user in the certificate's cn write samename; if it is a name, write /^sameuser$"},
		},

		{`users: ['\1']`, []string{`rules[0].users[0]: "\\1" ` + group}},
		{`users: ['\1'], certificate: {cn: alice}`, []string{`rules[0].users[0]: "\\1" ` + group}},
		{`users: ['\1'], certificate: {cn: '/^.*$'}`, []string{`rules[0].users[0]: "\\1" ` + group}},
		{`users: ['\1'], certificate: {cn: '/^(?:.*)$'}`, []string{`rules[0].users[0]: "\\1" ` + group}},
		{`users: [samename, '\1']`, []string{`rules[0].users[1]: "\\1" ` + group}},
		{
			`users: ['\1'], certificate: {cn: '/^(.*)$', dns: '/^(.*)$'}`,
			[]string{`rules[0].users[0]: "\\1" could mean a group of any of 2 regular expressions in certificate; keep the group in one of them`},
		},
		{`users: ['\1\1'], certificate: {cn: '/^(.*)$'}`, []string{`rules[0].users[0]: "\\1\\1" has more than one \1 and plain text`}},
		{`users: ['\1*'], certificate: {cn: '/^(.*)$'}`, []string{`rules[0].users[0]: "\\1*" has more than one \1 and plain text`}},
		{`users: ['\1\2'], certificate: {cn: '/^(.*)$'}`, []string{`rules[0].users[0]: "\\1\\2" has more than one \1 and plain text`}},

		{"users: [a], certificate: {cn: '/('}", []string{`rules[0].certificate.cn: "/(" is not a regular expression (missing closing ): ` + "`(`)"}},
		{"users: [a], certificate: {dn: 'CN=a,O=*'}", nil},
		{`users: [a], certificate: {dn: 'CN=a\, b,O=c d'}`, nil},
		{`users: [a], certificate: {issuer: '1.2.3=#0402'}`, nil},
		{"users: [a], certificate: {dn: 'CN=a, O=b'}", []string{`warning: rules[0].certificate.dn: "CN=a, O=b"` + rfc}},
		{"users: [a], certificate: {dn: 'CN = a'}", []string{`warning: rules[0].certificate.dn: "CN = a"` + rfc}},
		{"users: [a], certificate: {dn: 'CN=*, O=b'}", []string{`warning: rules[0].certificate.dn: "CN=*, O=b"` + rfc}},
		{"users: [a], certificate: {issuer: 'CN=ü'}", []string{`warning: rules[0].certificate.issuer: "CN=ü"` + rfc}},
		{"users: [a], certificate: {issuer: ca}", []string{`warning: rules[0].certificate.issuer: "ca"` + rfc}},
		{
			`users: [a], certificate: {dn: 'CN=\*,O=a'}`,
			[]string{`rules[0].certificate.dn: "CN=\\*,O=a" has a backslash before a star, which RFC 2253 does not escape; use a regular expression for a name that contains a star`},
		},
		{"users: [a], certificate: {dn: /CN=a}", []string{`warning: rules[0].certificate.dn: "/CN=a"` + longer}},
		{"users: [a], certificate: {spki: abcd}", []string{`rules[0].certificate.spki: "abcd"` + sum}},
		{"users: [a], certificate: {spki: all}", []string{`rules[0].certificate.spki: "all"` + sum}},
		{"users: [a], certificate: {spki: '" + pin[:62] + ":ff'}", []string{`rules[0].certificate.spki: "` + pin[:62] + `:ff"` + sum}},

		{"users: [/app]", []string{`warning: rules[0].users[0]: "/app"` + longer}},
		{"users: [/^app]", []string{`warning: rules[0].users[0]: "/^app"` + longer}},
		{"users: [/app$]", []string{`warning: rules[0].users[0]: "/app$"` + longer}},
		{`users: ['/^app\$']`, []string{`warning: rules[0].users[0]: "/^app\\$"` + longer}},
		{"users: ['/^alice|bob$']", []string{`warning: rules[0].users[0]: "/^alice|bob$"` + longer}},
		{"users: ['/(?m)^alice$']", []string{`warning: rules[0].users[0]: "/(?m)^alice$"` + longer}},
		{"users: [a], sni: [/db]", []string{`warning: rules[0].sni[0]: "/db"` + longer}},
		{"users: ['/^alice$|^bob$', '/^(alice|bob)$', '/^(?:alice|bob)$', '/(^alice$)', '/^$', '/\\Aalice\\z']", nil},

		{"", []string{anybody}},
		{"users: [all]", []string{anybody}},
		{"users: [alice, '*']", []string{anybody}},
		{"users: [/]", []string{anybody}},
		{"users: ['/^.*']", []string{anybody}},
		{"users: ['/^(.+)$']", []string{anybody}},
		{"users: ['/[^,]']", []string{anybody}},
		{"action: reject", nil},
		{"action: reject, users: [all]", nil},

		// All of it at once.
		{"users: ['+', b, '/('], databases: [], action: x", []string{
			`rules[0].action: "x" is not known; write allow or reject`,
			"rules[0].databases: " + empty,
			`rules[0].users[0]: "+" names no role; write + and the name of one, like +dba`,
			`rules[0].users[2]: "/(" is not a regular expression (missing closing ): ` + "`(`)",
		}},
	} {
		rules, problems := acl.NewRules(options(t, c.rule), listeners, superusers)
		checkProblems(t, c.rule, rules, problems, c.want)
	}
}

// checkProblems compares what was found in rules, and that only warnings let them be used.
func checkProblems(t *testing.T, what string, rules *acl.Rules, problems []acl.Problem, want []string) {
	t.Helper()
	var got []string
	usable := true
	for _, p := range problems {
		text := p.Key + ": " + p.Text
		if p.Warning {
			text = "warning: " + text
		}
		usable = usable && p.Warning
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\ngot  %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	if (rules != nil) != usable {
		t.Errorf("%s: rules are %v", what, rules)
	}
}

func TestNewRulesMistakesAmongSeveral(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		rules []string
		want  []string
	}{
		{"none", nil, nil},
		{"names", []string{"users: [a], name: one", "users: [b]", "users: [c], name: two"}, nil},
		{
			"a name twice",
			[]string{"users: [a], name: one", "users: [b]", "users: [c], name: one"},
			[]string{`rules[2].name: rule 1 has the name "one" already; the log shows names, so use another one`},
		},
		{
			"a name like that of one without",
			[]string{"users: [a], name: rule 2", "users: [b]"},
			[]string{`rules[1].name: rule 1 has the name "rule 2" already; the log shows names, so use another one`},
		},
		{
			"the key is that of the rule",
			[]string{"users: [a]", "users: [a, '@b']"},
			[]string{`rules[1].users[1]: "@b" means a file in pg_hba.conf; write the names here`},
		},
		{
			"behind one that rejects everything",
			[]string{"users: [a]", "name: rest, action: reject", "users: [b]", "users: [c]"},
			[]string{
				`warning: rules[2]: is never used: the earlier rule "rest" matches every session that it matches; remove it, or move it up`,
				`warning: rules[3]: is never used: the earlier rule "rest" matches every session that it matches; remove it, or move it up`,
			},
		},
		{
			"behind one that rejects everything, in more words",
			[]string{"databases: [all], users: [a, all], sni: [all], action: reject", "users: [b]"},
			[]string{`warning: rules[1]: is never used: the earlier rule "rule 1" matches every session that it matches; remove it, or move it up`},
		},
		{"behind one that rejects nearly everything", []string{"databases: [all], users: [all], replication: none, action: reject", "users: [b]"}, nil},
		{"the last", []string{"users: [a]", "action: reject"}, nil},
	} {
		rules, problems := acl.NewRules(options(t, c.rules...), listeners, superusers)
		checkProblems(t, c.what, rules, problems, c.want)
	}
}

// A pattern among the superusers would protect nobody, so it must not look as if it did.
func TestNewRulesSuperusers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		names []string
		want  []string
	}{
		{nil, nil},
		{[]string{"postgres", "dba", "al,ice", long}, nil},
		{[]string{"postgres", "all"}, []string{`superusers[1]: "all" is not the name of a role; list superusers one by one, without patterns`}},
		{[]string{""}, []string{`superusers[0]: "" is not the name of a role; list superusers one by one, without patterns`}},
		{[]string{"dba_*"}, []string{`superusers[0]: "dba_*" is not the name of a role; list superusers one by one, without patterns`}},
		{[]string{"/^dba"}, []string{`superusers[0]: "/^dba" is not the name of a role; list superusers one by one, without patterns`}},
		{[]string{"+dba"}, []string{`superusers[0]: "+dba" is not the name of a role; list superusers one by one, without patterns`}},
		{[]string{long + "x"}, []string{`superusers[0]: "` + long + `x" is not the name of a role; list superusers one by one, without patterns`}},
	} {
		rules, problems := acl.NewRules(nil, listeners, c.names)
		checkProblems(t, fmt.Sprint(c.names), rules, problems, c.want)
	}

	names := []string{"postgres"}
	rules, _ := acl.NewRules([]acl.RuleOptions{{Action: "allow"}}, nil, names)
	names[0] = "nobody"
	if rules.Decide(&acl.Request{User: "postgres"}) != nil {
		t.Error("the rules have changed with the slice that they were made from")
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ ask, rule, want string }{
		{"alice from=::ffff:10.1.2.3%eth0", "sources: [11.0.0.0/8]", "::ffff:10.1.2.3%eth0 is not in its sources"},
		{"alice on=[::]:6432", "listeners: ['10.0.0.5:5432']", "listener [::]:6432 is not in its listeners"},
		{"alice", "certificate: {cn: all}", "it requires a certificate, and the client sent none"},
		{"alice", "users: [samename]", "it requires a certificate, and the client sent none"},
		{"alice", "users: [samename, bob]", `user "alice" does not match its users`},
		{"alice cn=bob", "certificate: {cn: alice}", "the certificate does not match"},
		{"alice cn=bob", "users: [samename]", `user "alice" does not match its users`},
		{"alice sni=DB", "sni: [x]", `server name "DB" does not match its sni`},
		{"alice", "sni: [x]", `server name "" does not match its sni`},
		{"alice", "replication: physical", "it does not apply to ordinary sessions"},
		{"alice replication=database", "replication: none", "it does not apply to logical replication"},
		{"alice replication=physical", "users: [alice]", "it does not apply to physical replication"},
		{"alice/shop", "databases: [x]", `database "shop" does not match its databases`},
		{"alice", "users: [x]", `user "alice" does not match its users`},
		{"postgres", "users: [all]", `"postgres" is in acl.superusers, and its users do not name it`},
		{"postgres", "users: [all], action: reject", ""},
		{"alice", "users: [alice]", ""},
	} {
		rules, q := newRules(t, c.rule, "users: [never]"), request(t, c.ask)
		steps := rules.Trace(q)
		if got := steps[0].Mismatch; got != c.want {
			t.Errorf("%s by %s: %q, want %q", c.ask, c.rule, got, c.want)
		}
		if decides := c.want == ""; decides != (len(steps) == 1) {
			t.Errorf("%s by %s: %d steps", c.ask, c.rule, len(steps))
		}
		checkTrace(t, rules, q, rules.Decide(q))
	}
	if steps := newRules(t).Trace(request(t, "alice")); steps != nil {
		t.Errorf("no rules: %v", steps)
	}
}

// The order, the names and the actions are the configuration's.
func TestAll(t *testing.T) {
	t.Parallel()
	var got []string
	for _, rule := range newRules(t, "name: first, users: [a]", "action: reject", "name: last, users: [b]").All() {
		got = append(got, fmt.Sprint(rule.Name, " ", rule.Allow))
	}
	if want := []string{"first true", "rule 2 false", "last true"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
