package crl

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// directory is a crl_dir of one load: what each file holds, or nil for one that cannot be read.
type directory map[string][]byte

func (d directory) load(t *testing.T, ca []*x509.Certificate, p Policy, previous *Set) (*Set, string) {
	t.Helper()
	b := Builder{Policy: p, CAs: parsed(ca...), Previous: previous, Now: time.Now(), CAOption: "ca_file", Peers: "clients"}
	var problems []Problem
	for _, name := range []string{"a", "b", "c"} {
		data, ok := d[name]
		switch {
		case !ok:
		case data == nil:
			problems = append(problems, b.Unreadable("crl_dir", name, errors.New("cannot read it"))...)
		default:
			problems = append(problems, b.AddEntry("crl_dir", name, data)...)
		}
	}
	set, more := b.Set("crl_dir")
	text := ""
	for _, p := range append(problems, more...) {
		if !p.Warning {
			t.Errorf("an error: %s", p.Text)
		}
		text += p.Text + "\n"
	}
	return set, text
}

// A list that cannot be used concerns its CA alone: the other CA's revocations come into force, and its own last list stays
// until its next update. Nothing of it is a missing list, for which crl_missing: allow would admit.
func TestUnusableListConcernsItsCA(t *testing.T) {
	t.Parallel()
	one, two := tlstest.NewCA("one"), tlstest.NewCA("two")
	ca := []*x509.Certificate{one.Cert, two.Cert}
	alice, bob, mallory := one.Client("alice").Leaf(), two.Client("bob").Leaf(), two.Client("mallory").Leaf()
	revokes := func(c *x509.Certificate) func(*tlstest.CRL) { return func(l *tlstest.CRL) { l.Revoke(c) } }
	indirect := two.CRL(func(l *tlstest.CRL) {
		l.Extensions = append(l.Extensions, tlstest.IssuingDistributionPoint(tlstest.Flag(4)))
	})
	forged := two.CRL(func(l *tlstest.CRL) { l.Key = one.Key })
	good := directory{"a": one.CRL(nil), "b": two.CRL(revokes(mallory))}
	for name, bad := range map[string][]byte{
		"indirect": indirect, "forged": forged, "unreadable": nil, "cut short": []byte("-----BEGIN X509 CRL-----\nMII"), "empty": {},
	} {
		for _, p := range []Policy{{}, {AllowMissing: true}} {
			before, _ := good.load(t, ca, p, nil)
			after, problems := directory{"a": one.CRL(revokes(alice)), "b": bad}.load(t, ca, p, before)
			now := time.Now()
			if got := statusOf(after, now, alice, one.Cert); got != Revoked {
				t.Errorf("%s: the other CA's revocation: %v", name, got)
			}
			if name == "empty" {
				continue // as if the file were gone, but for the log
			}
			if got := statusOf(after, now, bob, two.Cert); got != Good {
				t.Errorf("%s: the last list is not in use: %v\n%s", name, got, problems)
			}
			if got := statusOf(after, now, mallory, two.Cert); got != Revoked {
				t.Errorf("%s: the last list does not revoke: %v", name, got)
			}
			later := now.AddDate(0, 0, 60) // past its next update
			if got := after.Check(parsed(bob)[0], parsed(two.Cert), later); got.OK() {
				t.Errorf("%s: after the next update: %+v", name, got)
			}
			again, _ := directory{"a": one.CRL(nil), "b": bad}.load(t, ca, p, after)
			if got := statusOf(again, now, mallory, two.Cert); got != Revoked {
				t.Errorf("%s: after another reload: %v", name, got)
			}
			start, problems := directory{"a": one.CRL(nil), "b": bad}.load(t, ca, p, nil)
			if got := start.Check(parsed(bob)[0], parsed(two.Cert), now); got.OK() {
				t.Errorf("%s: at start, with %+v: %+v\n%s", name, p, got, problems)
			}
			if got := statusOf(start, now, one.Client("carol").Leaf(), one.Cert); got != Good {
				t.Errorf("%s: at start the other CA: %v", name, got)
			}
		}
	}
}

// Files of a directory that hold no list are left aside, and so is a delta beside its base.
func TestStrayFiles(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	delta := ca.CRL(func(l *tlstest.CRL) {
		l.Extensions = append(l.Extensions, tlstest.Extension([]int{2, 5, 29, 27}, true, 1))
	})
	for name, stray := range map[string][]byte{
		"certificate in PEM": ca.CertPEM(), "certificate in DER": ca.Cert.Raw, "index.txt": []byte("V\t280101000000Z\t\t01\tunknown\t/CN=x\n"), "delta": delta,
	} {
		set, problems := directory{"a": ca.CRL(nil), "b": stray}.load(t, []*x509.Certificate{ca.Cert}, Policy{}, nil)
		if got := statusOf(set, time.Now(), ca.Client("alice").Leaf(), ca.Cert); got != Good || !strings.Contains(problems, "left aside") {
			t.Errorf("%s: %v\n%s", name, got, problems)
		}
	}
	for _, p := range []Policy{{}, {AllowMissing: true}} {
		set, _ := directory{"a": delta}.load(t, []*x509.Certificate{ca.Cert}, p, nil)
		if f := set.Check(parsed(ca.Client("alice").Leaf())[0], parsed(ca.Cert), time.Now()); f.OK() {
			t.Errorf("a delta alone passes for a list: %+v", f)
		}
	}
}

// A list from a clock that is ahead replaces the one in use when it begins, and not before.
func TestListFromTheFuture(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	alice, bob := ca.Client("alice").Leaf(), ca.Client("bob").Leaf()
	begins := time.Now().Add(time.Hour)
	before, _ := directory{"a": ca.CRL(func(l *tlstest.CRL) { l.Number = nil; l.Revoke(alice) })}.load(t, []*x509.Certificate{ca.Cert}, Policy{}, nil)
	after, problems := directory{"a": ca.CRL(func(l *tlstest.CRL) { l.Number = nil; l.ThisUpdate = begins; l.Revoke(bob) })}.load(t, []*x509.Certificate{ca.Cert}, Policy{}, before)
	if !strings.Contains(problems, "the list from before stays in use until then") {
		t.Errorf("problems: %s", problems)
	}
	carol := ca.Client("carol").Leaf()
	for _, c := range []struct {
		at   time.Time
		who  *x509.Certificate
		want Status
	}{
		{time.Now(), carol, Good},
		{time.Now(), alice, Revoked},
		{time.Now(), bob, Revoked}, // what the CA has said already
		{begins.Add(time.Second), carol, Good},
		{begins.Add(time.Second), alice, Good},
		{begins.Add(time.Second), bob, Revoked},
	} {
		if got := statusOf(after, c.at, c.who, ca.Cert); got != c.want {
			t.Errorf("%s at %v: %v, want %v", c.who.Subject, c.at, got, c.want)
		}
	}
}
