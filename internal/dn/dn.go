// Package dn reads distinguished names as OpenSSL does, and therefore PostgreSQL. crypto/x509 reads them in another way: it
// keeps the last of several common names, regroups RDNs and does not escape control characters.
package dn

import (
	"crypto/x509"
	encodingasn1 "encoding/asn1"
	"encoding/hex"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Name is a distinguished name: RDNs in the order of the DER, each of one or more attributes.
type Name [][]Attribute

// Attribute is one part of a distinguished name.
type Attribute struct {
	OID   string
	Value []byte // content octets

	tag asn1.Tag
	der []byte // the whole value, for attributes without a name

	last bool // of its RDN
}

// The string types that cryptobyte does not name.
const (
	numericString   = asn1.Tag(18)
	visibleString   = asn1.Tag(26)
	universalString = asn1.Tag(28)
	bmpString       = asn1.Tag(30)
)

// Parse reads the DER of a Name (RFC 5280, section 4.1.2.4). ok is false if anything in it is malformed; the name then has
// what comes before that.
func Parse(der []byte) (name Name, ok bool) {
	list, ok := parse(nil, der)
	for begin, i := 0, 0; i < len(list); i++ {
		if list[i].last {
			name = append(name, list[begin:i+1])
			begin = i + 1
		}
	}
	return name, ok
}

// parse appends the attributes of all RDNs to a list, of which Format needs no more.
func parse(list []Attribute, der []byte) ([]Attribute, bool) {
	input := cryptobyte.String(der)
	var rdns cryptobyte.String
	if !input.ReadASN1(&rdns, asn1.SEQUENCE) {
		return list, false
	}
	for !rdns.Empty() {
		var set cryptobyte.String
		if !rdns.ReadASN1(&set, asn1.SET) {
			return list, false
		}
		begin := len(list)
		for !set.Empty() {
			a, ok := readAttribute(&set)
			if !ok {
				return list[:begin], false
			}
			list = append(list, a)
		}
		if len(list) > begin {
			list[len(list)-1].last = true
		}
	}
	return list, input.Empty()
}

func readAttribute(set *cryptobyte.String) (a Attribute, ok bool) {
	var pair, element, content cryptobyte.String
	if !set.ReadASN1(&pair, asn1.SEQUENCE) {
		return a, false
	}
	if a.OID, ok = readOID(&pair); !ok || !pair.ReadAnyASN1Element(&element, &a.tag) || !pair.Empty() {
		return a, false
	}
	a.der = element
	if !element.ReadAnyASN1(&content, nil) {
		return a, false
	}
	a.Value = content
	return a, true
}

// dotted has the identifiers of shortNames by their DER: names are written for every connection, and to decode an identifier
// takes longer than the rest.
var dotted = func() map[string]string {
	m := make(map[string]string, len(shortNames))
	for id := range shortNames {
		var oid x509.OID
		if err := oid.UnmarshalText([]byte(id)); err != nil {
			panic(err) // in a table of constants
		}
		content, _ := oid.MarshalBinary() // never fails
		m[string(content)] = id
	}
	return m
}()

// readOID reads an OBJECT IDENTIFIER as dotted decimal.
func readOID(s *cryptobyte.String) (string, bool) {
	var content cryptobyte.String
	if again := *s; again.ReadASN1(&content, asn1.OBJECT_IDENTIFIER) {
		if id, ok := dotted[string(content)]; ok {
			*s = again
			return id, true
		}
	}
	var oid encodingasn1.ObjectIdentifier
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return "", false
	}
	return oid.String(), true
}

// Plain reports whether every program reads the same value: UTF-8 text without control characters, in a string type that
// holds it as it is. Programs differ in how they read a NUL or a BMPString (CVE-2009-4034).
func (a Attribute) Plain() bool {
	switch a.tag {
	case asn1.UTF8String, asn1.PrintableString, asn1.IA5String:
	default:
		return false
	}
	for _, r := range string(a.Value) {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return false
		}
	}
	return true
}

const oidCN = "2.5.4.3"

// CommonName returns the common name in the DER of a Name; empty if there is none, or several, or one that is not Plain.
// PostgreSQL and OpenSSL read the first of several, crypto/x509 the last.
func CommonName(der []byte) string {
	if a, ok := commonName(der); ok && a.Plain() {
		return string(a.Value)
	}
	return ""
}

