package crl

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// ago makes a list without a number.
func ago(d time.Duration, revoked ...*x509.Certificate) func(*tlstest.CRL) {
	return func(l *tlstest.CRL) {
		l.ThisUpdate, l.Number = time.Now().Add(-d), nil
		l.Revoke(revoked...)
	}
}

// with adds extensions to a list.
func with(edit func(*tlstest.CRL), more ...pkix.Extension) func(*tlstest.CRL) {
	return func(l *tlstest.CRL) {
		edit(l)
		l.Extensions = append(l.Extensions, more...)
	}
}

func forPoint(url string) pkix.Extension {
	return tlstest.IssuingDistributionPoint(tlstest.PointName(url))
}

// namesPoint makes a certificate name a distribution point.
func namesPoint(url string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.CRLDistributionPoints = []string{url} }
}

// The lists that can do no more than revoke.
var (
	isDelta    = tlstest.Extension([]int{2, 5, 29, 27}, true, 1)
	isUnusable = tlstest.Extension([]int{1, 2, 3, 4}, true, 1)
)

// A file that cannot be read may hold any CA's list: that the CA has another one, for other certificates or one that it may
// not sign, is no reason to take its list for missing.
func TestUnreadFileIsNoMissingList(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	mayNot := tlstest.NewCA("ca", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	for _, c := range []struct {
		name   string
		ca     *tlstest.CA
		client *x509.Certificate
		other  []byte
	}{
		{"no other list", ca, ca.Client("mallory").Leaf(), nil},
		{"of another point", ca, ca.Client("mallory", namesPoint("http://x/b")).Leaf(), ca.CRL(with(ago(time.Minute), forPoint("http://x/a")))},
		{"of a CA without cRLSign", mayNot, mayNot.Client("mallory").Leaf(), mayNot.CRL(nil)},
		{"of CAs only", ca, ca.Client("mallory").Leaf(), ca.CRL(with(ago(time.Minute), tlstest.IssuingDistributionPoint(tlstest.Flag(2))))},
	} {
		for name, bad := range map[string][]byte{"unreadable": nil, "cut short": []byte("-----BEGIN X509 CRL-----\nMII")} {
			d := directory{"b": bad}
			if c.other != nil {
				d["a"] = c.other
			}
			set, _ := d.load(t, []*x509.Certificate{c.ca.Cert}, Policy{AllowMissing: true}, nil)
			if f := set.Check(parsed(c.client)[0], parsed(c.ca.Cert), time.Now()); f.OK() {
				t.Errorf("%s, %s: admitted: %s", c.name, name, f.Why)
			}
			delete(d, "b")
			set, _ = d.load(t, []*x509.Certificate{c.ca.Cert}, Policy{AllowMissing: true}, nil)
			if f := set.Check(parsed(c.client)[0], parsed(c.ca.Cert), time.Now()); !f.OK() {
				t.Errorf("%s, without the file: refused: %s", c.name, f.Why)
			}
		}
	}
}

// What a delta revokes, or a list that cannot be used, stays revoked through reloads until a newer list that can be used
// comes, or a newer one of its kind.
func TestRevokingListsAreKept(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	mallory := ca.Client("mallory").Leaf()
	base := ca.CRL(ago(20 * time.Minute))
	for kind, extension := range map[string]pkix.Extension{"delta": isDelta, "unusable": isUnusable} {
		old := ca.CRL(with(ago(10*time.Minute, mallory), extension))
		for _, c := range []struct {
			name  string
			after directory
			want  Status
			warns string
		}{
			{"the same", directory{"a": base, "b": old}, Revoked, ""},
			{"in another file", directory{"a": base, "c": old}, Revoked, ""},
			{"unreadable", directory{"a": base, "b": nil}, Revoked, "cannot read it"},
			{"cut short", directory{"a": base, "b": old[:len(old)/2]}, Revoked, "holds 1 CRLs of which only 0 can be read"},
			{"empty", directory{"a": base, "b": {}}, Revoked, "it is empty"},
			{"a certificate", directory{"a": base, "b": ca.CertPEM()}, Revoked, "it holds a certificate"},
			{"an older one", directory{"a": base, "b": ca.CRL(with(ago(15*time.Minute), extension))}, Revoked, ""},
			{"gone", directory{"a": base}, Revoked, "is gone, and the CA has no newer list, so what it revokes stays revoked"},
			{"a newer list", directory{"a": ca.CRL(ago(time.Minute)), "b": old}, Good, ""},
			{"a newer list, and it is gone", directory{"a": ca.CRL(ago(time.Minute))}, Good, ""},
			{"a newer list, and it is unreadable", directory{"a": ca.CRL(ago(time.Minute)), "b": nil}, Good, ""},
			{"no list", directory{}, Missing, "there is no CRL"},
		} {
			set, _ := directory{"a": base, "b": old}.load(t, []*x509.Certificate{ca.Cert}, Policy{}, nil)
			for i := range 3 { // what is kept goes on to the next reload
				var problems string
				set, problems = c.after.load(t, []*x509.Certificate{ca.Cert}, Policy{}, set)
				f := set.Check(parsed(mallory)[0], parsed(ca.Cert), time.Now())
				if f.Status != c.want || !strings.Contains(problems, c.warns) {
					t.Errorf("%s, %s, reload %d: %v, want %v, and a warning with %q:\n%s", kind, c.name, i+1, f.Status, c.want, c.warns, problems)
				}
				if n := len(set.allOnlyRevoke()); n > 2 {
					t.Errorf("%s, %s, reload %d: %d lists only revoke", kind, c.name, i+1, n)
				}
			}
		}
	}
	newer := directory{"a": base, "b": ca.CRL(with(ago(time.Minute), isDelta))}
	set, _ := directory{"a": base, "b": ca.CRL(with(ago(10*time.Minute, mallory), isDelta))}.load(t, []*x509.Certificate{ca.Cert}, Policy{}, nil)
	if set, _ = newer.load(t, []*x509.Certificate{ca.Cert}, Policy{}, set); len(set.allOnlyRevoke()) != 0 {
		t.Error("a newer delta does not replace one")
	}
}

// A delta and a list that cannot be used revoke past their next update: only a newer list that can be used knows better.
func TestRevokingListsDoNotExpire(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	mallory := ca.Client("mallory").Leaf()
	for kind, extension := range map[string]pkix.Extension{"delta": isDelta, "unusable": isUnusable} {
		brief := func(l *tlstest.CRL) {
			ago(10*time.Minute, mallory)(l)
			l.NextUpdate = time.Now().Add(time.Hour)
		}
		for age, want := range map[time.Duration]Status{20 * time.Minute: Revoked, time.Minute: Good} {
			set, _ := directory{"a": ca.CRL(ago(age)), "b": ca.CRL(with(brief, extension))}.load(t, []*x509.Certificate{ca.Cert}, Policy{}, nil)
			if f := set.Check(parsed(mallory)[0], parsed(ca.Cert), time.Now().Add(2*time.Hour)); f.Status != want {
				t.Errorf("%s beside a list of %v ago: %v, want %v", kind, age, f.Status, want)
			}
		}
	}
}

// A list for other certificates replaces one only if it is newer.
func TestOlderListOfAnotherScope(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	mallory := ca.Client("mallory", namesPoint("http://x/a")).Leaf()
	users := tlstest.IssuingDistributionPoint(tlstest.Flag(1))
	scopes := map[string][]pkix.Extension{"all": nil, "point": {forPoint("http://x/a")}, "users": {users}}
	for from, old := range scopes {
		for to, other := range scopes {
			before, _ := directory{"a": ca.CRL(with(ago(10*time.Minute, mallory), old...))}.load(t, []*x509.Certificate{ca.Cert}, Policy{}, nil)
			for age, want := range map[time.Duration]Status{20 * time.Minute: Revoked, time.Minute: Good} {
				set, problems := directory{"a": ca.CRL(with(ago(age), other...))}.load(t, []*x509.Certificate{ca.Cert}, Policy{}, before)
				f := set.Check(parsed(mallory)[0], parsed(ca.Cert), time.Now())
				if f.Status != want || (want == Revoked) != strings.Contains(problems, "kept in use with") {
					t.Errorf("%s, then %s of %v ago: %v, want %v\n%s", from, to, age, f.Status, want, problems)
				}
			}
		}
	}
}

// The list of another partition, or of a CA of the same name, is no other list.
func TestGoneBesideAnotherList(t *testing.T) {
	t.Parallel()
	one, two := tlstest.NewCA("ca"), tlstest.NewCA("ca")
	mallory := two.Client("mallory", namesPoint("http://x/b")).Leaf()
	part := func(url string, revoked ...*x509.Certificate) []byte {
		return two.CRL(with(ago(time.Minute, revoked...), forPoint(url)))
	}
	for name, c := range map[string]struct{ old, other []byte }{
		"a partition": {part("http://x/b", mallory), part("http://x/a")},
		"a namesake":  {two.CRL(ago(time.Minute, mallory)), one.CRL(nil)},
		"a delta":     {two.CRL(with(ago(time.Minute, mallory), isDelta)), one.CRL(nil)},
	} {
		set, _ := directory{"a": c.other, "b": c.old}.load(t, []*x509.Certificate{one.Cert, two.Cert}, Policy{AllowMissing: true}, nil)
		for i := range 3 {
			b := Builder{Policy: Policy{AllowMissing: true}, CAs: parsed(one.Cert, two.Cert), Previous: set, KeepGone: i < 2, Now: time.Now(), CAOption: "ca_file", Peers: "clients"}
			b.AddEntry("crl_dir", "a", c.other)
			set, _ = b.Set("crl_dir")
			f := set.Check(parsed(mallory)[0], parsed(two.Cert), time.Now())
			if (f.Status == Revoked) != b.KeepGone {
				t.Errorf("%s, reload %d: %v", name, i+1, f.Status)
			}
		}
	}
}
