package acl_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgwicket/acl"
)

func parsed(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// CVE-2009-4034: a name is compared only if PostgreSQL, OpenSSL and crypto/x509 read the same in it.
func TestCommonName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64)
	for _, c := range []struct {
		what    string
		subject []byte
		want    string
	}{
		{"UTF8String", name(utf8Attr(cn, "alice")), "alice"},
		{"PrintableString", name(attrOf(cn, asn1.TagPrintableString, "alice")), "alice"},
		{"IA5String", name(attrOf(cn, asn1.TagIA5String, "alice@db")), "alice@db"},
		{"not ASCII", name(utf8Attr(cn, "Οδυσσέας")), "Οδυσσέας"},
		{"among others", name(utf8Attr("2.5.4.10", "Firm"), utf8Attr(cn, "alice"), utf8Attr(ou, "bob"), utf8Attr(uid, "carol")), "alice"},
		{"in an RDN of several", nameOf([]attr{utf8Attr(cn, "alice"), utf8Attr(uid, "carol")}), "alice"},
		{"spaces and specials", name(utf8Attr(cn, ` al"ice, bob `)), ` al"ice, bob `},
		// Words of pg_hba and pg_ident: the name is the name, whatever it says.
		{"keyword", name(utf8Attr(cn, "all")), "all"},
		{"regular expression", name(utf8Attr(cn, "/^.*$")), "/^.*$"},
		{"63 bytes", name(utf8Attr(cn, long[1:])), long[1:]},

		{"none", name(utf8Attr(ou, "alice"), utf8Attr(uid, "alice")), ""},
		{"no subject", nameOf(), ""},
		{"empty", name(utf8Attr(cn, "")), ""},
		{"64 bytes", name(utf8Attr(cn, long)), ""}, // the role would be the first 63 of them
		{"64 bytes in 32 letters", name(utf8Attr(cn, strings.Repeat("ü", 32))), ""},
		{"two", name(utf8Attr(cn, "alice"), utf8Attr(cn, "bob")), ""},
		{"the same twice", name(utf8Attr(cn, "alice"), utf8Attr(cn, "alice")), ""},
		{"two, with others between", name(utf8Attr(cn, "alice"), utf8Attr(ou, "x"), utf8Attr(cn, "bob")), ""},
		{"two in one RDN", nameOf([]attr{utf8Attr(cn, "alice"), utf8Attr(cn, "bob")}), ""},
		{"two, one of them empty", name(utf8Attr(cn, "alice"), utf8Attr(cn, "")), ""},
		{"two, one of them BMPString", name(utf8Attr(cn, "alice"), attrOf(cn, asn1.TagBMPString, bmp("alice"))), ""},
		{"NUL", name(utf8Attr(cn, "alice\x00.evil")), ""},
		{"NUL at the end", name(utf8Attr(cn, "alice\x00")), ""},
		{"line break", name(utf8Attr(cn, "alice\nbob")), ""},
		{"escape", name(utf8Attr(cn, "alice\x1b[2J")), ""},
		{"DEL", name(utf8Attr(cn, "alice\x7f")), ""},
		{"C1", name(utf8Attr(cn, "alice\u0085")), ""},
		{"replacement character", name(utf8Attr(cn, "alice\ufffd")), ""},
		{"BMPString", name(attrOf(cn, asn1.TagBMPString, bmp("alice"))), ""},
		{"BMPString that is ASCII if read by bytes", name(attrOf(cn, asn1.TagBMPString, "alic")), ""},
		{"T61String", name(attrOf(cn, asn1.TagT61String, "alice")), ""},
		{"NumericString", name(attrOf(cn, asn1.TagNumericString, "12")), ""},
		// crypto/x509 steps over what follows the value, OpenSSL refuses the certificate.
		{"more after the value", tlv(0x30, tlv(0x31, tlv(0x30, slices.Concat(oidDER(cn), tlv(12, []byte("alice")), tlv(12, []byte("bob")))))), ""},
	} {
		if got := acl.IdentityOf(parsed(t, certificate(t, c.subject))).CN; got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// What crypto/x509 refuses today: no name should come of it if it ever does not.
func TestCommonNameBeyondX509(t *testing.T) {
	t.Parallel()
	for what, subject := range map[string][]byte{
		"invalid UTF-8":          name(utf8Attr(cn, "alice\xff")),
		"UniversalString":        name(attrOf(cn, tagUniversal, universal("alice"))),
		"VisibleString":          name(attrOf(cn, 26, "alice")),
		"a number":               name(attrOf(cn, asn1.TagInteger, "\x07")),
		"not a set but a series": tlv(0x30, tlv(0x30, tlv(0x30, append(oidDER(cn), tlv(12, []byte("alice"))...)))),
	} {
		id := acl.IdentityOf(&x509.Certificate{RawSubject: subject, SerialNumber: big.NewInt(1)})
		if id.CN != "" {
			t.Errorf("%s: %q", what, id.CN)
		}
	}
}

// A name of one kind must not be taken for one of another: the DNS name "alice" is not the user alice.
func TestSubjectAlternativeNames(t *testing.T) {
	t.Parallel()
	uris := []string{"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "https://db.example/%7Ea?b#c"}
	leaf := parsed(t, certificate(t, name(utf8Attr(cn, "alice")), func(c *x509.Certificate) {
		c.DNSNames = []string{"db.example", "*.db.example", "DB.Example"}
		c.EmailAddresses = []string{"alice@db.example", "Alice@DB.example"}
		c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1), net.ParseIP("fd00::1"), net.IPv4zero}
		for _, u := range uris {
			c.URIs = append(c.URIs, must(url.Parse(u)))
		}
	}))
	id := acl.IdentityOf(leaf)
	for _, c := range []struct {
		kind      string
		got, want []string
	}{
		{"DNS", id.DNS, []string{"db.example", "*.db.example", "db.example"}}, // RFC 4343
		{"email", id.Email, []string{"alice@db.example", "Alice@DB.example"}},
		{"URI", id.URI, uris},
		{"IP", id.IP, []string{"10.0.0.1", "fd00::1", "0.0.0.0"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %q, want %q", c.kind, c.got, c.want)
		}
	}
	if id.CN != "alice" {
		t.Errorf("CN %q", id.CN)
	}

	// PostgreSQL ignores the alternative names of clients; none of them becomes a common name here.
	san := acl.IdentityOf(parsed(t, certificate(t, nameOf(), func(c *x509.Certificate) { c.DNSNames = []string{"alice"} })))
	if san.CN != "" || san.DN != "" || !slices.Equal(san.DNS, []string{"alice"}) {
		t.Errorf("%+v", san)
	}
	plain := acl.IdentityOf(parsed(t, certificate(t, name(utf8Attr(cn, "alice")))))
	if plain.DNS != nil || plain.Email != nil || plain.URI != nil || plain.IP != nil {
		t.Errorf("%+v", plain)
	}
}

// The alternative names are as careful as the common one: crypto/x509 lets a NUL and a line break pass (CVE-2009-2408),
// and what C reads as alice must be nobody's name here.
func TestAmbiguousAlternativeNames(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"alice\x00.evil", "alice\nbob", "alice\x1b[2J", ""} {
		id := acl.IdentityOf(parsed(t, certificate(t, name(utf8Attr(cn, "alice")), func(c *x509.Certificate) {
			c.DNSNames = []string{"good.example", bad}
			c.EmailAddresses = []string{"good@db.example", bad}
		})))
		if !slices.Equal(id.DNS, []string{"good.example"}) || !slices.Equal(id.Email, []string{"good@db.example"}) {
			t.Errorf("DNS %q, email %q", id.DNS, id.Email)
		}
	}
}

