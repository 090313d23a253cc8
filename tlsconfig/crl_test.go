package tlsconfig

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
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

// issuingPoint makes an issuingDistributionPoint of fields that are given as tag and contents.
func issuingPoint(fields ...asn1.RawValue) pkix.Extension {
	var content []byte
	for _, f := range fields {
		f.Class = asn1.ClassContextSpecific
		der, err := asn1.Marshal(f)
		if err != nil {
			panic(err)
		}
		content = append(content, der...)
	}
	return tlstest.Extension(append(idCE, 28), true, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
}

func flag(tag int) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte{0xff}} }

func derOf(t testing.TB, crl []byte) []byte {
	t.Helper()
	block, rest := pem.Decode(crl)
	if block == nil || len(rest) != 0 {
		t.Fatal("not one PEM block")
	}
	return block.Bytes
}

// The kinds of list that cannot be applied are refused by name; what cannot be read is refused as well.
func TestParseCRL(t *testing.T) {
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
		{"version 2, empty", nil, ""},                       // pitfall 31 (pomerium#4471): an empty list is a good list
		{"version 1, empty", v1(func(*tlstest.CRL) {}), ""}, // pitfall 31 (caddy-revocation-validator#30): no extensions
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
		{"unknown critical extension", ext(tlstest.Extension(unknownExt, true, 1)), "critical extension 1.3.6.1.4.1.99999.1"},
		{"number that is none", func(l *tlstest.CRL) { l.Number = nil; ext(tlstest.Extension(append(idCE, 20), false, true))(l) }, malformed},

		{"empty distribution point", ext(issuingPoint()), ""},
		{"distribution point", ext(issuingPoint(asn1.RawValue{Tag: 0, IsCompound: true})), "by distribution point (extension 2.5.29.28)"},
		{"only user certificates", ext(issuingPoint(flag(1))), ""},
		{"only CA certificates", ext(issuingPoint(flag(2))), ""},
		{"only user and only CA certificates", ext(issuingPoint(flag(1), flag(2))), "contradicts itself"},
		{"only some reasons", ext(issuingPoint(asn1.RawValue{Tag: 3, Bytes: []byte{6, 0x40}})), "only lists certificates revoked for some reasons"},
		{"indirect", ext(issuingPoint(flag(4))), "indirect CRL"},
		{"only attribute certificates", ext(issuingPoint(flag(5))), "attribute certificates"},
		{"false flags", ext(issuingPoint(asn1.RawValue{Tag: 1, Bytes: []byte{0}}, asn1.RawValue{Tag: 4, Bytes: []byte{0}})), ""},
		{"flag that is none", ext(issuingPoint(asn1.RawValue{Tag: 1, Bytes: []byte{1}})), malformed},
		{"unknown field", ext(issuingPoint(flag(6))), malformed},

		{"reason", entry(1), ""},
		{"unknown reason", entry(99), ""},
		{"reason twice", entry(1, tlstest.Extension(append(idCE, 21), false, asn1.Enumerated(8))), malformed},
		{"reason that is none", entry(0, tlstest.Extension(append(idCE, 21), false, 1)), malformed},
		{"invalidity date", entry(0, invalidFrom), ""},
		{"certificate issuer", entry(0, otherIssuer), "indirect CRL: it has an entry for another CA's certificate (extension 2.5.29.29)"},
		{"unknown entry extension", entry(0, tlstest.Extension(unknownExt, false, 1)), ""},
		{"unknown critical entry extension", entry(0, tlstest.Extension(unknownExt, true, 1)), "entry (serial 00C0FFEE) with the critical extension 1.3.6.1.4.1.99999.1"},
		{"indirect, with such an entry", func(l *tlstest.CRL) { ext(issuingPoint(flag(4)))(l); entry(0, otherIssuer)(l) }, "lists certificates of several CAs"},

		{"ECDSA with SHA-384", signed(x509.ECDSAWithSHA384), ""},
		{"ECDSA with SHA-512", signed(x509.ECDSAWithSHA512), ""},
		{"ECDSA with SHA-1", signed(x509.ECDSAWithSHA1), "SHA-1 (ecdsa-with-SHA1)"},
		{"RSA with SHA-256", rsaSigned(x509.SHA256WithRSA), ""},
		{"RSA with SHA-1", rsaSigned(x509.SHA1WithRSA), "SHA-1 (sha1WithRSAEncryption)"},
		{"RSA with MD5", rsaSigned(x509.MD5WithRSA), "MD5 (md5WithRSAEncryption)"},
		{"RSA-PSS with SHA-384", rsaSigned(x509.SHA384WithRSAPSS), ""},
	} {
		_, err := parseCRL(derOf(t, ca.CRL(c.edit)))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want …%s…", c.name, err, c.want)
		}
	}
}

