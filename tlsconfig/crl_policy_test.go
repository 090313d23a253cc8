package tlsconfig

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/crl"
	"pgwicket/internal/tlstest"
)

// loadLists loads a CRL file with that content under a policy, and returns the problems as lines of text.
func loadLists(t testing.TB, ca []*x509.Certificate, o Options, previous *crl.Set, content ...[]byte) (*crl.Set, []string) {
	t.Helper()
	o.CRLFile = filepath.Join(t.TempDir(), "crl")
	if err := os.WriteFile(o.CRLFile, bytes.Join(content, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	set, problems := loadClientCRLs(o, poolOf(ca, false), previous, time.Now())
	return set, texts(problems)
}

// TestCRLMatrix under every policy: what an option admits, and that none admits a revoked certificate.
//
// envoyproxy/envoy#18268, haproxy/haproxy#1201: a list for one level of the chain only.
// rsyslog/rsyslog#6662, haproxy/haproxy#85: expired lists. What to do about them is the operator's choice.
func TestCRLPolicies(t *testing.T) {
	t.Parallel()
	now := time.Now()
	expired := func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = now.AddDate(0, 0, -9), now.AddDate(0, 0, -2) }
	future := func(l *tlstest.CRL) { l.ThisUpdate = now.AddDate(0, 0, 2) }
	empty := func(l *tlstest.CRL) { l.Revoked = nil }
	pki := newPKI()
	mallory := pki.inter.Client("mallory").Leaf()
	root := func(edit ...func(*tlstest.CRL)) []byte {
		return pki.root.CRL(func(l *tlstest.CRL) { apply(l, edit) })
	}
	inter := func(edit ...func(*tlstest.CRL)) []byte {
		return pki.inter.CRL(func(l *tlstest.CRL) { l.Revoke(mallory); apply(l, edit) })
	}
	revokedCA := func(l *tlstest.CRL) { l.Revoke(pki.inter.Cert) }

	const day = 24 * time.Hour
	policies := map[string]Options{
		"strict":    {},
		"spelt out": {CRLCheck: CRLCheckChain, CRLMissing: CRLMissingReject, CRLStale: CRLStaleReject},
		"leaf":      {CRLCheck: CRLCheckLeaf},
		"missing":   {CRLMissing: CRLMissingAllow},
		"stale":     {CRLStale: CRLStaleAllow},
		"end":       {CRLStale: CRLStaleEnd},
		"grace":     {CRLGrace: 3 * day},
		"too short": {CRLGrace: day},
		"all":       {CRLCheck: CRLCheckLeaf, CRLMissing: CRLMissingAllow, CRLStale: CRLStaleAllow},
	}
	// The names above, or those that differ from strict.
	type verdicts map[string]Reason
	for _, c := range []struct {
		name    string
		lists   [][]byte
		strict  Reason // of a good certificate
		good    verdicts
		revoked Reason // of a revoked one
		listed  verdicts
	}{
		{"both", list(root(), inter()), "", nil, ReasonRevoked, nil},
		{"issuing CA only", list(inter()), ReasonCRLMissing, verdicts{"leaf": "", "missing": "", "all": ""}, ReasonRevoked, nil},
		{
			"root only", list(root()), ReasonCRLMissing,
			verdicts{"missing": "", "all": ""},
			ReasonCRLMissing,
			verdicts{"missing": "", "all": ""},
		},
		{"issuing CA stale", list(root(), inter(expired)), ReasonCRLStale, verdicts{"stale": "", "grace": "", "all": ""}, ReasonRevoked, nil},
		{"root stale", list(root(expired), inter()), ReasonCRLStale, verdicts{"leaf": "", "stale": "", "grace": "", "all": ""}, ReasonRevoked, nil},
		{"issuing CA not yet valid", list(root(), inter(future)), ReasonCRLStale, nil, ReasonRevoked, nil},
		{"root not yet valid", list(root(future), inter()), ReasonCRLStale, verdicts{"leaf": "", "all": ""}, ReasonRevoked, nil},
		{
			"stale and not yet valid", list(root(), inter(expired), inter(future)), ReasonCRLStale,
			verdicts{"stale": "", "grace": "", "all": ""},
			ReasonRevoked, nil,
		},
		// The CA has ended the revocation. In its grace period the old list is in date like the new one.
		{"stale that revokes and fresh that does not", list(root(), inter(expired), inter(empty)), "", nil, "", verdicts{"grace": ReasonRevoked}},
		{"stale that does not and fresh that revokes", list(root(), inter(expired, empty), inter()), "", nil, ReasonRevoked, nil},
		{
			"intermediate revoked", list(root(revokedCA), inter()), ReasonRevoked,
			verdicts{"leaf": "", "all": ""},
			ReasonRevoked, nil,
		},
		{
			"intermediate revoked, stale", list(root(revokedCA, expired), inter()), ReasonRevoked,
			verdicts{"leaf": "", "all": ""},
			ReasonRevoked, nil,
		},
		{"intermediate revoked, issuing CA missing", list(root(revokedCA)), ReasonRevoked, verdicts{"leaf": ReasonCRLMissing, "all": ""}, ReasonRevoked, verdicts{"leaf": ReasonCRLMissing, "all": ""}},
	} {
		for name, o := range policies {
			set, problems := loadLists(t, pki.certs(), o, nil, c.lists...)
			if hasError(problems) {
				t.Errorf("%s: %v", c.name, problems)
				continue
			}
			v := newVerifier(ClientCertRequire, pki.certs(), false, set)
			for _, who := range []struct {
				peer   []*x509.Certificate
				strict Reason
				unlike verdicts
			}{{pki.alice.Chain, c.strict, c.good}, {[]*x509.Certificate{mallory, pki.inter.Cert}, c.revoked, c.listed}} {
				want, ok := who.unlike[name]
				if !ok {
					want = who.strict
				}
				if got := reasonOf(t, v, now, who.peer...); got != want {
					t.Errorf("%s, %s: %s: %q, want %q", c.name, name, who.peer[0].Subject.CommonName, got, want)
				}
			}
		}
	}
}

// A grace period begins at the next update, which is out of date itself, as in OpenSSL.
func TestCRLGrace(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	next := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	until := func(l *tlstest.CRL) { l.NextUpdate = next }
	for _, c := range []struct {
		grace, after time.Duration
		want         Reason
	}{
		{0, -time.Second, ""},
		{0, 0, ReasonCRLStale},
		{time.Hour, time.Hour - time.Second, ""},
		{time.Hour, time.Hour, ReasonCRLStale},
		{1<<63 - 1, 300 * 24 * time.Hour, ""}, // 292 years
	} {
		set, _ := loadLists(t, pki.certs(), Options{CRLGrace: c.grace}, nil, pki.root.CRL(until), pki.inter.CRL(until))
		if got := reasonOf(t, newVerifier(ClientCertRequire, pki.certs(), false, set), next.Add(c.after), pki.alice.Chain...); got != c.want {
			t.Errorf("%v after the next update, with %v: %q, want %q", c.after, c.grace, got, c.want)
		}
	}
}

// The warnings of the lists say what happens to the clients.
func TestCRLPolicyWarnings(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	now := time.Now()
	expired := func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = now.AddDate(0, 0, -9), now.AddDate(0, 0, -2) }
	future := func(l *tlstest.CRL) { l.ThisUpdate = now.AddDate(0, 0, 2) }
	root, inter, staleRoot := pki.root.CRL(nil), pki.inter.CRL(nil), pki.root.CRL(expired)
	const day = 24 * time.Hour
	for _, c := range []struct {
		name  string
		o     Options
		lists [][]byte
		want  []string
	}{
		{"strict", Options{}, list(staleRoot, inter), []string{`: certificates of this CA are refused until a newer CRL is installed`}},
		{"strict, none", Options{}, list(inter), []string{`there is no CRL from "CN=root" of ca_file: certificates that it has issued are refused until`}},
		{"missing", Options{CRLMissing: CRLMissingAllow}, list(inter), []string{`there is no CRL from "CN=root" of ca_file: certificates that it has issued cannot be revoked (crl_missing: allow)`}},
		{"leaf", Options{CRLCheck: CRLCheckLeaf}, list(inter), nil},
		{"leaf, of the clients' CA", Options{CRLCheck: CRLCheckLeaf}, list(root), []string{`no CRL from "CN=intermediate"`}},
		{"leaf and missing", Options{CRLCheck: CRLCheckLeaf, CRLMissing: CRLMissingAllow}, list(inter), []string{`no CRL from "CN=root"`}},
		{"stale", Options{CRLStale: CRLStaleAllow}, list(staleRoot, inter), []string{`and is used all the same (crl_stale: allow): certificates revoked since then are admitted until`}},
		{"not yet valid", Options{CRLStale: CRLStaleAllow}, list(pki.root.CRL(future), inter), []string{`certificates of this CA are refused until`}},
		{"grace", Options{CRLGrace: 3 * day}, list(staleRoot, inter), []string{`(crl_grace): after that, certificates of this CA are refused until`}},
		{"grace that is over", Options{CRLGrace: day}, list(staleRoot, inter), []string{`certificates of this CA are refused until`}},
		// A directory may have old lists.
		{"stale beside a fresh one", Options{}, list(staleRoot, root, inter), nil},
		{"stale beside one of other certificates", Options{}, list(staleRoot, pki.root.CRL(func(l *tlstest.CRL) {
			l.Extensions = append(l.Extensions, tlstest.IssuingDistributionPoint(tlstest.Flag(2)))
		}), inter), []string{`certificates of this CA are refused until`}},
	} {
		_, problems := loadLists(t, pki.certs(), c.o, nil, c.lists...)
		checkTexts(t, c.name, problems, c.want...)
	}
}

