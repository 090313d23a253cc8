package crl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// A file of several lists replaces another one list by list.
func TestReplacement(t *testing.T) {
	t.Parallel()
	a, b, stranger := tlstest.NewCA("a"), tlstest.NewCA("b"), tlstest.NewCA("c")
	cas := parsed(a.Cert, b.Cert)
	of := func(ca *tlstest.CA, n int64) []byte { return ca.CRL(func(l *tlstest.CRL) { l.Number = big.NewInt(n) }) }
	join := func(lists ...[]byte) (all []byte) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	for _, c := range []struct {
		name      string
		data, old []byte
		want      error
	}{
		{"the first", of(a, 1), nil, nil},
		{"both newer", join(of(a, 2), of(b, 2)), join(of(a, 1), of(b, 1)), nil},
		{"in another order", join(of(b, 1), of(a, 1)), join(of(a, 1), of(b, 1)), nil},
		{"one older", join(of(a, 3), of(b, 1)), join(of(a, 2), of(b, 2)), ErrOlder},
		{"one missing", of(a, 3), join(of(a, 2), of(b, 2)), ErrOlder},
		{"one of a stranger", join(of(a, 3), of(stranger, 1)), of(a, 2), ErrForeign},
		{"a stranger's goes", of(a, 3), join(of(a, 2), of(stranger, 1)), nil},
		{"instead of nothing", of(a, 1), []byte("damaged"), nil},
		{"nothing", nil, of(a, 1), ErrNoList},
	} {
		next, err := Replacement(c.data, c.old, cas, time.Now())
		if !errors.Is(err, c.want) || c.want == nil && (err != nil || next.IsZero()) {
			t.Errorf("%s: %v, %v", c.name, next, err)
		}
	}
	// A CA that may not sign lists.
	mute := tlstest.NewCA("mute", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	if _, err := Replacement(of(mute, 1), nil, parsed(mute.Cert), time.Now()); !errors.Is(err, ErrForeign) {
		t.Errorf("%v", err)
	}
}

// What a server sends again and again is judged once: each list costs a signature, and each of the old
// ones is looked for among the new ones.
func TestRepeatedListsAreParsedOnce(t *testing.T) {
	t.Parallel()
	a, b := tlstest.NewCA("a"), tlstest.NewCA("b")
	file := append(bytes.Repeat(a.CRL(func(*tlstest.CRL) {}), 1000), bytes.Repeat(b.CRL(func(*tlstest.CRL) {}), 1000)...)
	if lists, err := parseAll(file); err != nil || len(lists) != 2 {
		t.Errorf("%d lists, %v", len(lists), err)
	}
}
