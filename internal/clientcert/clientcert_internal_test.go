package clientcert

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

// The verified chain that a session keeps holds nothing of the rest that was sent.
func TestDetached(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("root")
	leaf, other := ca.Client("alice").Leaf(), ca.Client("other", func(c *x509.Certificate) {
		for i := range 200 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("%d.example", i))
		}
	}).Leaf()
	kept := Detached([]*x509.Certificate{leaf, ca.Cert}, []*x509.Certificate{leaf, other})
	if kept[0] == leaf || !kept[0].Equal(leaf) || kept[1] != ca.Cert {
		t.Error("with other certificates behind it, the leaf must be a copy and the root must not")
	}
	if &kept[0].Raw[0] == &leaf.Raw[0] {
		t.Error("the copy shares memory with the original")
	}
	if kept := Detached([]*x509.Certificate{leaf, ca.Cert}, []*x509.Certificate{leaf}); kept[0] != leaf {
		t.Error("a leaf alone was copied")
	}
}