// envoyproxy/envoy#29197: with an intermediate as the trust anchor no list of the root is needed, which is not there; that
// refused every client.
func TestIntermediateAsAnchor(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("root")
	upper := root.Intermediate("upper")
	lower := upper.Intermediate("lower")
	alice, mallory := lower.Client("alice"), lower.Client("mallory")
	pinned := lower.Client("pinned")
	lists := func(revoked ...*x509.Certificate) []byte {
		return lower.CRL(func(l *tlstest.CRL) { l.Revoke(mallory.Leaf()); l.Revoke(revoked...) })
	}
	upperList := func(revoked ...*x509.Certificate) []byte {
		return upper.CRL(func(l *tlstest.CRL) { l.Revoke(revoked...) })
	}
	stale := lower.CRL(func(l *tlstest.CRL) {
		l.Revoke(pinned.Leaf())
		l.ThisUpdate, l.NextUpdate = l.ThisUpdate.AddDate(0, 0, -9), l.ThisUpdate.AddDate(0, 0, -2)
	})
	certs := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	for _, c := range []struct {
		name        string
		ca          []*x509.Certificate
		lists       []byte
		peer        *tlstest.Pair
		chain, leaf Reason // for crl_check
	}{
		{"its own list", certs(lower.Cert), lists(), alice, "", ""},
		{"its own list revokes", certs(lower.Cert), lists(), mallory, ReasonRevoked, ReasonRevoked},
		{"no list of its own", certs(lower.Cert), upperList(), alice, ReasonCRLMissing, ReasonCRLMissing},
		{"the upper one, both lists", certs(upper.Cert), slices.Concat(lists(), upperList()), alice, "", ""},
		{"the upper one, no list of its own", certs(upper.Cert), lists(), alice, ReasonCRLMissing, ""},
		{"the upper one revokes the lower", certs(upper.Cert), slices.Concat(lists(), upperList(lower.Cert)), alice, ReasonRevoked, ""},
		{"both, the upper one revokes the lower", certs(upper.Cert, lower.Cert), slices.Concat(lists(), upperList(lower.Cert)), alice, ReasonRevoked, ""},
		{"both, nothing from the upper one", certs(upper.Cert, lower.Cert), lists(), alice, "", ""},
		{"a client's own certificate", certs(pinned.Leaf()), lists(), pinned, "", ""},
		{"a client's own, revoked by a CA of the file", certs(pinned.Leaf(), lower.Cert), lists(pinned.Leaf()), pinned, ReasonRevoked, ReasonRevoked},
		{"a client's own, revoked by a stale list", certs(pinned.Leaf(), lower.Cert), stale, pinned, ReasonRevoked, ReasonRevoked},
		{"a client's own, revoked by a CA that is not in the file", certs(pinned.Leaf()), lists(pinned.Leaf()), pinned, "", ""},
	} {
		for check, want := range map[CRLCheck]Reason{CRLCheckChain: c.chain, CRLCheckLeaf: c.leaf} {
			set, problems := loadLists(t, c.ca, Options{CRLCheck: check}, nil, c.lists)
			if hasError(problems) {
				t.Errorf("%s: %v", c.name, problems)
			}
			v := newVerifier(ClientCertRequire, c.ca, true, set)
			for _, peer := range [][]*x509.Certificate{c.peer.Chain[:1], c.peer.Chain, append(slices.Clone(c.peer.Chain), root.Cert)} {
				if len(peer) == 1 && slices.Equal(c.ca, certs(upper.Cert)) {
					continue // the lower one is nowhere
				}
				if got := reasonOf(t, v, time.Now(), peer...); got != want {
					t.Errorf("%s, %s, %d certificates sent: %q, want %q", c.name, check, len(peer), got, want)
				}
			}
		}
	}
}

