package crl

import (
	"bytes"
	"crypto/x509"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest"
)

// parsed reads certificates as this package takes them.
func parsed(list ...*x509.Certificate) (all []*certs.Certificate) {
	for _, x := range list {
		c, err := certs.Parse(x.Raw)
		if err != nil {
			panic(err)
		}
		all = append(all, c)
	}
	return all
}

// build makes a set of lists in PEM, and returns the problems as lines of text.
func build(t testing.TB, ca []*x509.Certificate, p Policy, previous *Set, lists ...[]byte) (*Set, []string) {
	t.Helper()
	b := Builder{Policy: p, CAs: parsed(ca...), MinSecurityBits: 112, Previous: previous, Now: time.Now(), CAOption: "ca_file", Peers: "clients"}
	var problems []Problem
	if data := bytes.Join(lists, nil); data != nil {
		problems = b.Add("crl_file", "ca.crl", data)
	}
	set, more := b.Set("crl_file")
	var lines []string
	for _, p := range append(problems, more...) {
		kind := "error "
		if p.Warning {
			kind = "warning "
		}
		lines = append(lines, kind+p.Option+": "+p.Text)
	}
	return set, lines
}

// checkTexts compares problems with what each of them, in order, must hold.
func checkTexts(t *testing.T, name string, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = strings.Contains(got[i], want[i]) && !strings.Contains(got[i], "\n")
	}
	if !ok {
		t.Errorf("%s: got\n\t%s\nwant\n\t%s", name, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// statusOf checks every certificate of a chain that ends in a root, as PostgreSQL does. A revocation anywhere decides, or
// else the first certificate that does not pass.
func statusOf(s *Set, at time.Time, chain ...*x509.Certificate) Status {
	status := Good
	all := parsed(chain...)
	for i, c := range all {
		f := s.Check(c, all[min(i+1, len(chain)-1):], at)
		if f.Status == Revoked {
			return Revoked
		}
		if !f.OK() && status == Good {
			status = f.Status
		}
	}
	return status
}

func list(lists ...[]byte) [][]byte { return lists }

// What one certificate is judged by: the rules of the package documentation, one by one. That chains are judged as OpenSSL
// judges them is tested in tlsconfig.
func TestCheck(t *testing.T) {
	t.Parallel()
	now := time.Now()
	const day = 24 * time.Hour
	ca, other := tlstest.NewCA("ca"), tlstest.NewCA("ca")
	alice, mallory := ca.Client("alice").Leaf(), ca.Client("mallory").Leaf()
	checked, above := parsed(alice, mallory), parsed(ca.Cert)
	of := func(edit ...func(*tlstest.CRL)) []byte {
		return ca.CRL(func(l *tlstest.CRL) {
			l.Revoke(mallory)
			for _, e := range edit {
				e(l)
			}
		})
	}
	stale := func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = now.Add(-9*day), now.Add(-2*day) }
	future := func(l *tlstest.CRL) { l.ThisUpdate = now.Add(2 * day) }
	empty := func(l *tlstest.CRL) { l.Revoked = nil }
	forever := func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = now.Add(-9*day), time.Time{} }
	removed := func(l *tlstest.CRL) { l.Revoked[0].Reason = reasonRemoveFromCRL }
	tomorrow := func(l *tlstest.CRL) { l.Revoked[0].Date = now.Add(day) }
	users := func(l *tlstest.CRL) {
		l.Extensions = append(l.Extensions, tlstest.IssuingDistributionPoint(tlstest.Flag(1)))
	}
	cas := func(l *tlstest.CRL) {
		l.Extensions = append(l.Extensions, tlstest.IssuingDistributionPoint(tlstest.Flag(2)))
	}
	for _, c := range []struct {
		name          string
		policy        Policy
		lists         [][]byte
		good, revoked Status
		passes        bool // the good one
	}{
		{"in date", Policy{}, list(of()), Good, Revoked, true},
		{"no list", Policy{}, nil, Missing, Missing, false},
		{"no list, allowed", Policy{AllowMissing: true}, nil, Missing, Missing, true},
		{"of a CA of the same name", Policy{}, list(other.CRL(nil)), Missing, Missing, false},
		{"stale", Policy{}, list(of(stale)), Stale, Revoked, false},
		{"stale, allowed", Policy{AllowStale: true}, list(of(stale)), Stale, Revoked, true},
		{"stale, in its grace", Policy{Grace: 3 * day}, list(of(stale)), Good, Revoked, true},
		{"stale, after its grace", Policy{Grace: day}, list(of(stale)), Stale, Revoked, false},
		{"not yet in force", Policy{AllowStale: true}, list(of(future)), Stale, Revoked, false},
		{"without an end", Policy{}, list(of(forever)), Good, Revoked, true},
		{"two in date, one revokes", Policy{}, list(of(empty), of()), Good, Revoked, true},
		{"stale that revokes, in date that does not", Policy{}, list(of(stale), of(empty)), Good, Good, true},
		{"removeFromCRL", Policy{}, list(of(removed)), Good, Good, true},
		{"a revocation of tomorrow", Policy{}, list(of(tomorrow)), Good, Revoked, true},
		{"only user certificates", Policy{}, list(of(users)), Good, Revoked, true},
		{"only CA certificates", Policy{}, list(of(cas)), Missing, Revoked, false},
		{"not yet in force, beside one in date", Policy{}, list(of(future, empty), of()), Good, Revoked, true},
	} {
		set, _ := build(t, []*x509.Certificate{ca.Cert, other.Cert}, c.policy, nil, c.lists...)
		f := set.Check(checked[0], above, now)
		if f.Status != c.good || f.OK() != c.passes || f.Allowed != (c.passes && c.good != Good) {
			t.Errorf("%s: a good certificate: %+v, want %v, passes %t", c.name, f, c.good, c.passes)
		}
		if f := set.Check(checked[1], above, now); f.Status != c.revoked || f.Status == Revoked && f.OK() {
			t.Errorf("%s: a revoked certificate: %+v, want %v", c.name, f, c.revoked)
		}
	}
}