// CommonNameText is CommonName with T61String too, which OpenSSL prints as Latin-1. PostgreSQL compares its bytes with
// the name of a role, so it is no name for that.
func CommonNameText(der []byte) string {
	a, ok := commonName(der)
	switch {
	case !ok:
	case a.Plain():
		return string(a.Value)
	case a.tag == asn1.T61String:
		if text, ok := a.text(); ok && !strings.ContainsFunc(text, unicode.IsControl) {
			return text
		}
	}
	return ""
}

// commonName returns the only common name.
func commonName(der []byte) (found Attribute, ok bool) {
	name, ok := Parse(der)
	if !ok {
		return found, false
	}
	n := 0
	for _, rdn := range name {
		for _, a := range rdn {
			if a.OID == oidCN {
				n++
				found = a
			}
		}
	}
	return found, n == 1
}

// Format returns the text of the DER of a Name as OpenSSL prints it with XN_FLAG_RFC2253: the last RDN first, bytes outside
// of ASCII and control characters as \XX. PostgreSQL shows that in pg_stat_ssl and compares it for clientname=DN.
func Format(der []byte) string {
	var room [8]Attribute
	list, _ := parse(room[:0], der)
	var b strings.Builder
	b.Grow(len(der))
	for end := len(list); end > 0; {
		begin := end - 1
		for begin > 0 && !list[begin-1].last {
			begin--
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		for j := end - 1; j >= begin; j-- {
			list[j].format(&b)
			if j > begin {
				b.WriteByte('+')
			}
		}
		end = begin
	}
	return b.String()
}

func (a Attribute) format(b *strings.Builder) {
	name, known := shortNames[a.OID]
	if !known {
		name = a.OID
	}
	b.WriteString(name)
	b.WriteByte('=')
	text, ok := a.text()
	if !known || !ok {
		b.WriteByte('#')
		b.WriteString(strings.ToUpper(hex.EncodeToString(a.der)))
		return
	}
	escape(b, text)
}

// text returns the value as UTF-8, and false for a type that has no text.
func (a Attribute) text() (string, bool) {
	switch a.tag {
	case asn1.UTF8String:
		return string(a.Value), true
	case asn1.T61String, asn1.PrintableString, asn1.IA5String, numericString, visibleString: // read as Latin-1, as OpenSSL does
		if !slices.ContainsFunc(a.Value, func(c byte) bool { return c >= utf8.RuneSelf }) {
			return string(a.Value), true
		}
		return fromUnits(a.Value, 1)
	case bmpString:
		return fromUnits(a.Value, 2)
	case universalString:
		return fromUnits(a.Value, 4)
	}
	return "", false
}

// fromUnits decodes characters of a fixed number of bytes. With two bytes it decodes UTF-16.
func fromUnits(value []byte, size int) (string, bool) {
	if len(value)%size != 0 {
		return "", false
	}
	var runes []rune
	for i := 0; i < len(value); i += size {
		var r rune
		for _, c := range value[i : i+size] {
			r = r<<8 | rune(c)
		}
		runes = append(runes, r)
	}
	if size != 2 {
		return string(runes), true
	}
	units := make([]uint16, len(runes))
	for i, r := range runes {
		units[i] = uint16(r)
	}
	return string(utf16.Decode(units)), true
}

// escape writes s as RFC 2253, section 2.4 requires. For a value of one character OpenSSL applies only the rule for the last
// character.
func escape(b *strings.Builder, s string) {
	for i := range len(s) {
		c, first, last := s[i], i == 0, i == len(s)-1
		switch {
		case c < 0x20 || c >= 0x7f:
			b.WriteByte('\\')
			b.WriteString(strings.ToUpper(hex.EncodeToString([]byte{c})))
		case strings.IndexByte(`,+"\<>;`, c) >= 0,
			c == '#' && first && !last,
			c == ' ' && (first || last):
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
}

// Abbreviate cuts a text that somebody else has chosen, such as a name or a number in a certificate, to 256 bytes for
// a message: a client may send a quarter of a megabyte.
func Abbreviate(s string) string {
	const limit = 256
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