// Several lists of one CA, and CAs of one name, under every policy.
func TestCAsOfOneName(t *testing.T) {
	t.Parallel()
	now := time.Now()
	one, two := tlstest.NewCA("root"), tlstest.NewCA("root")
	ca := []*x509.Certificate{one.Cert, two.Cert}
	alice, bob := one.Client("alice").Leaf(), two.Client("bob").Leaf()
	expired := func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = now.AddDate(0, 0, -9), now.AddDate(0, 0, -2) }
	revokes := func(c *x509.Certificate, edit ...func(*tlstest.CRL)) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { l.Revoke(c); apply(l, edit) }
	}
	for _, c := range []struct {
		name       string
		o          Options
		lists      [][]byte
		alice, bob Reason
	}{
		{"one has none", Options{}, list(two.CRL(nil)), ReasonCRLMissing, ""},
		{"one has none, which may be", Options{CRLMissing: CRLMissingAllow}, list(two.CRL(nil)), "", ""},
		{"one has none, and the other's names its client", Options{CRLMissing: CRLMissingAllow}, list(two.CRL(revokes(alice))), "", ""},
		{"one is stale", Options{}, list(one.CRL(expired), two.CRL(nil)), ReasonCRLStale, ""},
		{"one is stale, which may be", Options{CRLStale: CRLStaleAllow}, list(one.CRL(expired), two.CRL(nil)), "", ""},
		{"one is stale, the other's names its client", Options{}, list(one.CRL(expired), two.CRL(revokes(alice))), ReasonCRLStale, ""},
		{"several each", Options{}, list(one.CRL(nil), two.CRL(revokes(bob)), one.CRL(revokes(alice, expired)), two.CRL(nil), one.CRL(nil)), "", ReasonRevoked},
	} {
		set, problems := loadLists(t, ca, c.o, nil, c.lists...)
		if hasError(problems) {
			t.Fatal(problems)
		}
		v := newVerifier(ClientCertRequire, ca, false, set)
		if got := reasonOf(t, v, now, alice); got != c.alice {
			t.Errorf("%s: of the first %q, want %q", c.name, got, c.alice)
		}
		if got := reasonOf(t, v, now, bob); got != c.bob {
			t.Errorf("%s: of the second %q, want %q", c.name, got, c.bob)
		}
	}
}