// No list that is cut short anywhere is taken for a shorter one, and nothing may follow it.
func TestParseCRLWhole(t *testing.T) {
	ca := tlstest.NewCA("ca")
	der := derOf(t, ca.CRL(func(l *tlstest.CRL) {
		l.Revoke(ca.Client("a").Leaf(), ca.Client("b").Leaf())
		l.Revoked[0].Reason = 1
	}))
	if _, err := parseCRL(der); err != nil {
		t.Fatal(err)
	}
	for n := range der {
		if _, err := parseCRL(der[:n]); err == nil {
			t.Errorf("the first %d of %d octets are taken for a list", n, len(der))
		}
	}
	if _, err := parseCRL(append(slices.Clone(der), 0)); err == nil {
		t.Error("an octet after the list goes unseen")
	}
}

// What is not DER, or not what was signed, in places where nothing else would show it.
func TestParseCRLChanged(t *testing.T) {
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
		if _, err := parseCRL(changed); err != errMalformed {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestRevocations(t *testing.T) {
	ca := tlstest.NewCA("ca")
	serials := []*big.Int{
		big.NewInt(0), big.NewInt(1), big.NewInt(127), big.NewInt(128), big.NewInt(255), big.NewInt(256),
		new(big.Int).Lsh(big.NewInt(1), 159), big.NewInt(-1),
	}
	l, err := parseCRL(derOf(t, ca.CRL(func(l *tlstest.CRL) {
		for i, n := range slices.Concat(serials, serials) { // each of them twice: the first one counts
			l.Revoked = append(l.Revoked, tlstest.Revoked{Serial: n, Date: l.ThisUpdate, Reason: 1 + i/len(serials)})
		}
	})))
	if err != nil {
		t.Fatal(err)
	}
	if l.revoked.count != 2*len(serials) {
		t.Errorf("got %d entries, want %d", l.revoked.count, 2*len(serials))
	}
	used := 0
	for _, slot := range l.revoked.slots {
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
		if r, ok := l.revoked.find(content(n)); !ok || r.reasonName() != "keyCompromise" {
			t.Errorf("%v: got %v, %v", n, r, ok)
		}
	}
	for _, n := range []int64{2, -2, 129, 32768} {
		if r, ok := l.revoked.find(content(big.NewInt(n))); ok {
			t.Errorf("%d is not in the list, got %v", n, r)
		}
	}
	if _, ok := l.revoked.find(nil); ok {
		t.Error("found nothing at all")
	}
}

func TestSplitCRLs(t *testing.T) {
	ca := tlstest.NewCA("ca")
	one, two := ca.CRL(nil), ca.CRL(func(l *tlstest.CRL) { l.Number = big.NewInt(2) })
	damaged := bytes.Replace(two, []byte("\n"), []byte("\n?"), 2)
	headless := bytes.Replace(two, []byte("-----END"), []byte("----END"), 1)
	for _, c := range []struct {
		name string
		file []byte
		want int // lists; 0: an error
	}{
		{"PEM", one, 1},
		{"DER", derOf(t, one), 1},
		{"two blocks", slices.Concat(one, two), 2}, // pitfall 31: grpc-go reads only the first
		{"text around them", slices.Concat([]byte("the root:\n"), one, []byte("and the other:\n"), two, []byte("end\n")), 2},
		{"after a certificate", slices.Concat(ca.CertPEM(), one), 1},
		{"CRLF", bytes.ReplaceAll(one, []byte("\n"), []byte("\r\n")), 1},
		{"a certificate only", ca.CertPEM(), 0},
		{"a damaged block", slices.Concat(one, damaged), 0},
		{"a damaged block before a good one", slices.Concat(damaged, one), 0},
		{"a block without an end", slices.Concat(one, headless), 0},
		{"a block cut off", slices.Concat(one, two[:len(two)/2]), 0},
		{"empty", nil, 0},
		{"a web page", []byte("<html><body>404 Not Found</body></html>\n"), 0},
	} {
		lists, _, err := splitCRLs(c.file)
		if len(lists) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: got %d lists, %v; want %d", c.name, len(lists), err, c.want)
		}
	}
}

// Whatever is read as a list must have been read whole: every entry is found again, and crypto/x509, where it reads
// the list too, saw the same.
func FuzzParseCRL(f *testing.F) {
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
		func(l *tlstest.CRL) { l.Extensions = []pkix.Extension{issuingPoint(flag(1))} },
		func(l *tlstest.CRL) { l.Extensions = []pkix.Extension{deltaCRL} },
	} {
		list := ca.CRL(edit)
		f.Add(derOf(f, list))
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lists, _, err := splitCRLs(data)
		if err != nil {
			return
		}
		for _, der := range lists {
			l, err := parseCRL(der)
			_ = l.where()
			if err != nil {
				continue
			}
			n := 0
			for rest := l.revoked.der; !rest.Empty(); n++ {
				serial, r, err := readEntry(&rest, 2)
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := l.revoked.find(serial); !ok && r.reason != reasonRemoveFromCRL {
					t.Errorf("serial %X is lost", serial)
				}
			}
			theirs, err := x509.ParseRevocationList(der)
			if n != l.revoked.count || err == nil && (n != len(theirs.RevokedCertificateEntries) ||
				!theirs.ThisUpdate.Equal(l.thisUpdate) || !theirs.NextUpdate.Equal(l.nextUpdate)) {
				t.Errorf("%d entries, %+v; crypto/x509 saw %+v", n, l, theirs)
			}
		}
	})
}

