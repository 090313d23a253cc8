//go:build unix

package doctor

import (
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

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/internal/doctor/machine"
	"pgwicket/internal/doctor/postgres"
	"pgwicket/internal/golden"
	"pgwicket/internal/nftables"
	"pgwicket/internal/pgconf"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/policy"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// fault is a change to a state without findings, and what a check must find then;
// want is Pass for a change that is no fault.
type fault[S any] struct {
	check string
	edit  func(*S)
	want  Status
	text  string // in the reason
}

// testFaults tests that the good state passes every check, that each fault is found,
// with its place and its fix, and that every check has a fault.
func testFaults[S any](t *testing.T, good func() S, checks func(S) []check[S], faults []fault[S]) {
	t.Helper()
	run := func(state S) []Finding { return runChecks("group", "subject", state, checks(state)) }
	for _, f := range run(good()) {
		if f.Status != Pass {
			t.Errorf("good state: %+v", f)
		}
	}
	tried := map[string]bool{}
	for _, a := range faults {
		state := good()
		a.edit(&state)
		var of []Finding
		for _, f := range run(state) {
			if f.Check == a.check {
				of = append(of, f)
			}
		}
		if a.want != Pass {
			tried[a.check] = true
		}
		at := slices.IndexFunc(of, func(f Finding) bool { return f.Status == a.want && strings.Contains(f.Reason, a.text) })
		switch {
		case at < 0:
			t.Errorf("%s: %+v, none of them %v with %q", a.check, of, a.want, a.text)
		case a.want == Pass && len(of) > 1:
			t.Errorf("%s: %+v besides Pass", a.check, of)
		case (a.want == Warn || a.want == Fail) && (of[at].Where == "" || of[at].Fix == ""):
			t.Errorf("%s: has no place or no fix: %+v", a.check, of[at])
		}
	}
	for _, c := range checks(good()) {
		if !tried[c.name] {
			t.Errorf("no fault for %s", c.name)
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

func TestGate(t *testing.T) {
	t.Parallel()
	good := func() gateState {
		return gateState{
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
	allow := func(prefix string) func(*gateState) {
		return func(g *gateState) { g.allowed = []netip.Prefix{netip.MustParsePrefix(prefix)} }
	}
	host := func(h proxy.Host) func(*gateState) {
		return func(g *gateState) { h.Network = "tcp"; g.hosts = []*proxy.Host{&h} }
	}
	testFaults(t, good, func(gateState) []check[gateState] { return gateChecks() }, []fault[gateState]{
		{"account", func(g *gateState) {
			g.unreachable = []config.Problem{{Key: "backend.host", Text: "the account pgwicket may not enter /run/pg, so no session can start: make a directory"}}
		}, Fail, "the account pgwicket may not enter /run/pg, so no session can start"},
		{"account", func(g *gateState) {
			g.unreachable, g.unreachableErr = []config.Problem{{Key: "backend.host", Text: "there is no socket /run/pg/.s.PGSQL.5432: start PostgreSQL"}}, errors.New("no such program")
		}, Fail, "there is no socket /run/pg/.s.PGSQL.5432"},
		{"account", func(g *gateState) { g.unreachableErr = errors.New("no such program") }, Skip, "no such program"},
		{"listen", func(g *gateState) { g.listen = append(g.listen, "0.0.0.0:5432") }, Warn, "every network"},
		{"listen", func(g *gateState) { g.listen = []string{"[::]:5432"} }, Warn, "every network"},
		{"allowlist", allow("0.0.0.0/0"), Fail, "whole internet"},
		{"allowlist", allow("::/0"), Fail, "whole internet"},
		{"allowlist", allow("128.0.0.0/1"), Fail, "whole internet"},
		{"allowlist", allow("10.0.0.0/8"), Warn, "very wide"},
		{"allowlist", allow("10.0.0.0/9"), Pass, ""},
		{"allowlist", allow("2001:db8::/32"), Warn, "very wide"},
		{"allowlist", func(g *gateState) { g.allowed = nil }, Warn, "no client can connect"},
		{
			"rules", func(g *gateState) {
				g.rules = rulesFrom(t, nil, acl.RuleOptions{Name: "one", Users: []string{"a*"}}, acl.RuleOptions{Name: "two", Users: []string{"ab"}})
			}, Warn, `"two" never decides: "one" before it`,
		},
		{"rules", func(g *gateState) { g.rules = nil }, Pass, "there are none"},
		{"recheck", func(g *gateState) { g.recheck = policy.Off }, Warn, "stay open"},
		{"recheck", func(g *gateState) { g.recheck = policy.WhenIdle }, Pass, ""},
		{"backend", host(proxy.Host{Address: "10.0.0.9:5432"}), Fail, "in clear"},
		{"backend", host(proxy.Host{Address: "127.0.0.1:5432"}), Warn, "in clear"},
		{"backend", host(proxy.Host{Address: "db:5432", TLS: &tls.Config{}, Clear: true}), Fail, "may be in clear"},
		{"backend", host(proxy.Host{Address: "db:5432", TLS: &tls.Config{InsecureSkipVerify: true}}), Fail, "not verified"},
		{"admin", func(g *gateState) { g.admin = "10.0.0.5:10432" }, Warn, "not a loopback address"},
		{"admin", func(g *gateState) { g.admin = "" }, Pass, ""},
		{"admin", func(g *gateState) { g.admin, g.adminVerifies = "10.0.0.5:10432", true }, Pass, "requires a certificate"},
		{"firewall", func(g *gateState) { g.firewall.err = nftables.ErrNoTable }, Warn, "no table inet pgwicket"},
		{"firewall", func(g *gateState) { g.firewall.err = errors.New("no nft") }, Skip, "no nft"},
		{"firewall", func(g *gateState) { g.firewall.differences = []string{"set a lacks 10.0.0.0/8"} }, Warn, "set a lacks 10.0.0.0/8"},
		{"firewall", func(g *gateState) {
			g.listen, g.firewall.err = []string{"127.0.0.1:5432", "[::1]:5432"}, nftables.ErrNoTable
		}, Pass, "loopback addresses only"},
		{"user", func(g *gateState) { g.user = "" }, Warn, "stays root"},
		{"user", func(g *gateState) { g.user, g.root = "", false }, Pass, ""},
		{"landlock", func(g *gateState) { g.landlock = false }, Warn, "is off"},
		{"groups", func(g *gateState) {
			g.groups, g.groupProblems = []config.GroupLookup{{}}, []config.Problem{{Key: "backend.groups", Text: "the members of +dba cannot be looked up"}}
		}, Fail, "the members of +dba cannot be looked up"},
		{"groups", func(g *gateState) {
			g.groups, g.groupProblems = []config.GroupLookup{{}}, []config.Problem{{Key: "acl.rules", Text: "a rule names +dba, and PostgreSQL has no such role"}}
		}, Warn, "PostgreSQL has no such role"},
		{"groups", func(g *gateState) { g.groups = []config.GroupLookup{{}} }, Pass, "every role in the rules"},
	})
}

// chain returns certificates, one for each edit of a template, and their CA.
func chain(t *testing.T, edits ...func(*x509.Certificate)) (certs []*x509.Certificate) {
	t.Helper()
	ca := tlstest.NewCA("doctor CA")
	for _, edit := range edits {
		pair := ca.Client("leaf", func(c *x509.Certificate) { c.DNSNames = []string{"db.example.com"} }, edit)
		certs = append(certs, pair.Leaf())
	}
	return append(certs, ca.Cert)
}

// keyed returns an unsigned certificate with a key.
func keyed(t *testing.T, key any) *x509.Certificate {
	t.Helper()
	return &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}, PublicKey: key, DNSNames: []string{"a"}, NotAfter: time.Now().AddDate(1, 0, 0)}
}

func rsaKey(bits int) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int), bits-1, 1), E: 65537}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	now := time.Now()
	asIs := func(*x509.Certificate) {}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := func() tlsFiles {
		c := certificate{
			CertificateInfo: tlsconfig.CertificateInfo{File: "server.crt", KeyFile: "/etc/pgwicket/server.key", Chain: chain(t, asIs)},
			encrypted:       true, mode: 0o640, dirMode: 0o755,
		}
		return tlsFiles{
			certificates: []certificate{c}, clientCert: tlsconfig.ClientCertRequire, now: now,
			crls: []tlsconfig.CRLInfo{{File: "ca.crl", Issuer: "CN=CA", ThisUpdate: now.AddDate(0, 0, -5), NextUpdate: now.AddDate(0, 0, 5)}},
		}
	}
	with := func(certs ...*x509.Certificate) func(*tlsFiles) {
		return func(f *tlsFiles) { f.certificates[0].Chain = certs }
	}
	days := func(n int) func(*tlsFiles) {
		return func(f *tlsFiles) {
			f.certificates[0].Chain = chain(t, func(c *x509.Certificate) { c.NotAfter = now.Add(time.Duration(n)*24*time.Hour + time.Hour) })
		}
	}
	list := func(this, next time.Time) func(*tlsFiles) {
		return func(f *tlsFiles) { f.crls[0].ThisUpdate, f.crls[0].NextUpdate = this, next }
	}
	authority := func(ca tlsconfig.Authority) func(*tlsFiles) {
		ca.Origin, ca.Subject, ca.Serial = `certificate 2 of "ca.crt"`, "CN=clients", "0A"
		if ca.NotAfter.IsZero() {
			ca.NotAfter = now.AddDate(1, 0, 0)
		}
		return func(f *tlsFiles) { f.authorities = []tlsconfig.Authority{ca} }
	}
	sha1 := keyed(t, rsaKey(4096))
	sha1.RawSubject, sha1.RawIssuer, sha1.SignatureAlgorithm = []byte("a"), []byte("b"), x509.SHA1WithRSA
	root := keyed(t, rsaKey(4096))
	root.SignatureAlgorithm = x509.SHA1WithRSA
	testFaults(t, good, func(tlsFiles) []check[tlsFiles] { return tlsChecks() }, []fault[tlsFiles]{
		{"passphrase", func(f *tlsFiles) { f.certificates[0].encrypted = false }, Warn, "not encrypted"},
		{"passphrase", func(f *tlsFiles) { f.certificates[0].beside = "/etc/pgwicket/passphrase" }, Warn, "the passphrase lies beside the key"},
		{"key_file", func(f *tlsFiles) { f.certificates[0].mode = 0o644 }, Fail, "mode 0644"},
		{"key_file", func(f *tlsFiles) { f.certificates[0].mode = 0o660 }, Fail, "mode 0660"},
		{"key_file", func(f *tlsFiles) { f.certificates[0].dirMode = 0o777 }, Fail, "mode 0777"},
		{"certificate_strength", with(keyed(t, rsaKey(1024))), Fail, "1024 bits"},
		{"certificate_strength", with(keyed(t, rsaKey(2048))), Warn, "2048 bits"},
		{"certificate_strength", with(keyed(t, rsaKey(3072))), Pass, ""},
		{"certificate_strength", with(keyed(t, p224.Public())), Fail, "224 bits"},
		{"certificate_strength", with(keyed(t, rsaKey(4096)), keyed(t, rsaKey(2047))), Fail, "2047 bits"},
		{"certificate_strength", with(sha1), Fail, "SHA1-RSA"},
		{"certificate_strength", with(root), Pass, ""},
		{"certificate_strength", authority(tlsconfig.Authority{Key: "RSA 1024", KeyBits: 80, Root: true}), Fail, `the CA "CN=clients" (serial 0A) has a key of 80 bits of security (RSA 1024)`},
		{"certificate_strength", authority(tlsconfig.Authority{Key: "RSA 2048", KeyBits: 112, Root: true}), Warn, "112 bits of security"},
		{"certificate_strength", authority(tlsconfig.Authority{KeyBits: 128, Signature: "SHA1-RSA", SignatureBits: 63}), Fail, "signed with SHA1-RSA"},
		{"certificate_strength", authority(tlsconfig.Authority{KeyBits: 128, SignatureBits: 63, Root: true}), Pass, ""},
		{"certificate_names", with(chain(t, func(c *x509.Certificate) { c.DNSNames = nil })...), Fail, "subject alternative name"},
		{"certificate_names", with(chain(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(10, 0, 0, 5)} })...), Pass, ""},
		{"certificate_days", days(31), Pass, "31 days"},
		{"certificate_days", days(29), Warn, "(29 days)"},
		{"certificate_days", days(6), Fail, "(6 days)"},
		{"certificate_days", days(-2), Fail, "ends on"},
		{"certificate_days", authority(tlsconfig.Authority{KeyBits: 128, SignatureBits: 128, NotAfter: now.AddDate(0, 0, 29)}), Warn, `the CA "CN=clients" (serial 0A) ends on`},
		{"certificate_days", authority(tlsconfig.Authority{KeyBits: 128, SignatureBits: 128, NotAfter: now.AddDate(0, 0, 6)}), Fail, "ends on"},
		{"certificate_days", with(chain(t, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })...), Fail, "not valid before"},
		{"certificate_chain", with(chain(t, asIs, asIs)...), Fail, "not issued by the next one"},
		{"certificate_chain", with(chain(t, asIs)[:1]...), Pass, ""},
		{"client_cert", func(f *tlsFiles) { f.clientCert = tlsconfig.ClientCertOptional }, Warn, "optional"},
		{"client_cert", func(f *tlsFiles) { f.clientCert = tlsconfig.ClientCertNone }, Fail, "none"},
		{"crl", func(f *tlsFiles) { f.crls = nil }, Warn, "cannot be revoked"},
		{"crl", func(f *tlsFiles) { f.clientCert = tlsconfig.ClientCertNone }, Skip, "no client certificates"},
		{"crl", list(now.AddDate(0, 0, -5), now.Add(-time.Minute)), Fail, "expired on"},
		{"crl", list(now.AddDate(0, 0, -95), now.AddDate(0, 0, 5)), Warn, "5% of its validity"},
		{"crl", list(now.AddDate(-9, 0, 0), now.AddDate(9, 0, 0)), Pass, "% of its validity"},
		{"crl", list(now.AddDate(0, 0, -5), time.Time{}), Warn, "no next update"},
	})
}