// An issuer that may not sign lists has none, even if a list has its name.
func TestIssuerThatMayNotSignLists(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("root")
	noSign := root.Intermediate("no cRLSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	ca := []*x509.Certificate{root.Cert}
	for missing, want := range map[CRLMissing]Reason{CRLMissingReject: ReasonCRLMissing, CRLMissingAllow: ""} {
		set, _ := loadLists(t, ca, Options{CRLMissing: missing}, nil, root.CRL(nil), noSign.CRL(nil))
		if got := reasonOf(t, newVerifier(ClientCertRequire, ca, false, set), time.Now(), noSign.Client("alice").Chain...); got != want {
			t.Errorf("%s: %q, want %q", missing, got, want)
		}
	}
}

func TestDescribeHandshake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version, suite   uint16
		want, wantIsWeak string
	}{
		{tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, "TLSv1.3 with TLS_AES_128_GCM_SHA256", ""},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "TLSv1.2 with ECDHE-RSA-AES128-GCM-SHA256", ""},
		{tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, "TLSv1.2 with AES128-GCM-SHA256", "no forward secrecy"},
		{tls.VersionTLS11, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "TLSv1.1 with ECDHE-RSA-AES128-SHA", "TLSv1.1 is deprecated (RFC 8996)"},
		{tls.VersionTLS12, 0xfefe, "TLSv1.2 with 0xFEFE", "not known"},
	} {
		name, weakness := DescribeHandshake(c.version, c.suite)
		if name != c.want || !strings.Contains(weakness, c.wantIsWeak) || (c.wantIsWeak == "") != (weakness == "") {
			t.Errorf("%q, %q; want %q, %q", name, weakness, c.want, c.wantIsWeak)
		}
	}
}

