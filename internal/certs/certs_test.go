package certs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest"
	"pgwicket/internal/tlstest/chains"
)

// A chain that is known is judged again without its signatures, at another time
// and by other options.
func TestVerifyAgain(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("Root")
	pair := root.Intermediate("Sub").Client("app_user")
	pool := certs.NewPool("ca_file", []*certs.Certificate{parse(t, root.Cert.Raw)}, false)
	leaf, sub := parse(t, pair.Chain[0].Raw), parse(t, pair.Chain[1].Raw)
	chain, err := certs.Verify(leaf, []*certs.Certificate{sub}, pool, certs.Options{})
	if err != nil || len(chain) != 3 || chain[0] != leaf || chain[1] != sub || !pool.IsAnchor(chain[2], certs.Client) {
		t.Fatalf("chain %v, %v", chain, err)
	}
	for _, c := range []struct {
		options certs.Options
		want    certs.Reason
		cert    *certs.Certificate
	}{
		{certs.Options{}, "", nil},
		{certs.Options{MinSecurityBits: 128}, "", nil},
		{certs.Options{MinSecurityBits: 192}, certs.WeakKey, leaf},
		{certs.Options{Purpose: certs.Server}, certs.WrongPurpose, leaf},
		{certs.Options{Time: leaf.NotAfter}, certs.Expired, leaf},
		{certs.Options{Time: leaf.NotAfter.Add(-time.Nanosecond)}, "", nil},
		{certs.Options{Time: leaf.NotBefore.Add(-time.Second)}, certs.NotYetValid, nil},
		{certs.Options{Time: leaf.NotBefore}, "", nil},
	} {
		for name, err := range map[string]error{
			"VerifyAgain": second(certs.VerifyAgain(func(c []*certs.Certificate) bool { return slices.Equal(c, chain) }, leaf, []*certs.Certificate{sub}, pool, c.options)),
			"Verify":      second(certs.Verify(leaf, []*certs.Certificate{sub}, pool, c.options)),
		} {
			var refused *certs.Error
			switch {
			case c.want == "" && err != nil, c.want != "" && !errors.As(err, &refused):
				t.Errorf("%s with %+v: %v", name, c.options, err)
			case c.want != "" && (refused.Reason != c.want || c.cert != nil && refused.Cert != c.cert):
				t.Errorf("%s with %+v: %s: %v", name, c.options, refused.Reason, err)
			}
		}
	}
}

func second(_ []*certs.Certificate, err error) error { return err }

// A refused chain is returned for those who explain it; where there is none, the
// error names the certificate whose issuer is missing.
func TestChainOfRefusal(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("Root")
	pair := root.Intermediate("Sub").Client("app_user")
	leaf, sub := parse(t, pair.Chain[0].Raw), parse(t, pair.Chain[1].Raw)
	pool := certs.NewPool("ca_file", []*certs.Certificate{parse(t, root.Cert.Raw)}, false)
	chain, err := certs.Verify(leaf, []*certs.Certificate{sub}, pool, certs.Options{Purpose: certs.Server})
	if err == nil || len(chain) != 3 {
		t.Errorf("chain of %d, %v", len(chain), err)
	}
	chain, err = certs.Verify(leaf, nil, pool, certs.Options{})
	var refused *certs.Error
	if !errors.As(err, &refused) || chain != nil || refused.Cert != leaf || refused.Reason != certs.UnknownCA {
		t.Errorf("chain of %d, %v", len(chain), err)
	}
	stranger := certs.NewPool("ca_file", []*certs.Certificate{parse(t, tlstest.NewCA("Stranger").Cert.Raw)}, false)
	_, err = certs.Verify(leaf, []*certs.Certificate{sub}, stranger, certs.Options{})
	if !errors.As(err, &refused) || refused.Cert != sub || refused.Depth != 1 {
		t.Errorf("the sub-CA is not named: %v", err)
	}
}

// Names of certificates that were read from files say where.
func TestOrigin(t *testing.T) {
	t.Parallel()
	c := parse(t, tlstest.NewCA("Root").Cert.Raw)
	c.Origin = `certificate 3 of "ca.pem"`
	e := &certs.Error{Cert: c, Depth: 1, Problem: "is not a CA", Rule: "RFC 5280 section 4.2.1.9", Remedy: "issue it anew"}
	want := fmt.Sprintf("CA certificate %s (%q, issued by %q, certificate 3 of \"ca.pem\") is not a CA (RFC 5280 section 4.2.1.9): issue it anew", c.Serial(), c.Subject, c.Issuer)
	if e.Error() != want {
		t.Errorf("got %s\nwant %s", e, want)
	}
}

