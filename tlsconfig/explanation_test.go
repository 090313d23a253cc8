package tlsconfig

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/crl"
	"pgwicket/internal/tlstest"
)

// Explain returns each certificate of the chain that decides, with what the lists say about it, and the verdict of Verify.
func TestExplainClient(t *testing.T) {
	t.Parallel()
	at := time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC)
	dates := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = at.AddDate(-1, 0, 0), at.AddDate(1, 0, 0) }
	root := tlstest.NewCA("root", dates)
	inter := root.Intermediate("intermediate", dates)
	alice := inter.Client("alice", dates, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0xbeef) })
	mallory := inter.Client("mallory", dates)
	expired := inter.Client("expired", dates, func(c *x509.Certificate) { c.NotAfter = at.AddDate(0, 0, -1) })
	server := inter.Client("server", dates, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	lapsedCA := root.Intermediate("lapsed", func(c *x509.Certificate) { dates(c); c.NotAfter = at.AddDate(0, 0, -1) })
	stranger := tlstest.NewCA("stranger", dates).Intermediate("below", dates).Client("eve", dates)
	current := func(l *tlstest.CRL) {
		l.Number, l.ThisUpdate, l.NextUpdate = big.NewInt(7), at.AddDate(0, 0, -3), at.AddDate(0, 0, 4)
		l.Revoked = []tlstest.Revoked{{Serial: mallory.Leaf().SerialNumber, Date: at.AddDate(0, 0, -3), Reason: 1}}
	}
	stale := func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = at.AddDate(0, 0, -9), at.AddDate(0, 0, -2) }
	forever := func(l *tlstest.CRL) { l.Version, l.ThisUpdate, l.NextUpdate = 1, at.AddDate(0, 0, -9), time.Time{} }
	both := list(root.CRL(forever), inter.CRL(current))
	usual := []*x509.Certificate{root.Cert, inter.Cert}

	const (
		byRoot  = `not revoked by FILE (block 1, from "CN=root", no next update)`
		byInter = `not revoked by FILE (block 2, from "CN=intermediate", number 7, next update 2027-03-08T05:06:07Z)`
	)
	for _, c := range []struct {
		name    string
		ca      []*x509.Certificate
		partial bool
		o       Options
		lists   [][]byte
		peer    []*x509.Certificate
		want    []string // common name and status
		verdict string   // a part of it; empty: good
	}{
		{"good", usual, false, Options{}, both, alice.Chain, []string{"alice: " + byInter, "intermediate: " + byRoot, "root: " + byRoot}, ""},
		{
			"revoked", usual, false,
			Options{},
			both, mallory.Chain,
			[]string{`mallory: revoked on 2027-03-01 (keyCompromise) by FILE (block 2, from "CN=intermediate")`, "intermediate: " + byRoot, "root: " + byRoot},
			"was revoked on 2027-03-01 (keyCompromise)",
		},
		{
			"leaf", usual, false,
			Options{CRLCheck: CRLCheckLeaf},
			both, alice.Chain,
			[]string{"alice: " + byInter, "intermediate: not checked: crl_check: leaf", "root: not checked: crl_check: leaf"},
			"",
		},
		{
			"missing", usual, false,
			Options{},
			both[:1], alice.Chain,
			[]string{`alice: is not covered by any CRL: there is none from "CN=intermediate"`, "intermediate: " + byRoot, "root: " + byRoot},
			"is not covered by any CRL",
		},
		{
			"missing allowed", usual, false,
			Options{CRLMissing: CRLMissingAllow},
			both[:1], alice.Chain,
			[]string{`alice: not known: there is no list from "CN=intermediate", which is allowed (crl_missing: allow)`, "intermediate: " + byRoot, "root: " + byRoot},
			"",
		},
		{
			"stale", usual, false,
			Options{},
			list(root.CRL(forever), inter.CRL(stale)), alice.Chain,
			[]string{`alice: cannot be checked: FILE (block 2, from "CN=intermediate") is out of date since 2027-03-02T05:06:07Z`, "intermediate: " + byRoot, "root: " + byRoot},
			"cannot be checked",
		},
		{
			"stale allowed", usual, false,
			Options{CRLStale: CRLStaleAllow},
			list(root.CRL(forever), inter.CRL(stale)), alice.Chain[:1],
			[]string{`alice: not revoked by FILE (block 2, from "CN=intermediate", number 1, next update 2027-03-02T05:06:07Z), which is out of date and is used all the same (crl_stale: allow)`, "intermediate: " + byRoot, "root: " + byRoot},
			"",
		},
		{
			"grace", usual, false,
			Options{CRLGrace: 72 * time.Hour},
			list(root.CRL(forever), inter.CRL(stale)), alice.Chain[:1],
			[]string{`alice: not revoked by FILE (block 2, from "CN=intermediate", number 1, next update 2027-03-02T05:06:07Z), which is out of date and in its grace period (crl_grace)`, "intermediate: " + byRoot, "root: " + byRoot},
			"",
		},
		{
			"an anchor that is no root", usual[1:], true,
			Options{},
			list(nil, inter.CRL(current)), alice.Chain,
			[]string{`alice: not revoked by FILE (block 1, from "CN=intermediate", number 7, next update 2027-03-08T05:06:07Z)`, "intermediate: not checked: it is a trust anchor itself (partial_chain), and no list revokes it"},
			"",
		},
		{
			"no lists", usual, false,
			Options{},
			nil, alice.Chain,
			[]string{"alice: not checked: there is neither crl_file nor crl_dir", "intermediate: not checked: there is neither crl_file nor crl_dir", "root: not checked: there is neither crl_file nor crl_dir"},
			"",
		},
		{"expired", usual, false, Options{}, both, expired.Chain, []string{"expired: " + byInter, "intermediate: " + byRoot, "root: " + byRoot}, "expired on 2027-03-03"},
		{"wrong purpose", usual, false, Options{}, both, server.Chain, []string{"server: " + byInter, "intermediate: " + byRoot, "root: " + byRoot}, "has an extendedKeyUsage without clientAuth"},
		{
			"below a CA that has expired", usual, false,
			Options{},
			both, lapsedCA.Client("bob", dates).Chain,
			[]string{`bob: is not covered by any CRL: there is none from "CN=lapsed"`, "lapsed: " + byRoot, "root: " + byRoot},
			`CA certificate`,
		},
		{
			"stranger", usual, false,
			Options{},
			both, stranger.Chain,
			[]string{"eve: not checked: its chain does not end in ca_file", "below: not checked: its chain does not end in ca_file"},
			"is of a CA whose certificate is neither in ca_file nor was sent",
		},
		{"self-signed", usual, false, Options{}, both, []*x509.Certificate{tlstest.NewCA("self", dates).Cert}, []string{"self: not checked: its chain does not end in ca_file"}, "is self-signed and not in ca_file"},
		{"too many", usual, false, Options{}, both, slices.Repeat(alice.Chain, 200), []string{"alice: not checked: its chain does not end in ca_file"}, "was sent with 399 others"},
		{"none", usual, false, Options{}, both, nil, nil, "client sent no certificate"},
	} {
		var set *crl.Set
		if c.lists != nil {
			set, _ = loadLists(t, c.ca, c.o, nil, c.lists...)
		}
		s := &Server{verifier: newVerifier(ClientCertRequire, c.ca, c.partial, set)}
		links, verdict := s.Explain(c.peer, at)
		if err := withoutChains(s.verifier).check(c.peer, at); fmt.Sprint(err) != fmt.Sprint(verdict) {
			t.Errorf("%s: the verdict is %v, and Verify says %v", c.name, verdict, err)
		}
		if (verdict == nil) != (c.verdict == "") || verdict != nil && !strings.Contains(verdict.Error(), c.verdict) {
			t.Errorf("%s: the verdict is %v, want %q", c.name, verdict, c.verdict)
		}
		var got []string
		for _, l := range links {
			if set != nil {
				l.Status = strings.ReplaceAll(l.Status, fmt.Sprintf("%q", set.Infos()[0].File), "FILE")
			}
			got = append(got, strings.TrimPrefix(l.Subject, "CN=")+": "+l.Status)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got\n\t%s\nwant\n\t%s", c.name, strings.Join(got, "\n\t"), strings.Join(c.want, "\n\t"))
		}
		if len(links) > 0 && c.peer[0] == alice.Leaf() && (links[0].Serial != "BEEF" || !links[0].NotAfter.Equal(alice.Leaf().NotAfter)) {
			t.Errorf("%s: %+v", c.name, links[0])
		}
	}

	none := &Server{verifier: newVerifier(ClientCertNone, nil, false, nil)}
	if links, verdict := none.Explain(alice.Chain[:1], at); verdict != nil || len(links) != 1 || links[0].Status != "not checked: client_cert: none" {
		t.Errorf("client_cert: none: %+v, %v", links, verdict)
	}
	if links, verdict := none.Explain(nil, at); verdict != nil || links != nil {
		t.Errorf("client_cert: none, no certificate: %+v, %v", links, verdict)
	}
}

