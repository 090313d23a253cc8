package certs_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"runtime"
	"testing"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest"
)

// growing are certificates of some 28 KiB, each of one thing that there may be much of.
func growing() map[string][]byte {
	const size = 28 << 10
	nobody := tlstest.NewCA("nobody")
	leaf := func(edit func(*x509.Certificate)) []byte { return nobody.Client("grown", edit).Leaf().Raw }
	return map[string][]byte{
		"subject": leaf(func(c *x509.Certificate) {
			for i := range size / 16 {
				c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: fmt.Sprint(i % 10)})
			}
		}),
		"DNS names": leaf(func(c *x509.Certificate) {
			for range size / 4 {
				c.DNSNames = append(c.DNSNames, "a")
			}
		}),
		"key usages": leaf(func(c *x509.Certificate) {
			for i := range size / 6 {
				c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, asn1.ObjectIdentifier{1, 2, i % 100, 3})
			}
		}),
		"extensions": leaf(func(c *x509.Certificate) {
			for i := range size / 14 {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, i % 16000}, Value: []byte{5, 0}})
			}
		}),
		"distribution points": leaf(func(c *x509.Certificate) {
			for range size / 11 {
				c.CRLDistributionPoints = append(c.CRLDistributionPoints, "a")
			}
		}),
		"directory names": leaf(func(c *x509.Certificate) {
			var all []asn1.RawValue
			for range size / 16 {
				all = append(all, asn1.RawValue{FullBytes: []byte{0xa4, 14, 0x30, 12, 0x31, 10, 0x30, 8, 6, 3, 0x55, 4, 3, 0x13, 1, 'a'}})
			}
			c.ExtraExtensions = append(c.ExtraExtensions, tlstest.Extension([]int{2, 5, 29, 17}, false, all))
		}),
		"constraints": nobody.Intermediate("grown", func(c *x509.Certificate) {
			for range size / 5 {
				c.PermittedDNSDomains = append(c.PermittedDNSDomains, "a")
			}
		}).Cert.Raw,
	}
}

// BenchmarkParseHostile compares the readers for certificates that a stranger has made
// to cost much. crypto/tls reads each with crypto/x509 before Parse may see it.
func BenchmarkParseHostile(b *testing.B) {
	for name, der := range growing() {
		b.Run(name+"/certs", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				parse(b, der)
			}
		})
		b.Run(name+"/crypto/x509", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x509.ParseCertificate(der); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Of what a stranger sends little is kept in memory beside its bytes.
func TestParseHostileIsBounded(t *testing.T) {
	const copies = 20
	for name, der := range growing() {
		kept := make([]*certs.Certificate, 0, copies)
		size := heapOf(func() {
			for range copies {
				kept = append(kept, parse(t, der))
			}
		}) / copies
		if most := len(der) + 4<<10; size > most {
			t.Errorf("%s: %d bytes are kept of a certificate of %d", name, size, len(der))
		}
		runtime.KeepAlive(kept)
	}
}

// heapOf returns by how much the heap grows.
func heapOf(f func()) int {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int(after.HeapAlloc) - int(before.HeapAlloc)
}
