package tlsconfig

import (
	"bytes"
	"crypto/x509"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// numbered makes a list with that number, issued a day later than the one before it; 0 is none.
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

// pitfall 30: a list that goes back to an older one takes nothing back, for as many loads as it stays there; a newer
// one does.
func TestCRLGoesBack(t *testing.T) {
	ca := tlstest.NewCA("ca")
	alice := ca.Client("alice").Leaf()
	twin := func(edit func(*tlstest.CRL)) func(*tlstest.CRL) { // with a number as well as a date
		return func(l *tlstest.CRL) { edit(l); l.Number = big.NewInt(5) }
	}
	forLeaves := func(edit func(*tlstest.CRL)) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { edit(l); l.Extensions = append(l.Extensions, issuingPoint(flag(1))) }
	}
	type step struct {
		lists []func(*tlstest.CRL)
		kept  string // a part of the warning; empty: none
		want  Reason
	}
	only := func(l ...func(*tlstest.CRL)) []func(*tlstest.CRL) { return l }
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"forward", []step{
			{only(numbered(5)), "", ""},
			{only(numbered(6, alice)), "", ReasonRevoked},
			{only(numbered(7)), "", ""}, // such as a hold that has ended
		}},
		{"back and forth", []step{
			{only(numbered(7, alice)), "", ReasonRevoked},
			{only(numbered(5)), "goes back from number 7 to number 5, so the newer list of before is kept", ReasonRevoked},
			{only(numbered(5)), "goes back from number 7 to number 5", ReasonRevoked},
			{only(numbered(6)), "goes back from number 7 to number 6", ReasonRevoked},
			{only(numbered(8)), "", ""},
			{only(numbered(7, alice)), "goes back from number 8 to number 7", ReasonRevoked}, // what either revokes
		}},
		{"the same again", []step{
			{only(numbered(7, alice)), "", ReasonRevoked},
			{only(numbered(7)), "", ""},
		}},
		{"a number that is never raised", []step{
			{only(twin(dated(1, alice))), "", ReasonRevoked},
			{only(twin(dated(3))), "goes back from thisUpdate ", ReasonRevoked},
			{only(twin(dated(0))), "", ""},
		}},
		{"by date", []step{
			{only(dated(1, alice)), "", ReasonRevoked},
			{only(dated(2)), "goes back from thisUpdate 20", ReasonRevoked},
			{only(dated(2)), "goes back from thisUpdate 20", ReasonRevoked},
			{only(dated(0)), "", ""},
		}},
		{"a number that is new", []step{
			{only(dated(1, alice)), "", ReasonRevoked},
			{only(twin(dated(2))), "goes back from thisUpdate 20", ReasonRevoked},
			{only(twin(dated(0))), "", ""},
		}},
		{"a newer date with an older number", []step{
			{only(numbered(7, alice)), "", ReasonRevoked},
			{only(twin(dated(0))), "goes back from number 7 to number 5", ReasonRevoked},
		}},
		{"several", []step{
			{only(numbered(5), numbered(7, alice), numbered(6)), "", ReasonRevoked},
			{only(numbered(6), numbered(5)), "(block 1, from \"CN=ca\") goes back from number 7 to number 6", ReasonRevoked},
			{only(numbered(5), numbered(8), numbered(6)), "", ""},
		}},
		{"an old one is put beside it", []step{
			{only(numbered(7, alice)), "", ReasonRevoked},
			{only(numbered(7, alice), numbered(5)), "", ReasonRevoked},
			{only(numbered(5), numbered(7, alice)), "", ReasonRevoked},
		}},
		{"another kind of list", []step{
			{only(numbered(7, alice)), "", ReasonRevoked},
			{only(forLeaves(numbered(5))), "", ReasonCRLMissing}, // for the root itself, of which nothing speaks any more
		}},
	} {
		var previous *crlSet
		for i, s := range c.steps {
			var lists [][]byte
			for _, l := range s.lists {
				lists = append(lists, ca.CRL(l))
			}
			set, problems := loadLists(t, []*x509.Certificate{ca.Cert}, Options{}, previous, lists...)
			if s.kept == "" {
				checkTexts(t, c.name, problems)
			} else {
				checkTexts(t, c.name, problems, s.kept)
				if last := set.infos()[len(set.lists)-1]; !last.Kept {
					t.Errorf("%s, load %d: %+v", c.name, i, last)
				}
			}
			v := newVerifier(ClientCertRequire, []*x509.Certificate{ca.Cert}, false, set)
			if got := reasonOf(t, v, time.Now(), alice); got != s.want {
				t.Errorf("%s, load %d: %q, want %q", c.name, i, got, s.want)
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

// What is kept revokes past its next update, too: the old list that has come back may well outlast it. But then it says
// of nobody that he is good.
func TestKeptListOutlived(t *testing.T) {
	ca := tlstest.NewCA("ca")
	alice, bob := ca.Client("alice").Leaf(), ca.Client("bob").Leaf()
	until := func(days int, edit func(*tlstest.CRL)) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { edit(l); l.NextUpdate = time.Now().AddDate(0, 0, days) }
	}
	certs := []*x509.Certificate{ca.Cert}
	for _, c := range []struct {
		old, now   int // days until their next updates
		alice, bob Reason
	}{{3, 9, ReasonRevoked, ""}, {9, 3, ReasonRevoked, ""}, {3, 4, ReasonRevoked, ReasonCRLStale}} {
		set, _ := loadLists(t, certs, Options{}, nil, ca.CRL(until(c.old, numbered(7, alice))))
		set, _ = loadLists(t, certs, Options{}, set, ca.CRL(until(c.now, numbered(5))))
		v, at := newVerifier(ClientCertRequire, certs, false, set), time.Now().AddDate(0, 0, 5)
		if a, b := reasonOf(t, v, at, alice), reasonOf(t, v, at, bob); a != c.alice || b != c.bob {
			t.Errorf("%+v: %q and %q", c, a, b)
		}
	}
}

// What is kept is the list of one CA, known by its key: neither a namesake's nor one that nobody of the CA file has
// signed comes in between, and a CA that is taken out of the CA file takes its list with it.
func TestCRLGoesBackByCA(t *testing.T) {
	one, two := tlstest.NewCA("root"), tlstest.NewCA("root")
	alice := one.Client("alice").Leaf()
	both := []*x509.Certificate{one.Cert, two.Cert}
	back := `goes back from number 7 to number 5`
	for _, c := range []struct {
		name          string
		before, after []*x509.Certificate // the CA file
		old, now      [][]byte
		want          []string
	}{
		{"its own", both, both, list(one.CRL(numbered(7, alice)), two.CRL(nil)), list(one.CRL(numbered(5)), two.CRL(nil)), []string{back}},
		{"the namesake's number is lower", both, both, list(one.CRL(numbered(7, alice)), two.CRL(numbered(5))), list(one.CRL(numbered(8)), two.CRL(numbered(5))), nil},
		{"the namesake's goes back", both, both, list(one.CRL(numbered(5)), two.CRL(numbered(7))), list(one.CRL(numbered(6)), two.CRL(numbered(5))), []string{back}},
		{"vanished", both, both, list(one.CRL(numbered(7, alice)), two.CRL(nil)), list(two.CRL(nil)), []string{`there is no CRL from "CN=root"`}},
		{"taken out of the CA file", both, both[1:], list(one.CRL(numbered(7, alice)), two.CRL(nil)), list(two.CRL(nil)), nil},
	} {
		set, problems := loadLists(t, c.before, Options{}, nil, c.old...)
		if problems != nil {
			t.Fatal(problems)
		}
		_, problems = loadLists(t, c.after, Options{}, set, c.now...)
		checkTexts(t, c.name, problems, c.want...)
	}

	// Of a CA that only clients bring, the key identifier is all there is to know.
	root := tlstest.NewCA("root")
	inter, other := root.Intermediate("intermediate"), root.Intermediate("intermediate")
	bob := inter.Client("bob")
	ca := []*x509.Certificate{root.Cert}
	set, _ := loadLists(t, ca, Options{}, nil, root.CRL(nil), inter.CRL(numbered(7, bob.Leaf())), other.CRL(numbered(3)))
	set, problems := loadLists(t, ca, Options{}, set, root.CRL(nil), inter.CRL(numbered(5)), other.CRL(numbered(4)))
	checkTexts(t, "of clients", problems, "is issued by no CA of ca_file", "is issued by no CA of ca_file", back)
	if got := reasonOf(t, newVerifier(ClientCertRequire, ca, false, set), time.Now(), bob.Chain...); got != ReasonRevoked {
		t.Errorf("of clients: %q", got)
	}
	// It comes into the CA file, and its list is known by the key then.
	ca = append(ca, inter.Cert)
	set, problems = loadLists(t, ca, Options{}, set, root.CRL(nil), inter.CRL(numbered(6)))
	checkTexts(t, "of clients, then of the CA file", problems, `goes back from number 7 to number 6`)
	if got := reasonOf(t, newVerifier(ClientCertRequire, ca, false, set), time.Now(), bob.Chain...); got != ReasonRevoked {
		t.Errorf("of clients, then of the CA file: %q", got)
	}
	set, problems = loadLists(t, ca[:1], Options{}, set, root.CRL(nil), inter.CRL(numbered(6)))
	checkTexts(t, "and out of it", problems, "is issued by no CA of ca_file", `goes back from number 7 to number 6`)
	for _, l := range set.lists {
		if l.kept && l.signer != nil {
			t.Error("a CA that is no longer in the CA file vouches for a list")
		}
	}
}

// Through Load: the server in force stands for what was there; what a client and the log are told names the list; and
// the server before is not changed by the one after it.
func TestLoadKeepsNewerCRL(t *testing.T) {
	s := newSite(t)
	alice := s.ca.Client("alice")
	o := s.options()
	s.write(t, "ca.crl", s.ca.CRL(numbered(7, alice.Leaf())))
	first := load(t, o)
	s.write(t, "ca.crl", s.ca.CRL(numbered(5)))
	second, problems := Load(o, first, nil, time.Now())
	if second == nil || len(problems) != 1 || !problems[0].Warning || problems[0].Key != "crl_file" {
		t.Fatalf("%v", problems)
	}
	if want := `"` + o.CRLFile + `" (block 1, from "CN=root") goes back from number 7 to number 5, so the newer list of before is kept and asked as well: ` +
		`give the CA's newest list, or restart the gate to forget that one`; problems[0].Text != want {
		t.Errorf("got  %s\nwant %s", problems[0].Text, want)
	}
	err := second.verifier.verify(alice.Chain, time.Now())
	if err == nil || !strings.Contains(err.Error(), `(block 1, from "CN=root", as it was before a reload)`) {
		t.Errorf("got %v", err)
	}
	if len(second.CRLs) != 2 || second.CRLs[0].Kept || !second.CRLs[1].Kept || first.CRLs[0].Kept || first.verifier.crls.lists[0].kept {
		t.Errorf("first %+v, second %+v", first.CRLs, second.CRLs)
	}

	// A restart forgets it, and so does whoever takes the option away and puts it back.
	if third, problems := Load(o, nil, nil, time.Now()); third == nil || problems != nil {
		t.Errorf("after a restart: %v", problems)
	}
	without := o
	without.CRLFile = ""
	third, _ := Load(without, second, nil, time.Now())
	if third == nil || third.CRLs != nil {
		t.Fatal("without crl_file")
	}
	if fourth, problems := Load(o, third, nil, time.Now()); fourth == nil || problems != nil {
		t.Errorf("without crl_file for a while: %v", problems)
	}
}

// pitfall 32, and what an operator does most: the same files again, bad ones, good ones.
func TestReloadCRLs(t *testing.T) {
	s := newSite(t)
	alice := s.ca.Client("alice")
	o := s.options()
	inForce := load(t, o)
	good := must(os.ReadFile(o.CRLFile))
	for _, c := range []struct {
		name string
		file []byte
		ok   bool
		want Reason
	}{
		{"the same", good, true, ""},
		{"cut short", good[:len(good)/2], false, ""},
		{"revoking", s.ca.CRL(func(l *tlstest.CRL) { l.Number = big.NewInt(2); l.Revoke(alice.Leaf()) }), true, ReasonRevoked},
		{"empty", nil, false, ReasonRevoked},
		{"a web page", []byte("<html>"), false, ReasonRevoked},
		{"one good, one bad", slices.Concat(good, bytes.Replace(good, []byte("\n"), []byte("\n?"), 2)), false, ReasonRevoked},
		{"by another CA", tlstest.NewCA("root").CRL(numbered(9)), false, ReasonRevoked},
		{"DER", derOf(t, s.ca.CRL(func(l *tlstest.CRL) { l.Number = big.NewInt(3) })), true, ""},
	} {
		s.write(t, "ca.crl", c.file)
		next, problems := Load(o, inForce, nil, time.Now())
		if (next != nil) != c.ok {
			t.Errorf("%s: %v", c.name, problems)
		}
		if next != nil {
			inForce = next
		} else if problems[0].Key != "crl_file" {
			t.Errorf("%s: %v", c.name, problems)
		}
		if got := reasonOf(t, inForce.verifier, time.Now(), alice.Chain...); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