// A URI is compared as it stands in the certificate, not as net/url would write it.
func TestURIAsInCertificate(t *testing.T) {
	t.Parallel()
	for _, uri := range []string{
		"spiffe://db.example/alice", "spiffe://db.example/a%6cice", "spiffe://db.example/alice?", "spiffe://db.example/alice#", "SPIFFE://db.example/alice",
	} {
		san := tlv(0x30, tlv(0x86, []byte(uri)))
		der := certificate(t, name(utf8Attr(cn, "alice")), func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, extension(san))
		})
		if got := acl.IdentityOf(parsed(t, der)).URI; !slices.Equal(got, []string{uri}) {
			t.Errorf("got %q, want %q", got, uri)
		}
	}
}

func TestSerialAndFingerprintAsOpenSSL(t *testing.T) {
	t.Parallel()
	for _, serial := range []string{"1", "f", "10", "7f", "80", "ff", "abcdef", "beef", "7fffffffffffffffffffffffffffffffffffffff"} {
		n, _ := new(big.Int).SetString(serial, 16)
		der := certificate(t, name(utf8Attr(cn, "alice")), func(c *x509.Certificate) { c.SerialNumber = n })
		id := acl.IdentityOf(parsed(t, der))
		want, sum, _ := strings.Cut(openssl(t, der, "x509", "-inform", "DER", "-noout", "-serial", "-fingerprint", "-sha256"), "\n")
		if got := "serial=" + id.Serial; got != want {
			t.Errorf("got %s, and openssl says %s", got, want)
		}
		// The one without its colons, for pg_stat_ssl has none either.
		if _, want, _ := strings.Cut(strings.ReplaceAll(sum, ":", ""), "="); !strings.EqualFold(id.SHA256, want) {
			t.Errorf("fingerprint %s, and openssl says %s", id.SHA256, sum)
		}
	}
}

func TestIssuer(t *testing.T) {
	t.Parallel()
	der := certificate(t, name(utf8Attr(ou, "one"), utf8Attr(ou, "two"), utf8Attr(cn, "root\n")))
	id := acl.IdentityOf(parsed(t, der))
	want := openssl(t, der, "x509", "-inform", "DER", "-noout", "-issuer", "-nameopt", "RFC2253")
	if "issuer="+id.Issuer != want || id.Issuer != id.DN {
		t.Errorf("got %s, and openssl says %s", id.Issuer, want)
	}
}

// extension is a subjectAltName that x509.CreateCertificate would not have written.
func extension(san []byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}
}
