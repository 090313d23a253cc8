package crl

import (
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// numbered makes a list with that number, issued a day later than the one before it; 0: without a number.
func numbered(n int64, revoked ...*x509.Certificate) func(*tlstest.CRL) {
	return func(l *tlstest.CRL) {
		l.Number = nil
		if n > 0 {
			l.Number = big.NewInt(n)
		}
		l.ThisUpdate = time.Now().AddDate(0, 0, int(n)-20)
		l.Revoke(revoked...)
	}
}

// dated makes a list without a number that was issued that many days ago.
func dated(days int, revoked ...*x509.Certificate) func(*tlstest.CRL) {
	return func(l *tlstest.CRL) {
		l.Number = nil
		l.ThisUpdate = time.Now().AddDate(0, 0, -days)
		l.Revoke(revoked...)
	}
}

// A list that is older than the one before undoes no revocation, for as many reloads as it stays there. A newer one does.
func TestOlderList(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	alice := ca.Client("alice").Leaf()
	twin := func(edit func(*tlstest.CRL)) func(*tlstest.CRL) { // with a number as well as a date
		return func(l *tlstest.CRL) { edit(l); l.Number = big.NewInt(5) }
	}
	forLeaves := func(edit func(*tlstest.CRL)) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) {
			edit(l)
			l.Extensions = append(l.Extensions, tlstest.IssuingDistributionPoint(tlstest.Flag(1)))
		}
	}
	type step struct {
		lists []func(*tlstest.CRL)
		kept  string // a part of the warning; empty: none
		want  Status
	}
	only := func(l ...func(*tlstest.CRL)) []func(*tlstest.CRL) { return l }
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"forward", []step{
			{only(numbered(5)), "", Good},
			{only(numbered(6, alice)), "", Revoked},
			{only(numbered(7)), "", Good}, // such as the end of a certificateHold
		}},
		{"back and forth", []step{
			{only(numbered(7, alice)), "", Revoked},
			{only(numbered(5)), "goes back from number 7 to number 5, so the newer list from before the reload is kept", Revoked},
			{only(numbered(5)), "goes back from number 7 to number 5", Revoked},
			{only(numbered(6)), "goes back from number 7 to number 6", Revoked},
			{only(numbered(8)), "", Good},
			{only(numbered(7, alice)), "goes back from number 8 to number 7", Revoked}, // what either revokes
		}},
		{"the same again", []step{
			{only(numbered(7, alice)), "", Revoked},
			{only(numbered(7)), "", Good},
		}},
		{"a number that is never raised", []step{
			{only(twin(dated(1, alice))), "", Revoked},
			{only(twin(dated(3))), "goes back from thisUpdate ", Revoked},
			{only(twin(dated(0))), "", Good},
		}},
		{"by date", []step{
			{only(dated(1, alice)), "", Revoked},
			{only(dated(2)), "goes back from thisUpdate 20", Revoked},
			{only(dated(2)), "goes back from thisUpdate 20", Revoked},
			{only(dated(0)), "", Good},
		}},
		{"a number that is new", []step{
			{only(dated(1, alice)), "", Revoked},
			{only(twin(dated(2))), "goes back from thisUpdate 20", Revoked},
			{only(twin(dated(0))), "", Good},
		}},
		{"a newer date with an older number", []step{
			{only(numbered(7, alice)), "", Revoked},
			{only(twin(dated(0))), "goes back from number 7 to number 5", Revoked},
		}},
		{"several", []step{
			{only(numbered(5), numbered(7, alice), numbered(6)), "", Revoked},
			{only(numbered(6), numbered(5)), "(block 1, from \"CN=ca\") goes back from number 7 to number 6", Revoked},
			{only(numbered(5), numbered(8), numbered(6)), "", Good},
		}},
		{"an old one is put beside it", []step{
			{only(numbered(7, alice)), "", Revoked},
			{only(numbered(7, alice), numbered(5)), "", Revoked},
			{only(numbered(5), numbered(7, alice)), "", Revoked},
		}},
		{"another kind of list", []step{
			{only(numbered(7, alice)), "", Revoked},
			{only(forLeaves(numbered(5))), "is gone, and the CA's other lists are from before it", Revoked},
			{only(forLeaves(numbered(6))), "is gone, and the CA's other lists are from before it", Revoked},
			{only(forLeaves(numbered(8))), "", Missing}, // for the root itself, which no list covers
		}},
	} {
		var previous *Set
		for i, s := range c.steps {
			var lists [][]byte
			for _, l := range s.lists {
				lists = append(lists, ca.CRL(l))
			}
			set, problems := build(t, []*x509.Certificate{ca.Cert}, Policy{}, previous, lists...)
			if s.kept == "" {
				checkTexts(t, c.name, problems)
			} else {
				checkTexts(t, c.name, problems, s.kept)
				if last := set.Infos()[len(set.lists)-1]; !last.Kept {
					t.Errorf("%s, load %d: %+v", c.name, i, last)
				}
			}
			if got := statusOf(set, time.Now(), alice, ca.Cert); got != s.want {
				t.Errorf("%s, load %d: %v, want %v", c.name, i, got, s.want)
			}
			if kept := len(set.lists) - len(s.lists); kept != min(1, len(s.kept)) {
				t.Errorf("%s, load %d: %d lists are kept", c.name, i, kept)
			}
			if previous = set; t.Failed() {
				break
			}
		}
	}
}