func TestPool(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("Root")
	sub := root.Intermediate("Sub")
	r, again, s := parse(t, root.Cert.Raw), parse(t, root.Cert.Raw), parse(t, sub.Cert.Raw)
	pool := certs.NewPool("ca_file", []*certs.Certificate{r, s, again}, false)
	if got := pool.Certificates(); len(got) != 2 || got[0] != r || got[1] != s {
		t.Errorf("the pool has %v", got)
	}
	if pool.Find(again) != r || !r.Equal(again) || pool.Find(parse(t, tlstest.NewCA("Root").Cert.Raw)) != nil {
		t.Error("Find does not go by the bytes")
	}
	if got := pool.BySubject(s.Issuer); len(got) != 1 || got[0] != r {
		t.Errorf("the issuer is %v", got)
	}
	if !pool.IsAnchor(again, certs.Client) || pool.IsAnchor(s, certs.Client) {
		t.Error("the root is an anchor, and the sub-CA is not")
	}
	if partial := certs.NewPool("ca_file", []*certs.Certificate{r, s}, true); !partial.IsAnchor(s, certs.Client) {
		t.Error("with a partial chain the sub-CA is an anchor")
	}
}

// checkWords holds a refusal to the promise that it names the certificate and
// says what to do.
func checkWords(t *testing.T, name string, err error) {
	t.Helper()
	var refused *certs.Error
	if !errors.As(err, &refused) {
		return
	}
	text := err.Error()
	for what, part := range map[string]string{
		"serial number": refused.Cert.Serial(), "subject": fmt.Sprintf("%q", refused.Cert.Subject.String()),
		"way out": refused.Remedy, "problem": refused.Problem,
	} {
		if part == "" || !strings.Contains(text, part) {
			t.Errorf("%s: no %s in %s", name, what, text)
		}
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f || r > 0x7e && r < 0xa0 {
			t.Errorf("%s: control characters in %q", name, text)
		}
	}
	if len(text) > 2000 {
		t.Errorf("%s: %d bytes of text", name, len(text))
	}
}

// Distribution points are told apart as OpenSSL does: by any name that is the
// same.
func TestDistributionPoints(t *testing.T) {
	t.Parallel()
	forge, err := chains.NewForge()
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, forge.Sign(forge.Leaves[2]))
	if len(c.DistributionPoints()) != 2 {
		t.Fatalf("%d points", len(c.DistributionPoints()))
	}
	named, relative := c.DistributionPoints()[0], c.DistributionPoints()[1]
	if named.Reasons != 0x60 || relative.Reasons != certs.AllReasons || len(relative.Issuer) != 1 {
		t.Errorf("reasons %x and %x, issuers %v", named.Reasons, relative.Reasons, relative.Issuer)
	}
	uri := func(s string) certs.DistributionPointName {
		inner := append([]byte{0x86, byte(len(s))}, s...)
		return point(t, append([]byte{0xa0, byte(len(inner))}, inner...))
	}
	common := func(s string) certs.DistributionPointName {
		value := append([]byte{0x06, 3, 0x55, 4, 3, 0x13, byte(len(s))}, s...)
		pair := append([]byte{0x30, byte(len(value))}, value...)
		return point(t, append([]byte{0xa1, byte(len(pair))}, pair...))
	}
	for _, m := range []struct {
		a, b certs.DistributionPointName
		want bool
	}{
		{named.Name, uri("http://crl.example/1"), true},
		{named.Name, uri("http://crl.example/2"), false},
		{named.Name, uri("http://CRL.example/1"), false},
		{named.Name, certs.DistributionPointName{}, true},
		{certs.DistributionPointName{}, uri("x"), true},
		{relative.Name, common("X").Below(c.Issuer), true},
		{relative.Name, common("Y").Below(c.Issuer), false},
		{relative.Name, common("X").Below(c.Subject), false},
		{relative.Name, uri("http://crl.example/1"), false},
	} {
		if m.a.Matches(m.b) != m.want || m.b.Matches(m.a) != m.want {
			t.Errorf("%+v and %+v: want %v", m.a, m.b, m.want)
		}
	}
}

func point(t *testing.T, der []byte) certs.DistributionPointName {
	t.Helper()
	n, ok := certs.ParseDistributionPointName(der)
	if !ok {
		t.Fatalf("%x cannot be read", der)
	}
	return n
}

// Names have one canonical form whatever their encoding.
func TestName(t *testing.T) {
	t.Parallel()
	read := func(der ...byte) certs.Name {
		n, ok := certs.ParseName(der)
		if !ok {
			t.Fatalf("%x cannot be read", der)
		}
		return n
	}
	printable := read(0x30, 0x10, 0x31, 0x0e, 0x30, 0x0c, 0x06, 3, 0x55, 4, 3, 0x13, 5, 'R', ' ', ' ', 'C', 'A')
	utf8 := read(0x30, 0x0f, 0x31, 0x0d, 0x30, 0x0b, 0x06, 3, 0x55, 4, 3, 0x0c, 4, 'r', ' ', 'c', 'a')
	if !printable.Equal(utf8) || printable.Canonical() != utf8.Canonical() || printable.String() != "CN=R  CA" {
		t.Errorf("%v and %v differ", printable, utf8)
	}
	empty := read(0x30, 0)
	if !empty.Empty() || empty.Equal(utf8) || !empty.Equal(certs.Name{}) {
		t.Error("the empty name")
	}
	for _, der := range [][]byte{nil, {0x30}, {0x30, 0, 0}, {0x31, 0}, {0x30, 2, 0x30, 0}} {
		if _, ok := certs.ParseName(der); ok {
			t.Errorf("%x was read", der)
		}
	}
}
