package dn_test

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pgwicket/internal/dn"
	"pgwicket/internal/tlstest"
)

const (
	cn           = "2.5.4.3"
	ou           = "2.5.4.11"
	emailAddress = "1.2.840.113549.1.9.1"
	uid          = "0.9.2342.19200300.100.1.1"
	dc           = "0.9.2342.19200300.100.1.25"

	tagUniversal = 28
)

// openssl runs the program, which reads certificates as PostgreSQL does.
func openssl(t testing.TB, stdin []byte, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, stderr.Bytes())
	}
	return strings.TrimSuffix(string(out), "\n")
}

// opensslDN prints a subject as PostgreSQL does (X509_NAME_to_cstring is XN_FLAG_RFC2253 too).
func opensslDN(t testing.TB, cert []byte) string {
	t.Helper()
	out := openssl(t, cert, "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253")
	dn, ok := strings.CutPrefix(out, "subject=")
	if !ok {
		t.Fatalf("openssl printed %q", out)
	}
	return dn
}

func TestFormatAsOpenSSL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		subject []byte
	}{
		{"empty", tlstest.NameOf()},
		{"one name", tlstest.Name(tlstest.UTF8(cn, "alice"))},
		{"several OUs", tlstest.Name(tlstest.UTF8("2.5.4.6", "DE"), tlstest.UTF8("2.5.4.10", "Firm"), tlstest.UTF8(ou, "one"), tlstest.UTF8(ou, "two"), tlstest.UTF8(cn, "alice"))},
		{"several names", tlstest.Name(tlstest.UTF8(cn, "first"), tlstest.UTF8(cn, "last"))},
		{"multi-valued RDN", tlstest.NameOf([]tlstest.Attribute{tlstest.UTF8(ou, "one")}, []tlstest.Attribute{tlstest.UTF8(cn, "alice"), tlstest.UTF8(uid, "a1"), tlstest.UTF8("2.5.4.5", "7")})},
		{"multi-valued RDN of one kind", tlstest.NameOf([]tlstest.Attribute{tlstest.UTF8(ou, "two"), tlstest.UTF8(ou, "one")}, []tlstest.Attribute{tlstest.UTF8(cn, "alice")})},
		{"order of a set is not DER's", tlstest.NameOf([]tlstest.Attribute{tlstest.UTF8(uid, "zzzz"), tlstest.UTF8(cn, "a")})},
		{"emailAddress", tlstest.Name(tlstest.Attr(emailAddress, asn1.TagIA5String, "alice@db.example"), tlstest.UTF8(cn, "alice"))},
		{"UID and DC", tlstest.Name(tlstest.Attr(dc, asn1.TagIA5String, "example"), tlstest.Attr(dc, asn1.TagIA5String, "db"), tlstest.UTF8(uid, "alice"))},
		{"UTF8String", tlstest.Name(tlstest.UTF8(cn, "Οδυσσέας"), tlstest.UTF8("2.5.4.10", "Straße 日本 🐘"))},
		{"PrintableString", tlstest.Name(tlstest.Attr(cn, asn1.TagPrintableString, "alice"))},
		{"PrintableString out of its range", tlstest.Name(tlstest.Attr(cn, asn1.TagPrintableString, "a_b@c*"))},
		{"NumericString", tlstest.Name(tlstest.Attr("2.5.4.5", asn1.TagNumericString, "12 34"))},
		{"BMPString", tlstest.Name(tlstest.Attr(cn, asn1.TagBMPString, tlstest.BMP("alice")))},
		{"BMPString, not ASCII", tlstest.Name(tlstest.Attr(cn, asn1.TagBMPString, tlstest.BMP("Ωμέγα 日本")))},
		{"BMPString with a NUL", tlstest.Name(tlstest.Attr(cn, asn1.TagBMPString, tlstest.BMP("alice\x00")))},
		{"UniversalString", tlstest.Name(tlstest.Attr(cn, tagUniversal, tlstest.Universal("aΩ日🐘")))},
		{"T61String", tlstest.Name(tlstest.Attr(cn, asn1.TagT61String, "f\xfcr M\xdcller"))},
		{"PrintableString in Latin-1", tlstest.Name(tlstest.Attr(cn, asn1.TagPrintableString, "f\xfcr"))},
		{"PrintableString in UTF-8", tlstest.Name(tlstest.Attr(cn, asn1.TagPrintableString, "für"))},
		{"IA5String in Latin-1", tlstest.Name(tlstest.Attr(emailAddress, asn1.TagIA5String, "f\xfcr"))},
		{"NumericString in Latin-1", tlstest.Name(tlstest.Attr(cn, asn1.TagNumericString, "1\xfc"))},
		{"empty value", tlstest.Name(tlstest.UTF8(cn, ""), tlstest.UTF8(ou, "x"))},

		// haproxy/haproxy commits 7c43f85 and 449133c: what must neither cut a printed name nor change its structure.
		{"NUL", tlstest.Name(tlstest.UTF8(cn, "alice\x00.evil"))},
		{"control characters", tlstest.Name(tlstest.UTF8(cn, "a\r\n\t\x1b[2J\x7fb"))},
		{"C1 and bidi", tlstest.Name(tlstest.UTF8(cn, "a\u0085\u202eb"))},
		{"a name that looks like two", tlstest.Name(tlstest.UTF8(cn, "alice,OU=admin"), tlstest.UTF8(ou, "x+CN=bob"))},
		{"specials", tlstest.Name(tlstest.UTF8(cn, `,+"\<>;=/#`))},
		{"equals sign", tlstest.Name(tlstest.UTF8(cn, "a=b"))},
		{"leading #", tlstest.Name(tlstest.UTF8(cn, "#alice"))},
		{"inner #", tlstest.Name(tlstest.UTF8(cn, "a#b#"))},
		{"leading space", tlstest.Name(tlstest.UTF8(cn, "  alice"))},
		{"trailing space", tlstest.Name(tlstest.UTF8(cn, "alice  "))},
		{"inner space", tlstest.Name(tlstest.UTF8(cn, "al  ice"))},
		{"one space", tlstest.Name(tlstest.UTF8(cn, " "))},
		{"two spaces", tlstest.Name(tlstest.UTF8(cn, "  "))},
		{"only #", tlstest.Name(tlstest.UTF8(cn, "#"))},
		{"escaped hexadecimal", tlstest.Name(tlstest.UTF8(cn, `\41`))},
		{"trailing backslash", tlstest.Name(tlstest.UTF8(cn, `a\`))},
		{"BMPString with specials", tlstest.Name(tlstest.Attr(cn, asn1.TagBMPString, tlstest.BMP(" #,+ ")))},
		{"T61String that ends in a space", tlstest.Name(tlstest.Attr(cn, asn1.TagT61String, "\xfc "))},

		{"unknown OID", tlstest.Name(tlstest.Attr("1.3.6.1.4.1.99999.1", asn1.TagUTF8String, "value"), tlstest.UTF8(cn, "alice"))},
		{"unknown OID, first of a set", tlstest.NameOf([]tlstest.Attribute{tlstest.Attr("2.5.4.123", asn1.TagPrintableString, "value"), tlstest.UTF8(cn, "alice")})},
		{"arcs of more than a byte", tlstest.Name(tlstest.Attr("2.999.128.16384.2097152", asn1.TagUTF8String, "x"))},
		{"long value", tlstest.Name(tlstest.UTF8(cn, strings.Repeat("x", 300)))},
		{"forty OUs", tlstest.Name(func() (many []tlstest.Attribute) {
			for i := range 40 {
				many = append(many, tlstest.UTF8(ou, fmt.Sprint(i)))
			}
			return many
		}()...)},
	} {
		want := opensslDN(t, tlstest.SelfSigned(c.subject))
		if got := dn.Format(c.subject); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.what, got, want)
		}
	}
}

// The names of attributes are OpenSSL's, for those that certificates are made with: X.520, RFC 4519, PKCS #9 and the
// jurisdictions of extended validation.
func TestAttributeNames(t *testing.T) {
	t.Parallel()
	oids := []string{
		emailAddress, "1.2.840.113549.1.9.2", "1.2.840.113549.1.9.8", // unstructuredName and -Address: routers
		uid, "0.9.2342.19200300.100.1.2", "0.9.2342.19200300.100.1.3", "0.9.2342.19200300.100.1.9", dc,
		"1.3.6.1.4.1.311.60.2.1.1", "1.3.6.1.4.1.311.60.2.1.2", "1.3.6.1.4.1.311.60.2.1.3",
	}
	for i := range 101 {
		oids = append(oids, fmt.Sprintf("2.5.4.%d", i))
	}
	var attrs []tlstest.Attribute
	for _, oid := range oids {
		attrs = append(attrs, tlstest.Attr(oid, asn1.TagPrintableString, "x"))
	}
	subject := tlstest.Name(attrs...)
	got, want := strings.Split(dn.Format(subject), ","), strings.Split(opensslDN(t, tlstest.SelfSigned(subject)), ",")
	if len(got) != len(attrs) || len(want) != len(attrs) {
		t.Fatalf("got %q, want %q", got, want)
	}
	var wrong []string
	for i := range want {
		if got[i] != want[i] {
			wrong = append(wrong, fmt.Sprintf("%s for %s", got[i], want[i]))
		}
	}
	if wrong != nil {
		t.Errorf("%d attributes without OpenSSL's name: %s", len(wrong), strings.Join(wrong, ", "))
	}
}

// Subjects that OpenSSL makes, with its choice of string types.
func TestFormatSubjectsOfOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(tlstest.SelfSignedKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mask := range []string{"utf8only", "nombstr", "default", "pkix"} {
		config := filepath.Join(dir, mask)
		if err := os.WriteFile(config, []byte("[req]\ndistinguished_name=dn\nprompt=no\nstring_mask="+mask+"\n[dn]\nCN=x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, subj := range []string{
			"/CN=alice",
			"/C=DE/O=Firm/OU=one/OU=two/CN=alice/emailAddress=alice@db.example",
			"/DC=example/DC=db/UID=alice",
			"/OU=a+CN=alice+UID=7/O=x",
			"/CN=alice\\/bob, carol",
			"/CN= #alice; ",
			"/CN=M\u00fcller",
			"/O=Stra\u00dfe/CN=a@b_c",
			"/SN=S/GN=G/title=T/serialNumber=12/street=Way 1/postalCode=1",
		} {
			cert := openssl(t, nil, "req", "-new", "-x509", "-key", key, "-config", config, "-utf8", "-subj", subj, "-outform", "PEM")
			block, _ := pem.Decode([]byte(cert))
			parsed, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Errorf("%s, %s: %v", mask, subj, err)
				continue
			}
			if got, want := dn.Format(parsed.RawSubject), opensslDN(t, block.Bytes); got != want {
				t.Errorf("%s, %s:\ngot  %s\nwant %s", mask, subj, got, want)
			}
		}
	}
}

// Names that crypto/x509 refuses to parse, so Format must only not fail.
func TestFormatDamaged(t *testing.T) {
	t.Parallel()
	good := tlstest.Name(tlstest.UTF8(ou, "one"), tlstest.UTF8(cn, "alice"))
	for _, c := range []struct {
		what string
		der  []byte
		want string
	}{
		{"nothing", nil, ""},
		{"no sequence", tlstest.TLV(0x31, nil), ""},
		{"cut short", good[:len(good)-1], ""},
		{"something behind it", append(bytes.Clone(good), 1, 2, 3), "CN=alice,OU=one"},
		{"no set", tlstest.TLV(0x30, tlstest.TLV(0x30, nil)), ""},
		{"an empty set", tlstest.TLV(0x30, tlstest.TLV(0x31, nil)), ""},
		{"an attribute without value", tlstest.TLV(0x30, tlstest.TLV(0x31, tlstest.TLV(0x30, tlstest.OID(cn)))), ""},
		{"an odd BMPString", tlstest.Name(tlstest.Attr(cn, asn1.TagBMPString, "abc")), "CN=#1E03616263"},
		{"a number", tlstest.Name(tlstest.Attr(cn, asn1.TagInteger, "\x07")), "CN=#020107"},
	} {
		if got := dn.Format(c.der); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// An arc of 2^64+3 is not 3, and one with leading zeros or without an end is invalid. crypto/x509 refuses all of them, and
// so must this package, or a certificate gets a name that nobody else sees in it.
func TestInvalidOIDs(t *testing.T) {
	t.Parallel()
	for _, oid := range []string{
		"\x55\x04\x82\x80\x80\x80\x80\x80\x80\x80\x80\x03",
		"\x55\x04\x80\x03",
		"\x80\x55\x04\x03",
		"\x55\x04\x03\x80",
	} {
		subject := tlstest.TLV(0x30, tlstest.TLV(0x31, tlstest.TLV(0x30, append(tlstest.TLV(6, []byte(oid)), tlstest.TLV(12, []byte("root"))...))))
		if got := dn.Format(subject); strings.Contains(got, "CN=") {
			t.Errorf("%x: DN %q", oid, got)
		}
		if got := dn.CommonName(subject); got != "" {
			t.Errorf("%x: CN %q", oid, got)
		}
	}
}

// A certificate of PostgreSQL's tests (src/test/ssl, client-revoked-utf8) has a name in other string types than usual: as
// bytes it is another name, and for OpenSSL the same text.
func TestFormatIsTheSameInEveryStringType(t *testing.T) {
	t.Parallel()
	for _, tag := range []int{asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String} {
		if got := dn.Format(tlstest.Name(tlstest.Attr(cn, tag, "alice"))); got != "CN=alice" {
			t.Errorf("type %d: %s", tag, got)
		}
	}
	if got := dn.Format(tlstest.Name(tlstest.Attr(cn, asn1.TagBMPString, tlstest.BMP("alice")))); got != "CN=alice" {
		t.Errorf("BMPString: %s", got)
	}
}

// A common name that is not the same for every reader is none (CVE-2009-4034).
func TestCommonName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		subject []byte
		want    string
		text    string // of CommonNameText, where it is another
	}{
		{"one", tlstest.Name(tlstest.UTF8(ou, "x"), tlstest.UTF8(cn, "alice")), "alice", ""},
		{"T61String", tlstest.Name(tlstest.Attr(cn, asn1.TagT61String, "alice")), "", "alice"},
		{"T61String, not ASCII", tlstest.Name(tlstest.Attr(cn, asn1.TagT61String, "M\xfcller")), "", "Müller"},
		{"T61String, with a NUL", tlstest.Name(tlstest.Attr(cn, asn1.TagT61String, "alice\x00.evil")), "", ""},
		{"T61String, with a C1 control", tlstest.Name(tlstest.Attr(cn, asn1.TagT61String, "alice\x85")), "", ""},
		{"T61String twice", tlstest.Name(tlstest.Attr(cn, asn1.TagT61String, "alice"), tlstest.UTF8(cn, "alice")), "", ""},
		{"none", tlstest.Name(tlstest.UTF8(ou, "x")), "", ""},
		{"two", tlstest.Name(tlstest.UTF8(cn, "alice"), tlstest.UTF8(cn, "bob")), "", ""},
		{"two in one RDN", tlstest.NameOf([]tlstest.Attribute{tlstest.UTF8(cn, "alice"), tlstest.UTF8(cn, "alice")}), "", ""},
		{"a NUL", tlstest.Name(tlstest.UTF8(cn, "alice\x00.evil")), "", ""},
		{"invalid UTF-8", tlstest.Name(tlstest.UTF8(cn, "alice\xff")), "", ""},
		{"BMPString", tlstest.Name(tlstest.Attr(cn, asn1.TagBMPString, tlstest.BMP("alice"))), "", ""},
		{"not a name", []byte{0x30, 1}, "", ""},
	} {
		if got := dn.CommonName(c.subject); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		if got := dn.CommonNameText(c.subject); got != cmp.Or(c.text, c.want) {
			t.Errorf("%s: text %q, want %q", c.what, got, cmp.Or(c.text, c.want))
		}
	}
}

func TestAbbreviate(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 200)
	if got := dn.Abbreviate(long); got != strings.Repeat("ü", 128)+"..." {
		t.Errorf("got %q", got)
	}
	if got := dn.Abbreviate("x" + long); got != "x"+strings.Repeat("ü", 127)+"..." {
		t.Errorf("a cut inside of a character: %q", got)
	}
	if got := dn.Abbreviate(long[:256]); got != long[:256] {
		t.Errorf("a text of 256 bytes: %q", got)
	}
}

var printable = regexp.MustCompile(`^[ -~]*$`)

// The owner of a certificate may have chosen its subject. Its text must be printable, and hold no line break, no control
// character and no attribute that is not there.
func FuzzFormat(f *testing.F) {
	f.Add(tlstest.NameOf())
	f.Add(tlstest.Name(tlstest.UTF8(ou, "one"), tlstest.UTF8(cn, "al,ice\x00\n")))
	f.Add(tlstest.NameOf([]tlstest.Attribute{tlstest.UTF8(cn, "alice"), tlstest.Attr(emailAddress, asn1.TagIA5String, "a@b")}))
	f.Add(tlstest.Name(tlstest.Attr(cn, asn1.TagBMPString, tlstest.BMP("Ω")), tlstest.Attr(cn, asn1.TagT61String, "\xfc"), tlstest.Attr(cn, tagUniversal, tlstest.Universal("🐘"))))
	f.Add(tlstest.Name(tlstest.Attr("2.999.128", asn1.TagInteger, "\x01")))
	f.Fuzz(func(t *testing.T, der []byte) {
		got := dn.Format(der)
		if !printable.MatchString(got) {
			t.Fatalf("%q", got)
		}
		if len(got) > 8*len(der) { // the log of refusals must not grow much faster than the traffic
			t.Fatalf("%d bytes of %d", len(got), len(der))
		}
	})
}
