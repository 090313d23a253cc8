package clientcert

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/tlstest"
)

// An ordinary certificate that is refused is logged as one that is admitted.
func TestRefused(t *testing.T) {
	t.Parallel()
	leaf := tlstest.NewCA("root").Client("alice", func(c *x509.Certificate) { c.DNSNames = []string{"alice.example"} }).Leaf()
	if got, want := fmt.Sprintf("%+v", Refused(leaf)), fmt.Sprintf("%+v", acl.IdentityOf(leaf)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A refused certificate of thousands of names costs little beyond what crypto/tls has
// parsed already, and the log says that it was cut.
func TestRefusedIsBounded(t *testing.T) {
	t.Parallel()
	leaf := tlstest.NewCA("root").Client("alice", func(c *x509.Certificate) {
		for i := range 1500 {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: fmt.Sprint(i)})
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("%d.example", i))
		}
	}).Leaf()
	began := time.Now()
	id := Refused(leaf)
	took := time.Since(began)
	if !strings.HasPrefix(id.DN, "... (") || len(id.DNS) != maxList {
		t.Errorf("the subject is %q, and there are %d DNS names", id.DN, len(id.DNS))
	}
	began = time.Now()
	acl.IdentityOf(leaf)
	if whole := time.Since(began); took > whole/2 {
		t.Errorf("it took %v, and the whole identity %v", took, whole)
	}
}

// The sessions of a pool have one identity in memory, and a certificate that was forgotten has an equal one.
func TestIdentities(t *testing.T) {
	t.Parallel()
	ca, known := tlstest.NewCA("root"), NewIdentities()
	leaf := ca.Client("alice", func(c *x509.Certificate) {
		c.DNSNames, c.EmailAddresses = []string{"a.example", "b.example"}, []string{"alice@example.com"}
	}).Leaf()
	first, der, err := known.Of(leaf, leaf.Raw)
	if err != nil || !bytes.Equal(der, leaf.Raw) {
		t.Errorf("%x, %v", der, err)
	}
	if want := acl.IdentityOf(leaf); !reflect.DeepEqual(*first, want) {
		t.Errorf("got %+v, want %+v", *first, want)
	}
	again, same, err := known.Of(nil, bytes.Clone(leaf.Raw))
	if err != nil || again != first || &same[0] != &der[0] {
		t.Errorf("a certificate in DER has other memory than the same one in a handshake (%v)", err)
	}
	for i := range identitiesLimit {
		if _, _, err := known.Of(&x509.Certificate{SerialNumber: new(big.Int)}, []byte{byte(i), byte(i >> 8)}); err != nil {
			t.Fatal(err)
		}
	}
	later, _, err := known.Of(nil, leaf.Raw)
	if err != nil || later == first || !reflect.DeepEqual(later, first) || known.recent.Len() != identitiesLimit {
		t.Errorf("after %d others: %+v, %v, of %d that are remembered", identitiesLimit, later, err, known.recent.Len())
	}
	if _, _, err := known.Of(nil, []byte("nothing")); err == nil {
		t.Error("what is no certificate has an identity")
	}
}