// A kept list revokes past its next update too, since the older list may have a later one. But then it says of no
// certificate that it is good.
func TestKeptListIsStale(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	alice, bob := ca.Client("alice").Leaf(), ca.Client("bob").Leaf()
	until := func(days int, edit func(*tlstest.CRL)) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { edit(l); l.NextUpdate = time.Now().AddDate(0, 0, days) }
	}
	certs := []*x509.Certificate{ca.Cert}
	for _, c := range []struct {
		old, now   int // days until their next updates
		alice, bob Status
	}{{3, 9, Revoked, Good}, {9, 3, Revoked, Good}, {3, 4, Revoked, Stale}} {
		set, _ := build(t, certs, Policy{}, nil, ca.CRL(until(c.old, numbered(7, alice))))
		set, _ = build(t, certs, Policy{}, set, ca.CRL(until(c.now, numbered(5))))
		at := time.Now().AddDate(0, 0, 5)
		if a, b := statusOf(set, at, alice, ca.Cert), statusOf(set, at, bob, ca.Cert); a != c.alice || b != c.bob {
			t.Errorf("%+v: %v and %v", c, a, b)
		}
	}
}

// Lists are compared with those of the same CA, which its key identifies: not with those of a CA of the same name, nor with
// those of a CA that is not configured. A CA that is no longer configured has no kept list.
func TestOlderListByCA(t *testing.T) {
	t.Parallel()
	one, two := tlstest.NewCA("root"), tlstest.NewCA("root")
	alice := one.Client("alice").Leaf()
	both := []*x509.Certificate{one.Cert, two.Cert}
	back := `goes back from number 7 to number 5`
	for _, c := range []struct {
		name          string
		before, after []*x509.Certificate // configured
		old, now      [][]byte
		want          []string
	}{
		{"its own", both, both, list(one.CRL(numbered(7, alice)), two.CRL(nil)), list(one.CRL(numbered(5)), two.CRL(nil)), []string{back}},
		{"the namesake's number is lower", both, both, list(one.CRL(numbered(7, alice)), two.CRL(numbered(5))), list(one.CRL(numbered(8)), two.CRL(numbered(5))), nil},
		{"the namesake's goes back", both, both, list(one.CRL(numbered(5)), two.CRL(numbered(7))), list(one.CRL(numbered(6)), two.CRL(numbered(5))), []string{back}},
		{"removed", both, both, list(one.CRL(numbered(7, alice)), two.CRL(nil)), list(two.CRL(nil)), []string{`there is no CRL from "CN=root"`}},
		{"no longer configured", both, both[1:], list(one.CRL(numbered(7, alice)), two.CRL(nil)), list(two.CRL(nil)), nil},
	} {
		set, problems := build(t, c.before, Policy{}, nil, c.old...)
		if problems != nil {
			t.Fatal(problems)
		}
		_, problems = build(t, c.after, Policy{}, set, c.now...)
		checkTexts(t, c.name, problems, c.want...)
	}

	// A CA whose certificate only clients send is known by the key identifier in the list.
	root := tlstest.NewCA("root")
	inter, other := root.Intermediate("intermediate"), root.Intermediate("intermediate")
	bob := inter.Client("bob")
	ca := []*x509.Certificate{root.Cert}
	set, _ := build(t, ca, Policy{}, nil, root.CRL(nil), inter.CRL(numbered(7, bob.Leaf())), other.CRL(numbered(3)))
	set, problems := build(t, ca, Policy{}, set, root.CRL(nil), inter.CRL(numbered(5)), other.CRL(numbered(4)))
	checkTexts(t, "of clients", problems, "is not issued by a CA of ca_file", "is not issued by a CA of ca_file", back)
	if got := statusOf(set, time.Now(), append(bob.Chain, root.Cert)...); got != Revoked {
		t.Errorf("of clients: %v", got)
	}
	// Once the CA is configured, its lists are known by the key.
	ca = append(ca, inter.Cert)
	set, problems = build(t, ca, Policy{}, set, root.CRL(nil), inter.CRL(numbered(6)))
	checkTexts(t, "of clients, then configured", problems, `goes back from number 7 to number 6`)
	if got := statusOf(set, time.Now(), append(bob.Chain, root.Cert)...); got != Revoked {
		t.Errorf("of clients, then configured: %v", got)
	}
	set, problems = build(t, ca[:1], Policy{}, set, root.CRL(nil), inter.CRL(numbered(6)))
	checkTexts(t, "and removed", problems, "is not issued by a CA of ca_file", `goes back from number 7 to number 6`)
	for _, l := range set.lists {
		if l.kept && l.signer != nil {
			t.Error("a list has a signer that is not configured")
		}
	}
}
