package acl_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"pgwicket/acl"
	"pgwicket/internal/dn"
)

// attr is an attribute of a name before it is encoded. The type of the value is free, as it is for whoever makes a
// certificate.
type attr struct {
	oid   string
	tag   int
	value string
}

const (
	cn           = "2.5.4.3"
	ou           = "2.5.4.11"
	emailAddress = "1.2.840.113549.1.9.1"
	uid          = "0.9.2342.19200300.100.1.1"
	dc           = "0.9.2342.19200300.100.1.25"

	tagUniversal = 28
)

// utf8Attr is the usual case.
func utf8Attr(oid, value string) attr { return attr{oid, asn1.TagUTF8String, value} }

// name encodes RDNs, of one attribute each.
func name(attrs ...attr) []byte {
	var rdns [][]attr
	for _, a := range attrs {
		rdns = append(rdns, []attr{a})
	}
	return nameOf(rdns...)
}

// nameOf encodes RDNs, in the order given: DER would sort the members of a set, and not everybody who writes
// certificates does.
func nameOf(rdns ...[]attr) []byte {
	var body []byte
	for _, rdn := range rdns {
		var set []byte
		for _, a := range rdn {
			set = append(set, tlv(0x30, append(oidDER(a.oid), tlv(byte(a.tag), []byte(a.value))...))...)
		}
		body = append(body, tlv(0x31, set)...)
	}
	return tlv(0x30, body)
}

func tlv(tag byte, content []byte) []byte {
	kind := asn1.RawValue{Class: int(tag >> 6), Tag: int(tag & 0x1f), IsCompound: tag&0x20 != 0, Bytes: content}
	return must(asn1.Marshal(kind))
}

func oidDER(dotted string) []byte {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(dotted, ".") {
		var n int
		must(fmt.Sscan(part, &n))
		oid = append(oid, n)
	}
	return must(asn1.Marshal(oid))
}

// bmp encodes a BMPString as those do who take it for UTF-16.
func bmp(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u>>8), byte(u))
	}
	return string(b)
}

func universal(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r>>24), byte(r>>16), byte(r>>8), byte(r))
	}
	return string(b)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var testKey = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })

// certificate returns a self-signed certificate with that subject, in DER. Nothing looks at the subject before.
func certificate(t testing.TB, subject []byte, edit ...func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), RawSubject: subject, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	for _, e := range edit {
		e(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &testKey().PublicKey, testKey())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// openssl runs the program, which is PostgreSQL's eye for certificates.
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

func TestFormatDNAsOpenSSL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what    string
		subject []byte
	}{
		{"empty", nameOf()},
		{"one name", name(utf8Attr(cn, "alice"))},
		{"several OUs", name(utf8Attr("2.5.4.6", "DE"), utf8Attr("2.5.4.10", "Firm"), utf8Attr(ou, "one"), utf8Attr(ou, "two"), utf8Attr(cn, "alice"))},
		{"several names", name(utf8Attr(cn, "first"), utf8Attr(cn, "last"))},
		{"multi-valued RDN", nameOf([]attr{utf8Attr(ou, "one")}, []attr{utf8Attr(cn, "alice"), utf8Attr(uid, "a1"), utf8Attr("2.5.4.5", "7")})},
		{"multi-valued RDN of one kind", nameOf([]attr{utf8Attr(ou, "two"), utf8Attr(ou, "one")}, []attr{utf8Attr(cn, "alice")})},
		{"order of a set is not DER's", nameOf([]attr{utf8Attr(uid, "zzzz"), utf8Attr(cn, "a")})},
		{"emailAddress", name(attr{emailAddress, asn1.TagIA5String, "alice@db.example"}, utf8Attr(cn, "alice"))},
		{"UID and DC", name(attr{dc, asn1.TagIA5String, "example"}, attr{dc, asn1.TagIA5String, "db"}, utf8Attr(uid, "alice"))},
		{"UTF8String", name(utf8Attr(cn, "Οδυσσέας"), utf8Attr("2.5.4.10", "Straße 日本 🐘"))},
		{"PrintableString", name(attr{cn, asn1.TagPrintableString, "alice"})},
		{"PrintableString out of its range", name(attr{cn, asn1.TagPrintableString, "a_b@c*"})},
		{"NumericString", name(attr{"2.5.4.5", asn1.TagNumericString, "12 34"})},
		{"BMPString", name(attr{cn, asn1.TagBMPString, bmp("alice")})},
		{"BMPString, not ASCII", name(attr{cn, asn1.TagBMPString, bmp("Ωμέγα 日本")})},
		{"BMPString with a NUL", name(attr{cn, asn1.TagBMPString, bmp("alice\x00")})},
		{"UniversalString", name(attr{cn, tagUniversal, universal("aΩ日🐘")})},
		{"T61String", name(attr{cn, asn1.TagT61String, "f\xfcr M\xdcller"})},
		{"empty value", name(utf8Attr(cn, ""), utf8Attr(ou, "x"))},

		// haproxy 7c43f85, 449133c: what a printed name must not be cut or steered by.
		{"NUL", name(utf8Attr(cn, "alice\x00.evil"))},
		{"control characters", name(utf8Attr(cn, "a\r\n\t\x1b[2J\x7fb"))},
		{"C1 and bidi", name(utf8Attr(cn, "a\u0085\u202eb"))},
		{"a name that looks like two", name(utf8Attr(cn, "alice,OU=admin"), utf8Attr(ou, "x+CN=bob"))},
		{"specials", name(utf8Attr(cn, `,+"\<>;=/#`))},
		{"equals sign", name(utf8Attr(cn, "a=b"))},
		{"leading #", name(utf8Attr(cn, "#alice"))},
		{"inner #", name(utf8Attr(cn, "a#b#"))},
		{"leading space", name(utf8Attr(cn, "  alice"))},
		{"trailing space", name(utf8Attr(cn, "alice  "))},
		{"inner space", name(utf8Attr(cn, "al  ice"))},
		{"one space", name(utf8Attr(cn, " "))},
		{"two spaces", name(utf8Attr(cn, "  "))},
		{"only #", name(utf8Attr(cn, "#"))},
		{"escaped hexadecimal", name(utf8Attr(cn, `\41`))},
		{"trailing backslash", name(utf8Attr(cn, `a\`))},
		{"BMPString with specials", name(attr{cn, asn1.TagBMPString, bmp(" #,+ ")})},
		{"T61String that ends in a space", name(attr{cn, asn1.TagT61String, "\xfc "})},

		{"unknown OID", name(attr{"1.3.6.1.4.1.99999.1", asn1.TagUTF8String, "value"}, utf8Attr(cn, "alice"))},
		{"unknown OID, first of a set", nameOf([]attr{{"2.5.4.123", asn1.TagPrintableString, "value"}, utf8Attr(cn, "alice")})},
		{"arcs of more than a byte", name(attr{"2.999.128.16384.2097152", asn1.TagUTF8String, "x"})},
		{"long value", name(utf8Attr(cn, strings.Repeat("x", 300)))},
		{"forty OUs", name(func() (many []attr) {
			for i := range 40 {
				many = append(many, utf8Attr(ou, fmt.Sprint(i)))
			}
			return many
		}()...)},
	} {
		want := opensslDN(t, certificate(t, c.subject))
		if got := dn.Format(c.subject); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.what, got, want)
		}
	}
}

// The names of attributes are OpenSSL's for whatever certificates are made with; X.520, RFC 4519, PKCS #9 and the
// jurisdictions of extended validation.
func TestFormatDNAttributeNames(t *testing.T) {
	t.Parallel()
	oids := []string{
		emailAddress, "1.2.840.113549.1.9.2", "1.2.840.113549.1.9.8", // unstructuredName and -Address: routers
		uid, "0.9.2342.19200300.100.1.2", "0.9.2342.19200300.100.1.3", "0.9.2342.19200300.100.1.9", dc,
		"1.3.6.1.4.1.311.60.2.1.1", "1.3.6.1.4.1.311.60.2.1.2", "1.3.6.1.4.1.311.60.2.1.3",
	}
	for i := range 101 {
		oids = append(oids, fmt.Sprintf("2.5.4.%d", i))
	}
	var attrs []attr
	for _, oid := range oids {
		attrs = append(attrs, attr{oid, asn1.TagPrintableString, "x"})
	}
	subject := name(attrs...)
	got, want := strings.Split(dn.Format(subject), ","), strings.Split(opensslDN(t, certificate(t, subject)), ",")
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

// Subjects that OpenSSL makes by itself, with its choice of string types.
func TestFormatDNOfOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "key.pem")
	der := must(x509.MarshalPKCS8PrivateKey(testKey()))
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

// What crypto/x509 would not have let through, so that FormatDN only has to stay on its feet.
func TestFormatDNDamaged(t *testing.T) {
	t.Parallel()
	good := name(utf8Attr(ou, "one"), utf8Attr(cn, "alice"))
	for _, c := range []struct {
		what string
		der  []byte
		want string
	}{
		{"nothing", nil, ""},
		{"no sequence", tlv(0x31, nil), ""},
		{"cut short", good[:len(good)-1], ""},
		{"something behind it", append(bytes.Clone(good), 1, 2, 3), "CN=alice,OU=one"},
		{"no set", tlv(0x30, tlv(0x30, nil)), ""},
		{"an empty set", tlv(0x30, tlv(0x31, nil)), ""},
		{"an attribute without value", tlv(0x30, tlv(0x31, tlv(0x30, oidDER(cn)))), ""},
		{"an odd BMPString", name(attr{cn, asn1.TagBMPString, "abc"}), "CN=#1E03616263"},
		{"a number", name(attr{cn, asn1.TagInteger, "\x07"}), "CN=#020107"},
	} {
		if got := dn.Format(c.der); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// An arc of 2^64+3 is not 3, and one with leading zeros or without an end is nothing: crypto/x509 refuses all of them,
// and so must whoever reads the DER once more, or a certificate gets a name that only we see in it.
func TestForeignOIDs(t *testing.T) {
	t.Parallel()
	for _, oid := range []string{
		"\x55\x04\x82\x80\x80\x80\x80\x80\x80\x80\x80\x03",
		"\x55\x04\x80\x03",
		"\x80\x55\x04\x03",
		"\x55\x04\x03\x80",
	} {
		subject := tlv(0x30, tlv(0x31, tlv(0x30, append(tlv(6, []byte(oid)), tlv(12, []byte("root"))...))))
		if got := dn.Format(subject); strings.Contains(got, "CN=") {
			t.Errorf("%x: DN %q", oid, got)
		}
		leaf := &x509.Certificate{RawSubject: subject, SerialNumber: big.NewInt(1)}
		if got := acl.IdentityOf(leaf).CN; got != "" {
			t.Errorf("%x: CN %q", oid, got)
		}
	}
}

var printable = regexp.MustCompile(`^[ -~]*$`)

// Whoever has a certificate chooses its subject: whatever it is, its text can be printed and does not hold a line
// break, a control character or an attribute that is not there.
func FuzzFormatDN(f *testing.F) {
	f.Add(nameOf())
	f.Add(name(utf8Attr(ou, "one"), utf8Attr(cn, "al,ice\x00\n")))
	f.Add(nameOf([]attr{utf8Attr(cn, "alice"), {emailAddress, asn1.TagIA5String, "a@b"}}))
	f.Add(name(attr{cn, asn1.TagBMPString, bmp("Ω")}, attr{cn, asn1.TagT61String, "\xfc"}, attr{cn, tagUniversal, universal("🐘")}))
	f.Add(name(attr{"2.999.128", asn1.TagInteger, "\x01"}))
	f.Fuzz(func(t *testing.T, der []byte) {
		got := dn.Format(der)
		if !printable.MatchString(got) {
			t.Fatalf("%q", got)
		}
		if len(got) > 8*len(der) { // the log of refusals must not grow faster than the traffic
			t.Fatalf("%d bytes of %d", len(got), len(der))
		}
	})
}
