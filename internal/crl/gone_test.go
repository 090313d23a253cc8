package crl

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// Where the certificates of a CA without a list are admitted, a list that is gone stays in use until a reload that
// somebody has asked for. Another list of the CA replaces it.
func TestListsThatAreGone(t *testing.T) {
	t.Parallel()
	one, two := tlstest.NewCA("one"), tlstest.NewCA("two")
	mallory := two.Client("mallory").Leaf()
	build := func(p Policy, keep bool, previous *Set, lists ...[]byte) (*Set, string) {
		b := Builder{Policy: p, CAs: parsed(one.Cert, two.Cert), Previous: previous, KeepGone: keep, Now: time.Now(), CAOption: "ca_file", Peers: "clients"}
		for _, list := range lists {
			b.AddEntry("crl_dir", "a", list)
		}
		set, problems := b.Set("crl_dir")
		text := ""
		for _, p := range problems {
			text += p.Text + "\n"
		}
		return set, text
	}
	revoking := two.CRL(func(l *tlstest.CRL) { l.Revoke(mallory) })
	allow := Policy{AllowMissing: true}
	status := func(s *Set) Status { return statusOf(s, time.Now(), []*x509.Certificate{mallory, two.Cert}...) }
	before, _ := build(allow, true, nil, one.CRL(nil), revoking)
	kept, problems := build(allow, true, before, one.CRL(nil))
	if status(kept) != Revoked || !strings.Contains(problems, "is gone, and the CA has no other list that covers the same certificates, so it stays in use") {
		t.Errorf("after a change of files: %v, %q", status(kept), problems)
	}
	if again, _ := build(allow, true, kept, one.CRL(nil)); status(again) != Revoked {
		t.Errorf("after another one: %v", status(again))
	}
	if dropped, _ := build(allow, false, kept, one.CRL(nil)); status(dropped) == Revoked {
		t.Error("a reload that was asked for keeps it")
	}
	if replaced, problems := build(allow, true, kept, one.CRL(nil), two.CRL(nil)); status(replaced) != Good || problems != "" {
		t.Errorf("another list: %v, %q", status(replaced), problems)
	}
	if refused, _ := build(Policy{}, true, before, one.CRL(nil)); status(refused) != Missing {
		t.Errorf("where the certificates are refused: %v", status(refused))
	}
}
