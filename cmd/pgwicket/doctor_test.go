package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/internal/pgconf"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// ailment is a change to good facts, and what a check must find then; or that it
// still finds nothing.
type ailment[F any] struct {
	check string
	edit  func(*F)
	want  verdict
	text  string // in the reason
}

// examineAilments holds that the good facts pass every check, that each ailment is
// found, with where and how to mend it, and that every check has one.
func examineAilments[F any](t *testing.T, good func() F, checks func(F) []inspection[F], ailments []ailment[F]) {
	t.Helper()
	run := func(facts F) []finding { return examine("group", "subject", facts, checks(facts)) }
	for _, f := range run(good()) {
		if f.Status != pass {
			t.Errorf("good facts: %+v", f)
		}
	}
	tried := map[string]bool{}
	for _, a := range ailments {
		facts := good()
		a.edit(&facts)
		var of []finding
		for _, f := range run(facts) {
			if f.Check == a.check {
				of = append(of, f)
			}
		}
		if a.want != pass {
			tried[a.check] = true
		}
		at := slices.IndexFunc(of, func(f finding) bool { return f.Status == a.want && strings.Contains(f.Reason, a.text) })
		switch {
		case at < 0:
			t.Errorf("%s: %+v, none of them %v with %q", a.check, of, a.want, a.text)
		case a.want == pass && len(of) > 1:
			t.Errorf("%s: passes, and yet %+v", a.check, of)
		case (a.want == warn || a.want == fail) && (of[at].Where == "" || of[at].Fix == ""):
			t.Errorf("%s: does not say where or how to mend it: %+v", a.check, of[at])
		}
	}
	for _, c := range checks(good()) {
		if !tried[c.name] {
			t.Errorf("nothing makes %s find anything", c.name)
		}
	}
}

func rulesFrom(t *testing.T, superusers []string, options ...acl.RuleOptions) *acl.Rules {
	t.Helper()
	for i := range options {
		if options[i].Action == "" {
			options[i].Action = "allow"
		}
	}
	rules, problems := acl.NewRules(options, nil, superusers)
	if rules == nil {
		t.Fatal(problems)
	}
	return rules
}