// bigCRL returns a list of n random serials of 20 octets, and the last of them. It is put together by hand, and so has
// version 1: encoding/asn1 would take longer over it than the test that it is for.
func bigCRL(t testing.TB, ca *tlstest.CA, n int) (list, serial []byte) {
	t.Helper()
	serials := make([]byte, 20*n)
	rand.Read(serials)
	date, next := must(asn1.Marshal(time.Now().UTC().Add(-time.Hour))), must(asn1.Marshal(time.Now().UTC().AddDate(0, 0, 30)))
	entries := make([]byte, 0, n*(4+20+len(date)))
	for i := range n {
		serial = serials[20*i : 20*i+20]
		serial[0] = serial[0]&0x3f | 0x40
		entries = append(entries, 0x30, byte(2+20+len(date)), 2, 20)
		entries = append(append(entries, serial...), date...)
	}
	sequence := func(parts ...[]byte) []byte {
		return must(asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(parts, nil)}))
	}
	ecdsaWithSHA256 := sequence(must(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2})))
	tbs := sequence(ecdsaWithSHA256, ca.Cert.RawSubject, date, next, sequence(entries))
	sum := sha256.Sum256(tbs)
	signature := must(ca.Key.Sign(rand.Reader, sum[:], crypto.SHA256))
	der := sequence(tbs, ecdsaWithSHA256, must(asn1.Marshal(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)})))
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), serial
}

func BenchmarkCRLLookup(b *testing.B) {
	ca := tlstest.NewCA("ca")
	for n := 10; n <= 1_000_000; n *= 10 {
		list, _ := bigCRL(b, ca, n)
		l, err := parseCRL(derOf(b, list))
		if err != nil {
			b.Fatal(err)
		}
		var present, absent [][]byte // a thousand of each, so that not all of it is in the processor's cache
		for i := range 1000 {
			at := l.revoked.der[i*7919%n*(len(l.revoked.der)/n):]
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
					if _, ok := l.revoked.find(c.serials[i%len(c.serials)]); ok != c.want {
						b.Fatal(ok)
					}
				}
				b.ReportMetric(float64(len(l.revoked.der)+4*len(l.revoked.slots))/float64(n), "B/entry")
			})
		}
	}
}

func BenchmarkParseCRL(b *testing.B) {
	ca := tlstest.NewCA("ca")
	for _, n := range []int{1000, 500_000} {
		list, _ := bigCRL(b, ca, n)
		der := derOf(b, list)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(len(der)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parseCRL(der); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