func TestListener(t *testing.T) {
	t.Parallel()
	good := func() listenerScan {
		return listenerScan{
			address:  "10.0.0.5:5432",
			accepted: []handshake{{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, {tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256}},
			served:   [][]byte{[]byte("one")}, expected: [][]byte{[]byte("two"), []byte("one")},
			session: &sessionTrial{user: "app", database: "shop", needsCert: true, sentCert: true},
		}
	}
	refused := func(code, message string) func(*listenerScan) {
		return func(l *listenerScan) { l.session.err = &pgconn.PgError{Code: code, Message: message} }
	}
	accepts := func(version, suite uint16) func(*listenerScan) {
		return func(l *listenerScan) { l.accepted = append([]handshake{{version, suite}}, l.accepted...) }
	}
	if f := (listenerScan{session: good().session}).checkSession(); len(f) != 1 || f[0].Status != Pass || !strings.Contains(f[0].Reason, `ready for a session of "app" in "shop"`) {
		t.Errorf("%+v", f)
	}
	testFaults(t, good, func(listenerScan) []check[listenerScan] { return listenerChecks() }, []fault[listenerScan]{
		{"weakest_handshake", accepts(tls.VersionTLS10, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA), Fail, "accepts TLSv1 with ECDHE-RSA-AES128-SHA"},
		{"weakest_handshake", accepts(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256), Warn, "no forward secrecy"},
		{"weakest_handshake", func(l *listenerScan) { l.unreachable = "it closes the connection" }, Skip, "it closes the connection"},
		{"weakest_handshake", func(l *listenerScan) { l.nothing, l.unreachable = true, "nothing listens" }, Warn, "nothing listens"},
		{"weakest_handshake", func(l *listenerScan) { l.nothing, l.wanted, l.unreachable = true, true, "nothing listens" }, Fail, "nothing listens, so no session can start"},
		{"weakest_handshake", func(l *listenerScan) { l.notGate = "it answers 'N'" }, Fail, "it answers"},
		{"weakest_handshake", func(l *listenerScan) { l.accepted = nil }, Fail, "accepts no handshake"},
		{"session", refused("57P03", "the database cannot be reached"), Fail, "no session can start: the database cannot be reached"},
		{"session", refused("28P01", "password authentication failed"), Skip, `the session of "app" in "shop" was refused: password authentication failed`},
		{"session", refused("3D000", "no such database"), Skip, "no such database"},
		{"session", refused("53300", "too many clients"), Warn, "too many clients (53300)"},
		{"session", func(l *listenerScan) { l.session.err = errors.New("unexpected EOF") }, Fail, "could not be opened: unexpected EOF"},
		{"session", func(l *listenerScan) {
			refused("28000", "connection requires a valid client certificate")(l)
			l.session.sentCert = false
		}, Skip, "the gate requires a client certificate"},
		{"served_certificate", func(l *listenerScan) { l.served = [][]byte{[]byte("one"), []byte("three")} }, Fail, "another certificate"},
	})
}

// rule parses a line of pg_hba.conf without lists.
func rule(text string) pgconf.Rule {
	f := strings.Fields(text)
	r := pgconf.Rule{File: "pg_hba.conf", Line: 7, Type: f[0], Databases: f[1:2], Users: f[2:3]}
	if f = f[3:]; r.Type != "local" {
		r.Address, f = f[0], f[1:]
	}
	r.Method, r.Options = f[0], f[1:]
	return r
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	good := func() *server {
		return &server{
			examined: "connected as postgres",
			sockets: []socketState{
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
			gate:     gateState{rules: rulesFrom(t, []string{"postgres"}, acl.RuleOptions{Users: []string{"samename"}})},
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
	socket := func(edit func(*socketState)) func(**server) { return func(s **server) { edit(&(*s).sockets[0]) } }
	mapping := func(role string) func(**server) {
		return func(s **server) {
			(*s).mappings = append((*s).mappings, pgconf.Mapping{Map: "gate", System: "pgwicket", Role: role})
		}
	}
	refused := func(what string) func(**server) { return func(s **server) { (*s).unknown[what] = "permission denied" } }
	listening := func(name, value string) func(**server) {
		return func(s **server) { (*s).settings["listen_addresses"], (*s).settings[name] = "10.0.0.9", value }
	}
	admitting := func(o acl.RuleOptions) func(**server) {
		return func(s **server) { (*s).gate.rules = rulesFrom(t, []string{"postgres"}, o) }
	}
	broken := func(s **server) { (*s).rules[0].Mistake = "invalid method" }
	testFaults(t, good, func(s *server) []check[*server] { return s.checks() }, []fault[*server]{
		{"examined", func(s **server) { (*s).examined, (*s).unexamined = "", "no such file" }, Skip, "no such file"},
		{"unix_socket", socket(func(f *socketState) { f.dir = 0o755 }), Fail, "every account of this machine can connect to /run/app"},
		{"unix_socket", socket(func(f *socketState) { f.dir, f.socket = 0o755, 0o770 }), Pass, ""},
		{"unix_socket", socket(func(f *socketState) { f.dir, f.socket = 0o777, 0o770 }), Fail, "is writable for every account"},
		{"unix_socket", socket(func(f *socketState) { f.dir = 0o770 }), Warn, "is writable for its group"},
		{"unix_socket", socket(func(f *socketState) { f.group = "other" }), Warn, "open to the same group (other)"},
		{"unix_socket", socket(func(f *socketState) { f.ownedByOther = true }), Warn, "does not belong to the account of PostgreSQL"},
		{"unix_socket", socket(func(f *socketState) { f.path = "@pg/.s.PGSQL.5432" }), Fail, "abstract"},
		{"unix_socket", socket(func(f *socketState) { f.problem = "no such file" }), Skip, "no such file"},
		{"listen_addresses", set("listen_addresses", "*"), Fail, "every network"},
		{"listen_addresses", set("listen_addresses", "localhost, 0.0.0.0"), Fail, "every network"},
		{"listen_addresses", set("listen_addresses", "10.0.0.9"), Warn, "listens on 10.0.0.9, where clients"},
		{"listen_addresses", set("listen_addresses", "localhost"), Warn, "every account of its machine"},
		{"pg_hba_network", first("host all all 10.0.0.0/8 scram-sha-256", "*"), Fail, `"host all all 10.0.0.0/8 scram-sha-256" allows other machines`},
		{"pg_hba_network", first("hostssl all all all cert"), Warn, "if PostgreSQL listened"},
		{"pg_hba_network", broken, Warn, "invalid method"},
		{"pg_hba_network", refused(hbaRules), Skip, "permission denied"},
		{"pg_hba_trust", first("local all all trust"), Fail, `"local all all trust"`},
		{"pg_hba_trust", first("host all all ::1/128 trust"), Fail, `"host all all ::1/128 trust"`},
		{"pg_hba_trust", refused(hbaRules), Skip, "permission denied"},
		{"pg_hba_shadowed", first("local all all scram-sha-256"), Note, "never decides"},
		{"pg_hba_shadowed", first("host all all all scram-sha-256"), Warn, "rejects nobody"},
		{"pg_hba_shadowed", first("host replication all all scram-sha-256"), Pass, ""},
		{"pg_hba_shadowed", first("host all all 10.0.0.0/8 scram-sha-256"), Pass, ""},
		{"pg_hba_shadowed", refused(hbaRules), Skip, "permission denied"},
		{"pg_hba_helpers", first("host all all 10.0.0.0/8 ldap ldapserver=x"), Warn, "in clear"},
		{"pg_hba_helpers", first("host all all 10.0.0.0/8 ldap ldapserver=x ldaptls=true"), Pass, ""},
		{"pg_hba_helpers", first("host all all 10.0.0.0/8 radius radiussecrets=hidden"), Warn, `"host all all 10.0.0.0/8 radius" protects`},
		{"pg_hba_helpers", first("host all all 10.0.0.0/8 oauth delegate_ident_mapping=true"), Warn, "the validator"},
		{"pg_hba_helpers", refused(hbaRules), Skip, "permission denied"},
		{"pg_hba_method", first("local all all md5"), Warn, "MD5 passwords"},
		{"pg_hba_method", first("local all all password"), Warn, "in clear"},
		{"pg_hba_method", first("host all all samehost ident"), Warn, "relies on the machine"},
		{"pg_hba_method", first("local all all ident"), Pass, ""},
		{"pg_hba_method", refused(hbaRules), Skip, "permission denied"},
		{"pg_ident", mapping("postgres"), Fail, `"pgwicket" can become the superuser "postgres"`},
		{"pg_ident", mapping("/^p"), Fail, "superuser"},
		{"pg_ident", mapping("/("), Fail, "superuser"},
		{"pg_ident", mapping("all"), Fail, "superuser"},
		{"pg_ident", mapping(`\1`), Fail, "superuser"},
		{"pg_ident", mapping("/^a"), Pass, ""},
		{"pg_ident", func(s **server) { mapping("postgres")(s); (*s).rules = (*s).rules[:3] }, Pass, ""},
		{"pg_ident", func(s **server) { (*s).mappings[0].Mistake = "missing entry" }, Warn, "missing entry"},
		{"pg_ident", refused(identMappings), Skip, "permission denied"},
		{"superusers", first("hostssl all postgres 10.0.0.0/8 scram-sha-256", "10.0.0.9"), Fail, `allows the superuser "postgres" from other machines, around`},
		{"superusers", first("hostssl all +dba 10.0.0.0/8 cert", "10.0.0.9"), Fail, "around the gate"},
		{"superusers", first("hostssl all postgres 10.0.0.0/8 scram-sha-256"), Pass, ""},
		{"superusers", func(s **server) { (*s).roles = append((*s).roles, pgRole{"dba", true}) }, Warn, `allow the superuser "dba" from other machines, by password`},
		{"superusers", func(s **server) { (*s).rules, (*s).gate.rules = (*s).rules[1:], nil }, Warn, `allow the superuser "postgres" from other machines, by password`},
		{"superusers", func(s **server) { (*s).rules = (*s).rules[1:] }, Pass, ""},
		{"superusers", refused(roleList), Skip, "permission denied"},
		{"without_password", first("local all app trust"), Fail, "app can log in without a password"},
		{"without_password", first("host all app 0.0.0.0/0 trust", "*"), Fail, "app can log in"},
		{"without_password", first("host all app 0.0.0.0/0 trust"), Pass, ""},
		{"without_password", func(s **server) { (*s).gate.rules = nil }, Fail, "the gate can log in as bob"},
		{"without_password", admitting(acl.RuleOptions{Name: "staff", Users: []string{"+staff"}}), Warn, `rule "staff" may admit any client as bob`},
		{"without_password", admitting(acl.RuleOptions{Users: []string{"app"}}), Pass, ""},
		{"without_password", admitting(acl.RuleOptions{Users: []string{"bob"}, Certificate: acl.CertificateOptions{CN: "bob's laptop"}}), Pass, ""},
		{"without_password", refused(roleList), Skip, "permission denied"},
		{"password_encryption", set("password_encryption", "md5"), Warn, "is md5"},
		{"password_encryption", func(s **server) { (*s).md5 = []string{"a", "b", "c", "d", "e", "f"} }, Warn, "a, b, c, d, e and 1 more"},
		{"ssl", listening("ssl", "off"), Fail, "in clear"},
		{"ssl", func(s **server) { listening("ssl", "off")(s); (*s).settings["listen_addresses"] = "localhost" }, Warn, "in clear"},
		{"ssl", set("ssl", "off"), Pass, "not needed"},
		{"ssl", listening("ssl_min_protocol_version", "TLSv1"), Fail, `"TLSv1"`},
		{"ssl", listening("ssl_min_protocol_version", ""), Fail, `""`},
		{"ssl", listening("ssl_ciphers", "HIGH:MEDIUM:+3DES:!aNULL"), Warn, "has MEDIUM"},
		{"ssl", listening("ssl_ciphers", "HIGH:+3DES:!aNULL"), Pass, ""},
		{"log_connections", set("log_connections", "off"), Warn, "is off"},
		{"log_connections", set("log_connections", ""), Warn, "is off"},
		{"log_connections", set("log_connections", "receipt,authorization"), Pass, ""},
	})
}

// A warning of the configuration is left out only where a finding is about its key.
func TestWarnings(t *testing.T) {
	t.Parallel()
	problems := []config.Problem{
		{Key: "acl.allow[0]", Text: "a"}, {Key: "acl.allowance", Text: "b"}, {Key: "log.format", Text: "c"}, {Key: "backend.host", Text: "d"},
	}
	good := pass("").WithKey("log.format")
	var got []string
	for _, f := range withWarnings([]Finding{finding(Fail, "acl.allow", "", ""), good, socketFinding(Skip, "", "")}, problems) {
		if f.Check == "check" {
			got = append(got, f.Where)
		}
	}
	if strings.Join(got, " ") != "acl.allowance log.format" {
		t.Error(got)
	}
}

// Without a gate, clients may connect from other machines, but not in clear or from
// everywhere, and not as a superuser.
func TestWithoutGate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		check, listen, rule string
		want                Status
		text                string
	}{
		{"listen_addresses", "*", "", Warn, "every network of its machine"},
		{"listen_addresses", "10.0.0.9", "", Pass, ""},
		{"pg_hba_network", "10.0.0.9", "host shop app 10.0.0.0/8 scram-sha-256", Warn, "accepts connections in clear"},
		{"pg_hba_network", "10.0.0.9", "hostssl shop app 10.0.0.0/8 scram-sha-256", Pass, ""},
		{"pg_hba_network", "10.0.0.9", "hostssl all all all scram-sha-256", Warn, "admits every address to every role"},
		{"pg_hba_network", "localhost", "host all all all scram-sha-256", Pass, ""},
		{"superusers", "10.0.0.9", "hostssl all postgres 10.0.0.0/8 scram-sha-256", Warn, `allows the superuser "postgres" from other machines`},
		{"superusers", "10.0.0.9", "hostssl all app 10.0.0.0/8 scram-sha-256", Pass, ""},
		{"ssl", "localhost", "", Note, "in clear"},
		{"ssl", "10.0.0.9", "", Fail, "in clear"},
		{"log_connections", "", "", Warn, "sessions leave no trace"},
		{"unix_socket", "", "", Pass, ""},
	} {
		s := &server{
			examined: "yes", alone: true, unknown: map[string]string{}, settings: map[string]string{"listen_addresses": c.listen, "ssl": "off"},
			roles: []pgRole{{"app", false}, {"postgres", true}}, sockets: []socketState{{path: "/run/postgresql/.s.PGSQL.5432", owner: "postgres", group: "postgres", dir: 0o775 &^ 0o020, socket: 0o777}},
		}
		if c.rule != "" {
			s.rules = []pgconf.Rule{rule(c.rule)}
		}
		for _, f := range runChecks("postgresql", "", s, s.checks()) {
			if f.Check == c.check && (f.Status != c.want || !strings.Contains(f.Reason, c.text) || strings.Contains(f.Reason+f.Fix, "gate")) {
				t.Errorf("%+v: %+v", c, f)
			}
		}
	}
}

func TestNamesUser(t *testing.T) {
	t.Parallel()
	for conninfo, want := range map[string]bool{
		"host=/run/x": false, "host=x user=y": true, "user = y": true, "postgresql://y@x/z": true, "postgresql://x/z?user=y": true, "postgresql://x/z@": false, "postgresql://x/z?superuser=y": false,
	} {
		if got := namesUser(conninfo); got != want {
			t.Errorf("%s: %v", conninfo, got)
		}
	}
}

// docs has every check, and none that does not exist.
func TestChecksAreDocumented(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var section string
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range regexp.MustCompile(`(?m)^\| check \|.*\n((?:\|.*\n)+)`).FindAllStringSubmatch(string(text), -1) {
			section += table[1]
		}
	}
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
	for _, c := range (&server{examined: "yes", backend: &tcpBackend{}}).checks() {
		have = append(have, c.name)
	}
	for _, name := range have {
		if subjectOf(name).heading == "" || subjectOf(name).why == "" {
			t.Errorf("%s has no heading, or no reason why it matters", name)
		}
	}
	have = append(slices.Concat(have, postgres.Names(), machine.Names()), "waivers")
	slices.Sort(documented)
	slices.Sort(have)
	if !slices.Equal(documented, have) {
		t.Errorf("doctor has (+) and docs/doctor.md has (-); see \"How to add a doctor check\" in CONTRIBUTING.md:\n%s", golden.Lists(have, documented))
	}
}

// What a role may not read is recorded as unknown, with PostgreSQL's reason.
func TestAsk(t *testing.T) {
	const role, password = "app", "correct horse"
	db, err := pgtest.Start(t.Context(), pgtest.Options{
		HBA: "local all " + pgtest.Superuser + " trust\nlocal all all scram-sha-256",
		SQL: "create role app login password 'correct horse'; create database app owner app",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	path := filepath.Join(db.SocketDir, ".s.PGSQL.5432")
	ask := func(user string) *server {
		p := target{user: user, database: "postgres"}
		s := &server{unknown: make(map[string]string)}
		conn, err := p.connect(context.Background(), path, "", nil)
		if err != nil {
			s.unexamined = postgres.Reason(err)
			return s
		}
		defer conn.Close(context.Background())
		s.ask(context.Background(), conn)
		return s
	}
	s := ask(pgtest.Superuser)
	if len(s.unknown) > 0 && s.unknown[identMappings] == "" || s.settings["unix_socket_directories"] != db.SocketDir || s.settings["log_connections"] != "on" {
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
	for _, what := range []string{hbaRules, identMappings, verifierList} {
		if s.unknown[what] == "" {
			t.Errorf("%s is known to %s", what, role)
		}
	}
	if s.examined == "" || s.settings["listen_addresses"] != "" || len(s.roles) == 0 {
		t.Errorf("%+v", s)
	}
	t.Setenv("PGPASSWORD", "wrong")
	if s = ask(role); s.examined != "" || !strings.Contains(s.unexamined, "password authentication failed") {
		t.Errorf("%+v", s)
	}
}
