package crl

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// Extensions of lists and entries, and what they hold.
var (
	idCE        = asn1.ObjectIdentifier{2, 5, 29}
	deltaCRL    = tlstest.Extension(append(idCE, 27), true, 1)
	freshest    = tlstest.Extension(append(idCE, 46), false, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true})
	keyCritical = tlstest.Extension(append(idCE, 35), true, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true})
	unknownExt  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
	otherIssuer = tlstest.Extension(append(idCE, 29), true, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true})
	invalidFrom = tlstest.Extension(append(idCE, 24), false, asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte("20260101000000Z")})
)

func derOf(t testing.TB, crl []byte) []byte {
	t.Helper()
	block, rest := pem.Decode(crl)
	if block == nil || len(rest) != 0 {
		t.Fatal("not one PEM block")
	}
	return block.Bytes
}

// The kinds of list that cannot be applied are refused by name; what cannot be read is refused as well.
func TestParse(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	rsa := ca.WithKey(tlstest.RSA).Intermediate("rsa")
	ext := func(x ...pkix.Extension) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { l.Extensions = x }
	}
	entry := func(reason int, x ...pkix.Extension) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) {
			l.Revoked = []tlstest.Revoked{{Serial: big.NewInt(0xc0ffee), Date: l.ThisUpdate, Reason: reason, Extensions: x}}
		}
	}
	v1 := func(then func(*tlstest.CRL)) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { l.Version = 1; then(l) }
	}
	signed := func(a x509.SignatureAlgorithm) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { l.Algorithm = a }
	}
	rsaSigned := func(a x509.SignatureAlgorithm) func(*tlstest.CRL) {
		return func(l *tlstest.CRL) { l.Algorithm, l.Key, l.Issuer = a, rsa.Key, rsa.Cert.RawSubject }
	}
	malformed := errMalformed.Error()

	for _, c := range []struct {
		name string
		edit func(*tlstest.CRL)
		want string // part of the error; empty: none
	}{
		{"version 2, empty", nil, ""},                       // pomerium/pomerium#4471: an empty list is a good list
		{"version 1, empty", v1(func(*tlstest.CRL) {}), ""}, // Gr33nbl00d/caddy-revocation-validator#30: no extensions
		{"version 1 with an entry", v1(entry(0)), ""},
		{"version 1 with extensions", v1(ext(freshest)), "version 1 with extensions"},
		{"version 1 with an entry extension", v1(entry(1)), "version 1 whose entries have extensions"},
		{"version 3", func(l *tlstest.CRL) { l.Version = 3 }, "version 3"},
		{"no number", func(l *tlstest.CRL) { l.Number = nil }, ""},
		{"number of 20 octets", func(l *tlstest.CRL) { l.Number = new(big.Int).Lsh(big.NewInt(1), 158) }, ""},
		{"no nextUpdate", func(l *tlstest.CRL) { l.NextUpdate = time.Time{} }, ""},
		{"dates after 2049", func(l *tlstest.CRL) { l.NextUpdate = time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC) }, ""},

		{"delta", ext(deltaCRL), "delta CRL (extension 2.5.29.27)"},
		{"delta, not critical", ext(pkix.Extension{Id: deltaCRL.Id, Value: deltaCRL.Value}), "delta CRL"},
		{"freshest CRL", ext(freshest), ""},
		{"extension twice", ext(keyCritical), malformed},
		{"unknown extension", ext(tlstest.Extension(unknownExt, false, 1)), ""},
		{"unknown critical extension", ext(tlstest.Extension(unknownExt, true, 1)), "unknown critical extension 1.3.6.1.4.1.99999.1"},
		{"number that is none", func(l *tlstest.CRL) { l.Number = nil; ext(tlstest.Extension(append(idCE, 20), false, true))(l) }, malformed},

		{"empty distribution point", ext(tlstest.IssuingDistributionPoint()), ""},
		{"distribution point", ext(tlstest.IssuingDistributionPoint(tlstest.PointName("http://ca.example/1.crl"))), ""},
		{"distribution point without a name", ext(tlstest.IssuingDistributionPoint(asn1.RawValue{Tag: 0, IsCompound: true})), malformed},
		{"only user certificates", ext(tlstest.IssuingDistributionPoint(tlstest.Flag(1))), ""},
		{"only CA certificates", ext(tlstest.IssuingDistributionPoint(tlstest.Flag(2))), ""},
		{"only user and only CA certificates", ext(tlstest.IssuingDistributionPoint(tlstest.Flag(1), tlstest.Flag(2))), "contradicts itself"},
		{"only some reasons", ext(tlstest.IssuingDistributionPoint(asn1.RawValue{Tag: 3, Bytes: []byte{6, 0x40}})), "only lists certificates revoked for some reasons"},
		{"indirect", ext(tlstest.IssuingDistributionPoint(tlstest.Flag(4))), "indirect CRL"},
		{"only attribute certificates", ext(tlstest.IssuingDistributionPoint(tlstest.Flag(5))), "attribute certificates"},
		{"false flags", ext(tlstest.IssuingDistributionPoint(asn1.RawValue{Tag: 1, Bytes: []byte{0}}, asn1.RawValue{Tag: 4, Bytes: []byte{0}})), ""},
		{"flag that is none", ext(tlstest.IssuingDistributionPoint(asn1.RawValue{Tag: 1, Bytes: []byte{1, 1}})), malformed},
		{"unknown field", ext(tlstest.IssuingDistributionPoint(tlstest.Flag(6))), malformed},

		{"reason", entry(1), ""},
		{"unknown reason", entry(99), ""},
		{"reason twice", entry(1, tlstest.Extension(append(idCE, 21), false, asn1.Enumerated(8))), malformed},
		{"reason that is none", entry(0, tlstest.Extension(append(idCE, 21), false, 1)), malformed},
		{"invalidity date", entry(0, invalidFrom), ""},
		{"certificate issuer", entry(0, otherIssuer), "indirect CRL: it has an entry for another CA's certificate (extension 2.5.29.29)"},
		{"unknown entry extension", entry(0, tlstest.Extension(unknownExt, false, 1)), ""},
		{"unknown critical entry extension", entry(0, tlstest.Extension(unknownExt, true, 1)), "entry (serial 00C0FFEE) with the unknown critical extension 1.3.6.1.4.1.99999.1"},
		{"indirect, with such an entry", func(l *tlstest.CRL) {
			ext(tlstest.IssuingDistributionPoint(tlstest.Flag(4)))(l)
			entry(0, otherIssuer)(l)
		}, "lists certificates of several CAs"},

		{"ECDSA with SHA-384", signed(x509.ECDSAWithSHA384), ""},
		{"ECDSA with SHA-512", signed(x509.ECDSAWithSHA512), ""},
		{"ECDSA with SHA-1", signed(x509.ECDSAWithSHA1), ""},
		{"RSA with SHA-256", rsaSigned(x509.SHA256WithRSA), ""},
		{"RSA with SHA-1", rsaSigned(x509.SHA1WithRSA), ""},
		{"RSA with MD5", rsaSigned(x509.MD5WithRSA), "RSA with MD5, which cannot be checked"},
		{"RSA-PSS with SHA-384", rsaSigned(x509.SHA384WithRSAPSS), ""},
	} {
		_, err := Parse(derOf(t, ca.CRL(c.edit)))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want …%s…", c.name, err, c.want)
		}
	}
}

