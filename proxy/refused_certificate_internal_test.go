package proxy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/tlstest"
)

// An ordinary certificate that is refused is logged as one that is admitted.
func TestRefusedIdentity(t *testing.T) {
	t.Parallel()
	leaf := tlstest.NewCA("root").Client("alice", func(c *x509.Certificate) { c.DNSNames = []string{"alice.example"} }).Leaf()
	if got, want := fmt.Sprintf("%+v", refusedIdentity(leaf)), fmt.Sprintf("%+v", acl.IdentityOf(leaf)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A refused certificate of thousands of names costs little beyond what crypto/tls has
// parsed already, and the log says that it was cut.
func TestRefusedIdentityIsBounded(t *testing.T) {
	t.Parallel()
	leaf := tlstest.NewCA("root").Client("alice", func(c *x509.Certificate) {
		for i := range 1500 {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: fmt.Sprint(i)})
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("%d.example", i))
		}
	}).Leaf()
	began := time.Now()
	id := refusedIdentity(leaf)
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
