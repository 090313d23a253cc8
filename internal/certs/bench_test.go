package certs_test

import (
	"crypto/x509"
	"slices"
	"testing"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest"
)

// BenchmarkVerify compares the verifier with crypto/x509's for a leaf and an
// intermediate that are read already.
func BenchmarkVerify(b *testing.B) {
	root := tlstest.NewCA("Root")
	sub := root.Intermediate("Sub")
	pair := sub.Client("app_user")

	b.Run("certs", func(b *testing.B) {
		pool := certs.NewPool("ca_file", []*certs.Certificate{parse(b, root.Cert.Raw)}, false)
		leaf, sent := parse(b, pair.Chain[0].Raw), []*certs.Certificate{parse(b, sub.Cert.Raw)}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := certs.Verify(leaf, sent, pool, certs.Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("certs known", func(b *testing.B) {
		pool := certs.NewPool("ca_file", []*certs.Certificate{parse(b, root.Cert.Raw)}, false)
		leaf, sent := parse(b, pair.Chain[0].Raw), []*certs.Certificate{parse(b, sub.Cert.Raw)}
		chain, err := certs.Verify(leaf, sent, pool, certs.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := certs.VerifyAgain(func(c []*certs.Certificate) bool { return slices.Equal(c, chain) }, leaf, sent, pool, certs.Options{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("crypto/x509", func(b *testing.B) {
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(root.Cert)
		between.AddCert(sub.Cert)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := pair.Chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkParse compares the readers.
func BenchmarkParse(b *testing.B) {
	der := tlstest.NewCA("Root").Client("app_user").Chain[0].Raw
	b.Run("certs", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			parse(b, der)
		}
	})
	b.Run("crypto/x509", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := x509.ParseCertificate(der); err != nil {
				b.Fatal(err)
			}
		}
	})
}