// Of several chains Explain returns the one that OpenSSL takes, whatever the lists say.
func TestExplainChoosesChain(t *testing.T) {
	t.Parallel()
	one, two := tlstest.NewCA("one"), tlstest.NewCA("two")
	inter := one.Intermediate("intermediate")
	cross := crossSign(t, inter.Cert, two)
	alice := inter.Client("alice").Leaf()
	ca := []*x509.Certificate{one.Cert, two.Cert, inter.Cert, cross}
	revokes := func(c *x509.Certificate) func(*tlstest.CRL) { return func(l *tlstest.CRL) { l.Revoke(c) } }
	for _, c := range []struct {
		name  string
		lists [][]byte
		end   string
	}{
		{"first revoked", list(one.CRL(revokes(inter.Cert)), two.CRL(nil), inter.CRL(nil)), "CN=one"},
		{"second revoked", list(one.CRL(nil), two.CRL(revokes(cross)), inter.CRL(nil)), "CN=one"},
		{"first revoked, second without a list", list(one.CRL(revokes(inter.Cert)), inter.CRL(nil)), "CN=one"},
		{"second revoked, first without a list", list(two.CRL(revokes(cross)), inter.CRL(nil)), "CN=one"},
	} {
		set, _ := loadLists(t, ca, Options{}, nil, c.lists...)
		s := &Server{verifier: newVerifier(ClientCertRequire, ca, false, set)}
		for range 2 { // the second time with remembered chains
			links, _ := s.Explain([]*x509.Certificate{alice}, time.Now())
			if len(links) != 3 || links[2].Subject != c.end {
				t.Errorf("%s: %+v", c.name, links)
			}
		}
	}
}