// Without anything that says otherwise, nothing passes.
func TestZeroValues(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	if f := new(Set).Check(parsed(ca.Client("alice").Leaf())[0], parsed(ca.Cert), time.Now()); f.OK() || f.Status != Missing {
		t.Errorf("an empty set: %+v", f)
	}
	if (Finding{}).OK() {
		t.Error("the zero Finding passes")
	}
	if (*Set)(nil).Infos() != nil {
		t.Error("a nil set has lists")
	}
}

// An issuer that may not sign lists has none, even if its key has signed one.
func TestIssuerMayNotSign(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("root")
	noSign := root.Intermediate("no cRLSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	set, problems := build(t, []*x509.Certificate{root.Cert}, Policy{}, nil, root.CRL(nil), noSign.CRL(nil))
	checkTexts(t, "problems", problems, "is not issued by a CA of ca_file")
	f := set.Check(parsed(noSign.Client("alice").Leaf())[0], parsed(noSign.Cert, root.Cert), time.Now())
	if f.Status != Missing || !strings.Contains(f.Detail(time.Now()), "may not sign CRLs") {
		t.Errorf("%+v: %s", f, f.Detail(time.Now()))
	}
}

// A trust anchor that is not self-signed needs no list, but its issuer can revoke it if that is configured.
func TestCheckAnchor(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("root")
	inter := root.Intermediate("intermediate").Cert
	revokes := root.CRL(func(l *tlstest.CRL) { l.Revoke(inter) })
	for _, c := range []struct {
		name string
		ca   []*x509.Certificate
		list []byte
		want bool
	}{
		{"no list", []*x509.Certificate{root.Cert, inter}, nil, false},
		{"not revoked", []*x509.Certificate{root.Cert, inter}, root.CRL(nil), false},
		{"revoked", []*x509.Certificate{root.Cert, inter}, revokes, true},
		{"revoked by a CA that is not configured", []*x509.Certificate{inter}, revokes, false},
	} {
		set, _ := build(t, c.ca, Policy{}, nil, c.list)
		if f, revoked := set.CheckAnchor(parsed(inter)[0], time.Now()); revoked != c.want || revoked != (f.Status == Revoked) {
			t.Errorf("%s: %+v, %t", c.name, f, revoked)
		}
	}
}

// A CA may have any number of CAs of one name below it, and what is remembered of them does not grow.
func TestSignaturesAreBounded(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	l, err := Parse(derOf(t, ca.CRL(nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2*signaturesLimit + 1 {
		if l.SignedBy(parsed(tlstest.NewCA("ca").Cert)[0]) {
			t.Fatal("signed by another key")
		}
		if !l.SignedBy(parsed(ca.Cert)[0]) {
			t.Fatal("not signed by its own key")
		}
	}
	if n := len(l.signatures.verified); n > signaturesLimit {
		t.Errorf("%d keys are remembered", n)
	}
}

// A list takes its DER and some bytes for each entry, and keeps neither an object for each nor the file. Not parallel, since
// it measures the heap.
func TestMemory(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	ca := tlstest.NewCA("ca")
	file, serial := ca.BigCRL(n)
	serial = bytes.Clone(serial)
	der := len(derOf(t, file))
	before := heap()
	start := time.Now()
	set, problems := build(t, []*x509.Certificate{ca.Cert}, Policy{}, nil, file)
	took := time.Since(start)
	grown := heap() - before
	if problems != nil {
		t.Fatal(problems)
	}
	l := set.lists[0]
	if _, ok := l.Find(serial); !ok || l.entries.count != n {
		t.Errorf("%d entries, the last one is found: %t", l.entries.count, ok)
	}
	t.Logf("%d entries: read in %v, %.1f bytes each", n, took, float64(grown)/float64(n))
	if most := int64(der + 16*n); grown > most {
		t.Errorf("%d bytes for %d entries, want at most %d", grown, n, most)
	}
	runtime.KeepAlive(set)
	runtime.KeepAlive(file)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a finalizer held on to
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