// No list that is cut short anywhere is taken for a shorter one, and nothing may follow it.
func TestParseWhole(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	der := derOf(t, ca.CRL(func(l *tlstest.CRL) {
		l.Revoke(ca.Client("a").Leaf(), ca.Client("b").Leaf())
		l.Revoked[0].Reason = 1
	}))
	if _, err := Parse(der); err != nil {
		t.Fatal(err)
	}
	for n := range der {
		if _, err := Parse(der[:n]); err == nil {
			t.Errorf("the first %d of %d octets are taken for a list", n, len(der))
		}
	}
	if _, err := Parse(append(slices.Clone(der), 0)); err == nil {
		t.Error("an octet after the list goes unseen")
	}
}

// What is not DER, or not what was signed, in places where nothing else would show it.
func TestParseChanged(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	der := derOf(t, ca.CRL(func(l *tlstest.CRL) {
		l.Revoked = []tlstest.Revoked{{Serial: big.NewInt(0x80), Date: l.ThisUpdate}}
	}))
	const sha256, sha384 = "\x2a\x86\x48\xce\x3d\x04\x03\x02", "\x2a\x86\x48\xce\x3d\x04\x03\x03" // ecdsa-with-…
	outer := slices.Clone(der)
	copy(outer[bytes.LastIndex(outer, []byte(sha256)):], sha384)
	for name, changed := range map[string][]byte{
		"the outer algorithm, which is not signed": outer,
		"a serial in more octets than it needs":    bytes.Replace(der, []byte("\x02\x02\x00\x80"), []byte("\x02\x02\x00\x7f"), 1),
		"a negative one":                           bytes.Replace(der, []byte("\x02\x02\x00\x80"), []byte("\x02\x02\xff\x80"), 1),
	} {
		if bytes.Equal(changed, der) {
			t.Fatalf("%s: not found", name)
		}
		if _, err := Parse(changed); err != errMalformed {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestEntries(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	serials := []*big.Int{
		big.NewInt(0), big.NewInt(1), big.NewInt(127), big.NewInt(128), big.NewInt(255), big.NewInt(256),
		new(big.Int).Lsh(big.NewInt(1), 159), big.NewInt(-1),
	}
	l, err := Parse(derOf(t, ca.CRL(func(l *tlstest.CRL) {
		for i, n := range slices.Concat(serials, serials) { // each of them twice: the first one counts
			l.Revoked = append(l.Revoked, tlstest.Revoked{Serial: n, Date: l.ThisUpdate, Reason: 1 + i/len(serials)})
		}
	})))
	if err != nil {
		t.Fatal(err)
	}
	if l.entries.count != 2*len(serials) {
		t.Errorf("got %d entries, want %d", l.entries.count, 2*len(serials))
	}
	used := 0
	for _, slot := range l.entries.slots {
		if slot != 0 {
			used++
		}
	}
	if used != len(serials) { // or a list of one serial over and over would never be through
		t.Errorf("%d slots are used, want %d", used, len(serials))
	}
	content := func(n *big.Int) []byte {
		der, err := asn1.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		return der[2:]
	}
	for _, n := range serials {
		if r, ok := l.entries.find(content(n)); !ok || ReasonName(r.Reason) != "keyCompromise" {
			t.Errorf("%v: got %v, %v", n, r, ok)
		}
	}
	for _, n := range []int64{2, -2, 129, 32768} {
		if r, ok := l.entries.find(content(big.NewInt(n))); ok {
			t.Errorf("%d is not in the list, got %v", n, r)
		}
	}
	if _, ok := l.entries.find(nil); ok {
		t.Error("found nothing at all")
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("ca")
	one, two := ca.CRL(nil), ca.CRL(func(l *tlstest.CRL) { l.Number = big.NewInt(2) })
	damaged := bytes.Replace(two, []byte("\n"), []byte("\n?"), 2)
	endless := bytes.Replace(two, []byte("-----END"), []byte("----END"), 1)
	headless := bytes.Replace(two, []byte("-----BEGIN"), []byte("----BEGIN"), 1)
	for _, c := range []struct {
		name string
		file []byte
		want int // lists; 0: an error
	}{
		{"PEM", one, 1},
		{"DER", derOf(t, one), 1},
		{"two blocks", slices.Concat(one, two), 2}, // grpc-go reads only the first: security/advancedtls/crl.go
		{"text around them", slices.Concat([]byte("the root:\n"), one, []byte("and the other:\n"), two, []byte("end\n")), 2},
		{"after a certificate", slices.Concat(ca.CertPEM(), one), 1},
		{"CRLF", bytes.ReplaceAll(one, []byte("\n"), []byte("\r\n")), 1},
		{"a certificate only", ca.CertPEM(), 0},
		{"a damaged block", slices.Concat(one, damaged), 0},
		{"a damaged block before a good one", slices.Concat(damaged, one), 0},
		{"a block without an end", slices.Concat(one, endless), 0},
		{"a block without a beginning", slices.Concat(one, headless), 0},
		{"a block without a beginning before a good one", slices.Concat(headless, one), 0},
		{"nothing but a block without a beginning", headless, 0},
		{"a block cut off", slices.Concat(one, two[:len(two)/2]), 0},
		{"empty", nil, 0},
		{"a web page", []byte("<html><body>404 Not Found</body></html>\n"), 0},
	} {
		lists, _, err := Split(c.file)
		if len(lists) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: got %d lists, %v; want %d", c.name, len(lists), err, c.want)
		}
	}
}

// Whatever is read as a list must have been read whole: every entry is found again, and crypto/x509, where it reads
// the list too, saw the same.
func FuzzParse(f *testing.F) {
	ca := tlstest.NewCA("ca")
	many := func(l *tlstest.CRL) {
		for n := range int64(5) {
			l.Revoked = append(l.Revoked, tlstest.Revoked{Serial: big.NewInt(n - 1), Date: l.ThisUpdate, Reason: int(n) * 2})
		}
	}
	for _, edit := range []func(*tlstest.CRL){
		nil,
		many,
		func(l *tlstest.CRL) { l.Version = 1 },
		func(l *tlstest.CRL) { l.NextUpdate = time.Time{} },
		func(l *tlstest.CRL) {
			l.Extensions = []pkix.Extension{tlstest.IssuingDistributionPoint(tlstest.Flag(1))}
		},
		func(l *tlstest.CRL) { l.Extensions = []pkix.Extension{deltaCRL} },
	} {
		list := ca.CRL(edit)
		f.Add(derOf(f, list))
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, _, err := Split(data)
		if err != nil {
			return
		}
		for _, der := range lists {
			l, err := Parse(der)
			_ = l.String()
			if err != nil {
				continue
			}
			n := 0
			for rest := l.entries.der; !rest.Empty(); n++ {
				serial, r, err := readEntry(&rest, 2)
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := l.entries.find(serial); !ok && r.Reason != reasonRemoveFromCRL {
					t.Errorf("serial %X is lost", serial)
				}
			}
			theirs, err := x509.ParseRevocationList(der)
			if n != l.entries.count || err == nil && (n != len(theirs.RevokedCertificateEntries) ||
				!theirs.ThisUpdate.Equal(l.thisUpdate) || !theirs.NextUpdate.Equal(l.nextUpdate)) {
				t.Errorf("%d entries, %+v; crypto/x509 saw %+v", n, l, theirs)
			}
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	ca := tlstest.NewCA("ca")
	for n := 10; n <= 1_000_000; n *= 10 {
		list, _ := ca.BigCRL(n)
		l, err := Parse(derOf(b, list))
		if err != nil {
			b.Fatal(err)
		}
		var present, absent [][]byte // a thousand of each, so that not all of it is in the processor's cache
		for i := range 1000 {
			at := l.entries.der[i*7919%n*(len(l.entries.der)/n):]
			serial, _, err := readEntry(&at, 2)
			if err != nil {
				b.Fatal(err)
			}
			present = append(present, serial)
			absent = append(absent, append(slices.Clone(serial[:19]), byte(i), byte(i>>8)))
		}
		for _, c := range []struct {
			name    string
			serials [][]byte
			want    bool
		}{{"present", present, true}, {"absent", absent, false}} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					if _, ok := l.entries.find(c.serials[i%len(c.serials)]); ok != c.want {
						b.Fatal(ok)
					}
				}
				b.ReportMetric(float64(len(l.entries.der)+4*len(l.entries.slots))/float64(n), "B/entry")
			})
		}
	}
}

func BenchmarkParse(b *testing.B) {
	ca := tlstest.NewCA("ca")
	for _, n := range []int{1000, 500_000} {
		list, _ := ca.BigCRL(n)
		der := derOf(b, list)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(len(der)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(der); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
