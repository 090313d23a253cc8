package crl_test

import (
	"crypto/x509"
	"fmt"
	"time"

	"pgwicket/internal/crl"
	"pgwicket/internal/tlstest"
)

func Example() {
	ca := tlstest.NewCA("example CA")
	alice, mallory := ca.Client("alice").Leaf(), ca.Client("mallory").Leaf()
	file := ca.CRL(func(l *tlstest.CRL) { l.Revoke(mallory) })

	b := crl.Builder{CAs: []*x509.Certificate{ca.Cert}, Now: time.Now(), CAOption: "ca_file", Peers: "clients"}
	problems := b.Add("crl_file", "ca.crl", file)
	set, more := b.Set("crl_file")
	if problems != nil || more != nil {
		fmt.Println(problems, more)
	}
	for _, c := range []*x509.Certificate{alice, mallory} {
		f := set.Check(c, ca.Cert, time.Now())
		fmt.Println(c.Subject.CommonName, f.OK(), f.Status == crl.Revoked)
	}
	// Output:
	// alice true false
	// mallory false true
}
