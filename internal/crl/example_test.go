package crl_test

import (
	"fmt"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/crl"
	"pgwicket/internal/tlstest"
)

func Example() {
	ca := tlstest.NewCA("example CA")
	issuer, _ := certs.Parse(ca.Cert.Raw)
	alice, mallory := ca.Client("alice").Leaf(), ca.Client("mallory").Leaf()
	file := ca.CRL(func(l *tlstest.CRL) { l.Revoke(mallory) })

	b := crl.Builder{CAs: []*certs.Certificate{issuer}, Now: time.Now(), CAOption: "ca_file", Peers: "clients"}
	problems := b.Add("crl_file", "ca.crl", file)
	set, more := b.Set("crl_file")
	if problems != nil || more != nil {
		fmt.Println(problems, more)
	}
	for _, der := range [][]byte{alice.Raw, mallory.Raw} {
		c, _ := certs.Parse(der)
		f := set.Check(c, []*certs.Certificate{issuer}, time.Now())
		fmt.Println(c.Subject, f.OK(), f.Status == crl.Revoked)
	}
	// Output:
	// CN=alice true false
	// CN=mallory false true
}