func TestDoctorGate(t *testing.T) {
	good := func() gateFacts {
		return gateFacts{
			listen:   []string{"10.0.0.5:5432"},
			allowed:  []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00:1::/48")},
			rules:    rulesFrom(t, nil, acl.RuleOptions{Users: []string{"a"}}, acl.RuleOptions{Users: []string{"b"}}),
			admin:    "127.0.0.1:10432",
			landlock: true,
			user:     "pgwicket",
			root:     true,
			hosts: []*proxy.Host{
				{Network: "unix", Address: "/run/postgresql/.s.PGSQL.5432"},
				{Network: "tcp", Address: "db:5432", TLS: &tls.Config{ServerName: "db"}},
			},
		}
	}
	allow := func(prefix string) func(*gateFacts) {
		return func(g *gateFacts) { g.allowed = []netip.Prefix{netip.MustParsePrefix(prefix)} }
	}
	host := func(h proxy.Host) func(*gateFacts) {
		return func(g *gateFacts) { h.Network = "tcp"; g.hosts = []*proxy.Host{&h} }
	}
	examineAilments(t, good, func(gateFacts) []inspection[gateFacts] { return gateChecks() }, []ailment[gateFacts]{
		{"listen", func(g *gateFacts) { g.listen = append(g.listen, "0.0.0.0:5432") }, warn, "every network"},
		{"listen", func(g *gateFacts) { g.listen = []string{"[::]:5432"} }, warn, "every network"},
		{"allowlist", allow("0.0.0.0/0"), fail, "whole internet"},
		{"allowlist", allow("::/0"), fail, "whole internet"},
		{"allowlist", allow("128.0.0.0/1"), fail, "whole internet"},
		{"allowlist", allow("10.0.0.0/8"), warn, "very wide"},
		{"allowlist", allow("10.0.0.0/9"), pass, ""},
		{"allowlist", allow("2001:db8::/32"), warn, "very wide"},
		{"allowlist", func(g *gateFacts) { g.allowed = nil }, warn, "nobody can connect"},
		{
			"rules", func(g *gateFacts) {
				g.rules = rulesFrom(t, nil, acl.RuleOptions{Name: "one", Users: []string{"a*"}}, acl.RuleOptions{Name: "two", Users: []string{"ab"}})
			}, warn, `nothing reaches "two": "one" before it`,
		},
		{"rules", func(g *gateFacts) { g.rules = nil }, pass, "there are none"},
		{"recheck", func(g *gateFacts) { g.recheck = proxy.Off }, warn, "stays in"},
		{"recheck", func(g *gateFacts) { g.recheck = proxy.WhenIdle }, pass, ""},
		{"backend", host(proxy.Host{Address: "10.0.0.9:5432"}), fail, "in clear"},
		{"backend", host(proxy.Host{Address: "127.0.0.1:5432"}), warn, "in clear"},
		{"backend", host(proxy.Host{Address: "db:5432", TLS: &tls.Config{}, Clear: true}), fail, "may go in clear"},
		{"backend", host(proxy.Host{Address: "db:5432", TLS: &tls.Config{InsecureSkipVerify: true}}), fail, "not verified"},
		{"admin", func(g *gateFacts) { g.admin = "10.0.0.5:10432" }, warn, "not a loopback address"},
		{"admin", func(g *gateFacts) { g.admin = "" }, pass, ""},
		{"admin", func(g *gateFacts) { g.admin, g.adminAsks = "10.0.0.5:10432", true }, pass, "must show a certificate"},
		{"firewall", func(g *gateFacts) { g.firewall.err = errNoTable }, warn, "no table inet pgwicket"},
		{"firewall", func(g *gateFacts) { g.firewall.err = errors.New("no nft") }, skip, "no nft"},
		{"firewall", func(g *gateFacts) { g.firewall.differences = []string{"set a lacks 10.0.0.0/8"} }, warn, "set a lacks 10.0.0.0/8"},
		{"firewall", func(g *gateFacts) { g.listen, g.firewall.err = []string{"127.0.0.1:5432", "[::1]:5432"}, errNoTable }, pass, "own addresses only"},
		{"user", func(g *gateFacts) { g.user = "" }, warn, "stays root"},
		{"user", func(g *gateFacts) { g.user, g.root = "", false }, pass, ""},
		{"landlock", func(g *gateFacts) { g.landlock = false }, warn, "is off"},
	})
}

// chain makes certificates by a template, the last of them signed by itself.
func chain(t *testing.T, edits ...func(*x509.Certificate)) (certs []*x509.Certificate) {
	t.Helper()
	ca := tlstest.NewCA("doctor CA")
	for _, edit := range edits {
		pair := ca.Client("leaf", func(c *x509.Certificate) { c.DNSNames = []string{"db.example.com"} }, edit)
		certs = append(certs, pair.Leaf())
	}
	return append(certs, ca.Cert)
}

// keyed is a certificate with a key of that kind, not signed by anybody.
func keyed(t *testing.T, key any) *x509.Certificate {
	t.Helper()
	return &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, PublicKey: key, DNSNames: []string{"a"}, NotAfter: time.Now().AddDate(1, 0, 0)}
}

func rsaKey(bits int) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int), bits-1, 1), E: 65537}
}

