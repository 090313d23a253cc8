package tlstest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
)

// Attribute is an attribute of a distinguished name before it is encoded. The type of the value is free, as it is for
// everybody who makes a certificate.
type Attribute struct {
	OID   string
	Tag   int // of the value
	Value string
}

// Attr returns an attribute.
func Attr(oid string, tag int, value string) Attribute { return Attribute{oid, tag, value} }

// UTF8 returns an attribute with a UTF8String.
func UTF8(oid, value string) Attribute { return Attr(oid, asn1.TagUTF8String, value) }

// Name returns the DER of a distinguished name with one attribute in each RDN.
func Name(attrs ...Attribute) []byte {
	var rdns [][]Attribute
	for _, a := range attrs {
		rdns = append(rdns, []Attribute{a})
	}
	return NameOf(rdns...)
}

// NameOf returns the DER of a distinguished name. It keeps the order of the attributes in an RDN, which DER would sort:
// not all software that makes certificates does.
func NameOf(rdns ...[]Attribute) []byte {
	var body []byte
	for _, rdn := range rdns {
		var set []byte
		for _, a := range rdn {
			set = append(set, TLV(0x30, append(OID(a.OID), TLV(byte(a.Tag), []byte(a.Value))...))...)
		}
		body = append(body, TLV(0x31, set)...)
	}
	return TLV(0x30, body)
}

// TLV returns a value in DER, with a tag of one octet.
func TLV(tag byte, content []byte) []byte {
	kind := asn1.RawValue{Class: int(tag >> 6), Tag: int(tag & 0x1f), IsCompound: tag&0x20 != 0, Bytes: content}
	return must(asn1.Marshal(kind))
}

// OID returns an object identifier in DER.
func OID(dotted string) []byte {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(dotted, ".") {
		var n int
		must(fmt.Sscan(part, &n))
		oid = append(oid, n)
	}
	return must(asn1.Marshal(oid))
}

// BMP returns the content of a BMPString. Characters outside of the basic plane are written as UTF-16, which the standard
// does not allow and software does.
func BMP(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u>>8), byte(u))
	}
	return string(b)
}

// Universal returns the content of a UniversalString.
func Universal(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r>>24), byte(r>>16), byte(r>>8), byte(r))
	}
	return string(b)
}

// SelfSignedKey returns the key of every certificate of SelfSigned.
var SelfSignedKey = sync.OnceValue(func() crypto.Signer { return newKey(ECDSA) })

// SelfSigned returns the DER of a self-signed certificate with a subject that nothing has checked.
func SelfSigned(subject []byte, edit ...func(*x509.Certificate)) []byte {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), RawSubject: subject, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	for _, e := range edit {
		e(t)
	}
	key := SelfSignedKey()
	return must(x509.CreateCertificate(rand.Reader, t, t, key.Public(), key))
}