func TestDescribeClients(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		edit func(*Options)
		want string
	}{
		{func(*Options) {}, "certificate required, checked for revocation"},
		{func(o *Options) { o.CRLStale = CRLStaleEnd }, "certificate required, checked for revocation"},
		{func(o *Options) { o.CRLFile = "" }, "certificate required, not checked for revocation"},
		{
			func(o *Options) { o.CRLCheck, o.CRLMissing, o.CRLStale = CRLCheckLeaf, CRLMissingAllow, CRLStaleAllow },
			"certificate required, checked for revocation (only the client's own certificate, missing lists allowed, stale lists allowed)",
		},
		{func(o *Options) { o.CRLGrace = 90 * time.Minute }, "certificate required, checked for revocation (grace of 1h30m0s after the next update)"},
	} {
		o := s.options()
		c.edit(&o)
		server := load(t, o)
		if got := server.DescribeClients(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		if server.EndOnStaleCRL != (o.CRLStale == CRLStaleEnd) {
			t.Errorf("%s: EndOnStaleCRL is %t", o.CRLStale, server.EndOnStaleCRL)
		}
	}
}

// The manual has a row for every value of every option, and no other.
func TestSecurityManual(t *testing.T) {
	t.Parallel()
	manual := string(must(os.ReadFile("../docs/security.md")))
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(crl_[a-z]+: [a-z0-9]+)`").FindAllStringSubmatch(manual, -1) {
		rows = append(rows, m[1])
	}
	want := []string{"crl_check: chain", "crl_check: leaf", "crl_missing: reject", "crl_missing: allow", "crl_stale: reject", "crl_stale: allow", "crl_stale: end", "crl_grace: 0s"}
	if !slices.Equal(rows, want) {
		t.Errorf("docs/security.md has rows for\n%q\nand there are\n%q", rows, want)
	}
	// The list above is complete: it has all the options, and each refuses other values.
	s := newSite(t)
	options := reflect.TypeFor[Options]()
	for i := range options.NumField() {
		key, _ := options.Field(i).Tag.Lookup("yaml")
		if !strings.HasPrefix(key, "crl_") || key == "crl_file" || key == "crl_dir" || key == "crl_urls" {
			continue
		}
		if !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(w, key+": ") }) {
			t.Errorf("%s is not in the list", key)
		}
		if options.Field(i).Type.Kind() != reflect.String {
			continue
		}
		o := s.options()
		reflect.ValueOf(&o).Elem().Field(i).SetString("x")
		_, problems := Load(o, nil, nil, time.Now())
		var words []string
		for _, w := range want {
			if word, ok := strings.CutPrefix(w, key+": "); ok {
				words = append(words, word)
			}
		}
		if want := fmt.Sprintf(`%s: "x" is not known: write %s`, key, alternatives(words)); len(problems) != 1 || problems[0].String() != want {
			t.Errorf("got %v, want %s", problems, want)
		}
	}
}