func TestDoctorTLS(t *testing.T) {
	now := time.Now()
	asIs := func(*x509.Certificate) {}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := func() tlsFacts {
		c := certificate{
			CertificateInfo: tlsconfig.CertificateInfo{File: "server.crt", KeyFile: "/etc/pgwicket/server.key", Chain: chain(t, asIs)},
			encrypted:       true, mode: 0o640, dirMode: 0o755,
		}
		return tlsFacts{
			certificates: []certificate{c}, clientCert: tlsconfig.ClientCertRequire, now: now,
			crls: []tlsconfig.CRLInfo{{File: "ca.crl", Issuer: "CN=CA", ThisUpdate: now.AddDate(0, 0, -5), NextUpdate: now.AddDate(0, 0, 5)}},
		}
	}
	with := func(certs ...*x509.Certificate) func(*tlsFacts) {
		return func(f *tlsFacts) { f.certificates[0].Chain = certs }
	}
	days := func(n int) func(*tlsFacts) {
		return func(f *tlsFacts) {
			f.certificates[0].Chain = chain(t, func(c *x509.Certificate) { c.NotAfter = now.Add(time.Duration(n)*24*time.Hour + time.Hour) })
		}
	}
	list := func(this, next time.Time) func(*tlsFacts) {
		return func(f *tlsFacts) { f.crls[0].ThisUpdate, f.crls[0].NextUpdate = this, next }
	}
	sha1 := keyed(t, rsaKey(4096))
	sha1.RawSubject, sha1.RawIssuer, sha1.SignatureAlgorithm = []byte("a"), []byte("b"), x509.SHA1WithRSA
	root := keyed(t, rsaKey(4096))
	root.SignatureAlgorithm = x509.SHA1WithRSA
	examineAilments(t, good, func(tlsFacts) []inspection[tlsFacts] { return tlsChecks() }, []ailment[tlsFacts]{
		{"passphrase", func(f *tlsFacts) { f.certificates[0].encrypted = false }, warn, "not encrypted"},
		{"key_file", func(f *tlsFacts) { f.certificates[0].mode = 0o644 }, fail, "mode 0644"},
		{"key_file", func(f *tlsFacts) { f.certificates[0].mode = 0o660 }, fail, "mode 0660"},
		{"key_file", func(f *tlsFacts) { f.certificates[0].dirMode = 0o777 }, fail, "mode 0777"},
		{"certificate_strength", with(keyed(t, rsaKey(1024))), fail, "1024 bits"},
		{"certificate_strength", with(keyed(t, rsaKey(2048))), warn, "2048 bits"},
		{"certificate_strength", with(keyed(t, rsaKey(3072))), pass, ""},
		{"certificate_strength", with(keyed(t, p224.Public())), fail, "224 bits"},
		{"certificate_strength", with(keyed(t, rsaKey(4096)), keyed(t, rsaKey(2047))), fail, "2047 bits"},
		{"certificate_strength", with(sha1), fail, "SHA1-RSA"},
		{"certificate_strength", with(root), pass, ""},
		{"certificate_names", with(chain(t, func(c *x509.Certificate) { c.DNSNames = nil })...), fail, "subject alternative name"},
		{"certificate_names", with(chain(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(10, 0, 0, 5)} })...), pass, ""},
		{"certificate_days", days(31), pass, "31 days"},
		{"certificate_days", days(29), warn, "(29 days)"},
		{"certificate_days", days(6), fail, "(6 days)"},
		{"certificate_days", days(-2), fail, "ends on"},
		{"certificate_days", with(chain(t, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })...), fail, "not valid before"},
		{"certificate_chain", with(chain(t, asIs, asIs)...), fail, "not issued by the one behind it"},
		{"certificate_chain", with(chain(t, asIs)[:1]...), pass, ""},
		{"client_cert", func(f *tlsFacts) { f.clientCert = tlsconfig.ClientCertOptional }, warn, "optional"},
		{"client_cert", func(f *tlsFacts) { f.clientCert = tlsconfig.ClientCertNone }, fail, "none"},
		{"crl", func(f *tlsFacts) { f.crls = nil }, warn, "cannot be revoked"},
		{"crl", func(f *tlsFacts) { f.clientCert = tlsconfig.ClientCertNone }, skip, "no client certificates"},
		{"crl", list(now.AddDate(0, 0, -5), now.Add(-time.Minute)), fail, "out of date"},
		{"crl", list(now.AddDate(0, 0, -95), now.AddDate(0, 0, 5)), warn, "5% fresh"},
		{"crl", list(now.AddDate(-9, 0, 0), now.AddDate(9, 0, 0)), pass, "% fresh"},
		{"crl", list(now.AddDate(0, 0, -5), time.Time{}), warn, "no next update"},
	})
}

func TestDoctorListener(t *testing.T) {
	good := func() listenerFacts {
		return listenerFacts{
			address:  "10.0.0.5:5432",
			accepted: []handshake{{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, {tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256}},
			served:   [][]byte{[]byte("one")}, expected: [][]byte{[]byte("two"), []byte("one")},
		}
	}
	accepts := func(version, suite uint16) func(*listenerFacts) {
		return func(l *listenerFacts) { l.accepted = append([]handshake{{version, suite}}, l.accepted...) }
	}
	examineAilments(t, good, func(listenerFacts) []inspection[listenerFacts] { return listenerChecks() }, []ailment[listenerFacts]{
		{"weakest_handshake", accepts(tls.VersionTLS10, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA), fail, "accepts TLSv1 with ECDHE-RSA-AES128-SHA"},
		{"weakest_handshake", accepts(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256), warn, "no forward secrecy"},
		{"weakest_handshake", func(l *listenerFacts) { l.silent = "nobody can be reached" }, skip, "nobody can be reached"},
		{"weakest_handshake", func(l *listenerFacts) { l.stranger = "it answers 'N'" }, fail, "it answers"},
		{"weakest_handshake", func(l *listenerFacts) { l.accepted = nil }, fail, "accepts no handshake"},
		{"served_certificate", func(l *listenerFacts) { l.served = [][]byte{[]byte("one"), []byte("three")} }, fail, "another certificate"},
	})
}

// rule reads a line of pg_hba.conf that has no lists.
func rule(text string) pgconf.Rule {
	f := strings.Fields(text)
	r := pgconf.Rule{File: "pg_hba.conf", Line: 7, Type: f[0], Databases: f[1:2], Users: f[2:3]}
	if f = f[3:]; r.Type != "local" {
		r.Address, f = f[0], f[1:]
	}
	r.Method, r.Options = f[0], f[1:]
	return r
}

func TestDoctorPostgres(t *testing.T) {
	good := func() *server {
		return &server{
			asked: "asked as postgres",
			sockets: []socketFacts{
				{path: "/run/app/.s.PGSQL.5432", owner: "postgres", group: "app", dir: 0o750, socket: 0o777},
				{path: "/run/other/.s.PGSQL.5432", owner: "postgres", group: "other", dir: 0o750, socket: 0o777},
			},
			settings: map[string]string{
				"listen_addresses": "", "password_encryption": "scram-sha-256", "log_connections": "on",
				"ssl": "on", "ssl_min_protocol_version": "TLSv1.2", "ssl_ciphers": "HIGH:!aNULL:!3DES",
			},
			rules: []pgconf.Rule{
				rule("local all postgres peer"), rule("host all all 127.0.0.1/32 scram-sha-256"),
				rule("host all all 0.0.0.0/0 reject"), rule("local all bob peer map=gate"), rule("local all all scram-sha-256"),
			},
			mappings: []pgconf.Mapping{{Map: "gate", System: "pgwicket", Role: "bob"}, {Map: "gate", System: "root", Role: "postgres"}, {Map: "gate", System: "postgres", Role: "all"}},
			roles:    []pgRole{{"app", false}, {"bob", false}, {"postgres", true}},
			unknown:  map[string]string{},
			gate:     gateFacts{rules: rulesFrom(t, []string{"postgres"}, acl.RuleOptions{Users: []string{"samename"}})},
		}
	}
	set := func(name, value string) func(**server) { return func(s **server) { (*s).settings[name] = value } }
	first := func(text string, settings ...string) func(**server) {
		return func(s **server) {
			(*s).rules = append([]pgconf.Rule{rule(text)}, (*s).rules...)
			for _, listen := range settings {
				(*s).settings["listen_addresses"] = listen
			}
		}
	}
	socket := func(edit func(*socketFacts)) func(**server) { return func(s **server) { edit(&(*s).sockets[0]) } }
	mapping := func(role string) func(**server) {
		return func(s **server) {
			(*s).mappings = append((*s).mappings, pgconf.Mapping{Map: "gate", System: "pgwicket", Role: role})
		}
	}
	refused := func(what string) func(**server) { return func(s **server) { (*s).unknown[what] = "permission denied" } }
	listening := func(name, value string) func(**server) {
		return func(s **server) { (*s).settings["listen_addresses"], (*s).settings[name] = "10.0.0.9", value }
	}
	broken := func(s **server) { (*s).rules[0].Mistake = "invalid method" }
	examineAilments(t, good, func(s *server) []inspection[*server] { return s.checks() }, []ailment[*server]{
		{"examined", func(s **server) { (*s).asked, (*s).unasked = "", "no such file" }, skip, "no such file"},
		{"unix_socket", socket(func(f *socketFacts) { f.dir = 0o755 }), fail, "every account of this machine can reach /run/app"},
		{"unix_socket", socket(func(f *socketFacts) { f.dir, f.socket = 0o755, 0o770 }), pass, ""},
		{"unix_socket", socket(func(f *socketFacts) { f.dir, f.socket = 0o777, 0o770 }), fail, "can be written by everybody"},
		{"unix_socket", socket(func(f *socketFacts) { f.dir = 0o770 }), warn, "can be written by its group"},
		{"unix_socket", socket(func(f *socketFacts) { f.group = "other" }), warn, "open to one group (other)"},
		{"unix_socket", socket(func(f *socketFacts) { f.ownedByOther = true }), warn, "does not belong to PostgreSQL's account"},
		{"unix_socket", socket(func(f *socketFacts) { f.path = "@pg/.s.PGSQL.5432" }), fail, "abstract"},
		{"unix_socket", socket(func(f *socketFacts) { f.trouble = "no such file" }), skip, "no such file"},
		{"listen_addresses", set("listen_addresses", "*"), fail, "every network"},
		{"listen_addresses", set("listen_addresses", "localhost, 0.0.0.0"), fail, "every network"},
		{"listen_addresses", set("listen_addresses", "10.0.0.9"), warn, "listens on 10.0.0.9, where clients"},
		{"listen_addresses", set("listen_addresses", "localhost"), warn, "every account of its machine"},
		{"pg_hba_network", first("host all all 10.0.0.0/8 scram-sha-256", "*"), fail, "«host all all 10.0.0.0/8 scram-sha-256» lets other machines in"},
		{"pg_hba_network", first("hostssl all all all cert"), warn, "once PostgreSQL listens"},
		{"pg_hba_network", broken, warn, "invalid method"},
		{"pg_hba_network", refused(theRules), skip, "permission denied"},
		{"pg_hba_trust", first("local all all trust"), fail, "«local all all trust»"},
		{"pg_hba_trust", first("host all all ::1/128 trust"), fail, "«host all all ::1/128 trust»"},
		{"pg_hba_trust", refused(theRules), skip, "permission denied"},
		{"pg_hba_method", first("local all all md5"), warn, "MD5 passwords"},
		{"pg_hba_method", first("local all all password"), warn, "as it is"},
		{"pg_hba_method", first("host all all samehost ident"), warn, "believes it"},
		{"pg_hba_method", first("local all all ident"), pass, ""},
		{"pg_hba_method", refused(theRules), skip, "permission denied"},
		{"pg_ident", mapping("postgres"), fail, `"pgwicket" may become the superuser "postgres"`},
		{"pg_ident", mapping("/^p"), fail, "superuser"},
		{"pg_ident", mapping("/("), fail, "superuser"},
		{"pg_ident", mapping("all"), fail, "superuser"},
		{"pg_ident", mapping(`\1`), fail, "superuser"},
		{"pg_ident", mapping("/^a"), pass, ""},
		{"pg_ident", func(s **server) { mapping("postgres")(s); (*s).rules = (*s).rules[:3] }, pass, ""},
		{"pg_ident", func(s **server) { (*s).mappings[0].Mistake = "missing entry" }, warn, "missing entry"},
		{"pg_ident", refused(theMappings), skip, "permission denied"},
		{"superusers", first("hostssl all postgres 10.0.0.0/8 scram-sha-256", "10.0.0.9"), fail, `lets the superuser "postgres" in from other machines, past`},
		{"superusers", first("hostssl all +dba 10.0.0.0/8 cert", "10.0.0.9"), fail, "past the gate"},
		{"superusers", first("hostssl all postgres 10.0.0.0/8 scram-sha-256"), pass, ""},
		{"superusers", func(s **server) { (*s).roles = append((*s).roles, pgRole{"dba", true}) }, warn, `password of the superuser "dba"`},
		{"superusers", func(s **server) { (*s).rules, (*s).gate.rules = (*s).rules[1:], nil }, warn, `password of the superuser "postgres"`},
		{"superusers", func(s **server) { (*s).rules = (*s).rules[1:] }, pass, ""},
		{"superusers", refused(theRoles), skip, "permission denied"},
		{"without_password", first("local all app trust"), fail, "app can be had without a password"},
		{"without_password", first("host all app 0.0.0.0/0 trust", "*"), fail, "app can be had"},
		{"without_password", first("host all app 0.0.0.0/0 trust"), pass, ""},
		{"without_password", func(s **server) { (*s).gate.rules = nil }, fail, "takes the gate's word for bob"},
		{"without_password", refused(theRoles), skip, "permission denied"},
		{"password_encryption", set("password_encryption", "md5"), warn, "is md5"},
		{"password_encryption", func(s **server) { (*s).md5 = []string{"a", "b", "c", "d", "e", "f"} }, warn, "a, b, c, d, e and 1 more"},
		{"ssl", listening("ssl", "off"), fail, "in clear"},
		{"ssl", func(s **server) { listening("ssl", "off")(s); (*s).settings["listen_addresses"] = "localhost" }, warn, "in clear"},
		{"ssl", set("ssl", "off"), pass, "needs no TLS"},
		{"ssl", listening("ssl_min_protocol_version", "TLSv1"), fail, `"TLSv1"`},
		{"ssl", listening("ssl_min_protocol_version", ""), fail, `""`},
		{"ssl", listening("ssl_ciphers", "HIGH:MEDIUM:+3DES:!aNULL"), warn, "has MEDIUM"},
		{"ssl", listening("ssl_ciphers", "HIGH:+3DES:!aNULL"), pass, ""},
		{"log_connections", set("log_connections", "off"), warn, "is off"},
		{"log_connections", set("log_connections", ""), warn, "is off"},
		{"log_connections", set("log_connections", "receipt,authorization"), pass, ""},
	})
}

// Machines read this: its shape stays.
func TestDoctorJSON(t *testing.T) {
	all := examine("gate", "", 0, []inspection[int]{
		{"one", func(int) []finding { return []finding{well("is «well» & good")} }},
		{"two", func(int) []finding { return []finding{found(warn, "acl.allow", "is wide", "narrow it")} }},
	})
	all = append(all, examine("listener", "10.0.0.5:5432", 0, []inspection[int]{
		{"three", func(int) []finding { return []finding{{Status: skip, Reason: "nobody is there"}} }},
	})...)
	var out bytes.Buffer
	status := printJSON(&out, "pgwicket.yaml", time.Date(2026, 11, 26, 12, 0, 0, 5, time.UTC), all)
	const want = `{
  "config": "pgwicket.yaml",
  "time": "2026-11-26T12:00:00Z",
  "worst": "warn",
  "counts": {
    "fail": 0,
    "pass": 1,
    "skip": 1,
    "warn": 1
  },
  "findings": [
    {
      "group": "gate",
      "check": "one",
      "status": "pass",
      "reason": "is «well» & good"
    },
    {
      "group": "gate",
      "check": "two",
      "status": "warn",
      "reason": "is wide",
      "where": "acl.allow",
      "fix": "narrow it"
    },
    {
      "group": "listener",
      "subject": "10.0.0.5:5432",
      "check": "three",
      "status": "skip",
      "reason": "nobody is there"
    }
  ]
}
`
	if out.String() != want || status != exitFailed {
		t.Errorf("status %d:\n%s", status, out.String())
	}
}

func TestDoctorSeverity(t *testing.T) {
	for _, c := range []struct {
		of   []verdict
		want int
	}{
		{nil, 0},
		{[]verdict{pass, skip}, 0},
		{[]verdict{pass, warn, skip}, 1},
		{[]verdict{fail, warn, skip}, 3},
	} {
		var all []finding
		for _, s := range c.of {
			all = append(all, finding{Status: s})
		}
		if got := severity(all); got != c.want {
			t.Errorf("%v: %d", c.of, got)
		}
	}
}

// What check warns of is lost only where a finding has said it.
func TestDoctorWarnings(t *testing.T) {
	problems := []config.Problem{
		{Key: "acl.allow[0]", Text: "a"}, {Key: "acl.allowance", Text: "b"}, {Key: "log.format", Text: "c"}, {Key: "backend.host", Text: "d"},
	}
	good := well("")
	good.key = "log.format"
	var got []string
	for _, f := range withWarnings([]finding{found(fail, "acl.allow", "", ""), good, socketFinding(skip, "", "")}, problems) {
		if f.Check == "check" {
			got = append(got, f.Where)
		}
	}
	if strings.Join(got, " ") != "acl.allowance log.format" {
		t.Error(got)
	}
}

// docs/troubleshooting.md has every check, and none that there is not.
func TestDoctorChecksAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Doctor\n")
	section, _, _ = strings.Cut(section, "\n`--json` prints ")
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	have := []string{"check"}
	for _, c := range gateChecks() {
		have = append(have, c.name)
	}
	for _, c := range tlsChecks() {
		have = append(have, c.name)
	}
	for _, c := range listenerChecks() {
		have = append(have, c.name)
	}
	for _, c := range (&server{asked: "yes"}).checks() {
		have = append(have, c.name)
	}
	slices.Sort(documented)
	slices.Sort(have)
	if !slices.Equal(documented, have) {
		t.Errorf("docs/troubleshooting.md has\n%v, doctor\n%v", documented, have)
	}
}

// A role that may not read what doctor asks for is told what is missing.
func TestDoctorAsks(t *testing.T) {
	db, err := database.get()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(db.SocketDir, ".s.PGSQL.5432")
	ask := func(user string) *server {
		p := patient{user: user, database: "postgres"}
		s := &server{unknown: make(map[string]string)}
		conn, err := p.connect(context.Background(), path)
		if err != nil {
			s.unasked = reason(err)
			return s
		}
		defer conn.Close(context.Background())
		s.ask(context.Background(), conn)
		return s
	}
	s := ask(pgtest.Superuser)
	if len(s.unknown) > 0 && s.unknown[theMappings] == "" || s.settings["unix_socket_directories"] != db.SocketDir || s.settings["log_connections"] != "on" {
		t.Errorf("unknown %v, settings %v", s.unknown, s.settings)
	}
	if len(s.rules) != 2 || s.rules[0].String() != "local all postgres trust" || filepath.Base(s.rules[0].File) != "pg_hba.conf" || s.rules[1].Line != 2 {
		t.Errorf("rules %+v", s.rules)
	}
	if !slices.Contains(s.roles, pgRole{role, false}) || !slices.Contains(s.roles, pgRole{pgtest.Superuser, true}) {
		t.Errorf("roles %v", s.roles)
	}
	t.Setenv("PGPASSWORD", password)
	s = ask(role)
	for _, what := range []string{theRules, theMappings, theHashes} {
		if s.unknown[what] == "" {
			t.Errorf("%s may be read by %s", what, role)
		}
	}
	if s.asked == "" || s.settings["listen_addresses"] != "" || len(s.roles) == 0 {
		t.Errorf("%+v", s)
	}
	t.Setenv("PGPASSWORD", "wrong")
	if s = ask(role); s.asked != "" || !strings.Contains(s.unasked, "password authentication failed") {
		t.Errorf("%+v", s)
	}
}
