package certs

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"pgwicket/internal/der"
	"pgwicket/internal/dn"
)

// Name is a distinguished name. The zero value is the empty one.
type Name struct {
	Raw []byte // the encoding as it stands in the certificate

	canonical string
}

type attribute struct {
	oid   []byte
	id    byte
	value []byte
}

// Equal reports whether both names are the same to OpenSSL's X509_NAME_cmp:
// whatever the types of their strings, the case of ASCII letters, and spaces
// that are doubled or at an end (RFC 5280 section 7.1).
func (n Name) Equal(other Name) bool { return n.canonical == other.canonical }

// Canonical returns OpenSSL's canonical encoding. Two names with the same one
// are equal, and one that begins with another's lies in its subtree.
func (n Name) Canonical() string { return n.canonical }

// Empty reports whether the name has no attribute.
func (n Name) Empty() bool { return n.canonical == "" }

// attributes reads the attributes of all RDNs.
func (n Name) attributes() (list []attribute) {
	in := der.Input(n.Raw)
	content, _ := in.Read(der.Sequence)
	for !content.Empty() {
		set, ok := content.Read(der.Set)
		if !ok {
			break
		}
		list, _ = appendRDN(list, set) // parseName has read it
	}
	return list
}

// String writes the name as PostgreSQL does, with control characters and bytes
// outside ASCII escaped.
func (n Name) String() string { return dn.Format(n.Raw) }

// ParseName reads the DER of a Name with nothing behind it.
func ParseName(raw []byte) (n Name, ok bool) {
	in := der.Input(raw)
	e, ok := in.Next()
	if !ok || !in.Empty() {
		return n, false
	}
	return parseName(e)
}

// parseName is x509_name_ex_d2i.
func parseName(e der.Element) (n Name, ok bool) {
	if e.ID != der.Sequence {
		return n, false
	}
	var room [256]byte
	canonical, ok := appendCanonicalName(room[:0], e.Content)
	if !ok {
		return n, false
	}
	return Name{e.Full, string(canonical)}, true
}

// validName reports whether parseName reads the name.
func validName(e der.Element) bool {
	var room [256]byte
	_, ok := appendCanonicalName(room[:0], e.Content)
	return ok && e.ID == der.Sequence
}

func appendCanonicalName(dst []byte, rdns der.Input) ([]byte, bool) {
	var room [4]attribute
	for !rdns.Empty() {
		set, ok := rdns.Read(der.Set)
		if !ok {
			return nil, false
		}
		rdn, ok := appendRDN(room[:0], set)
		if !ok {
			return nil, false
		}
		if dst, ok = appendCanonical(dst, rdn); !ok {
			return nil, false
		}
	}
	return dst, true
}

// appendRDN reads the attributes of a SET.
func appendRDN(rdn []attribute, set der.Input) ([]attribute, bool) {
	for !set.Empty() {
		pair, ok := set.Read(der.Sequence)
		if !ok {
			return nil, false
		}
		var a attribute
		if a.oid, ok = pair.ReadOID(); !ok {
			return nil, false
		}
		value, ok := pair.Next()
		if !ok || !pair.Empty() || !inNames(value.ID) || !der.ValidAny(value) {
			return nil, false
		}
		a.id, a.value = value.ID, value.Content
		rdn = append(rdn, a)
	}
	return rdn, true
}

// inNames reports whether OpenSSL's ASN1_PRINTABLE has the type of a value.
func inNames(id byte) bool {
	switch id {
	case der.BitString, der.UTF8String, der.Sequence, der.NumericString, der.PrintableString, der.T61String, der.IA5String, der.UniversalString, der.BMPString,
		0x07, 0x08, 0x09, 0x0b, 0x0d, 0x0e, 0x0f, 0x1d: // types that it does not know
		return true
	}
	return false
}

// appendCanonical is x509_name_canon for one RDN: without it, should it be empty.
func appendCanonical(dst []byte, rdn []attribute) ([]byte, bool) {
	if len(rdn) == 0 {
		return dst, true
	}
	if len(rdn) == 1 { // nearly all
		var room [128]byte
		pair, ok := rdn[0].appendCanonical(room[:0])
		return der.Append(dst, der.Set, pair), ok
	}
	encoded := make([][]byte, len(rdn))
	for i, a := range rdn {
		var ok bool
		if encoded[i], ok = a.appendCanonical(nil); !ok {
			return nil, false
		}
	}
	slices.SortFunc(encoded, bytes.Compare)
	return der.Append(dst, der.Set, bytes.Join(encoded, nil)), true
}

func (a attribute) appendCanonical(dst []byte) ([]byte, bool) {
	var room [64]byte
	id, value, ok := a.canonical(room[:0])
	if !ok {
		return nil, false
	}
	size := der.HeaderLength(len(a.oid)) + len(a.oid) + der.HeaderLength(len(value)) + len(value)
	dst = der.AppendHeader(dst, der.Sequence, size)
	return der.Append(der.Append(dst, der.ObjectIdentifier, a.oid), id, value), true
}

// canonical is asn1_string_canon. The value may be in room.
func (a attribute) canonical(room []byte) (id byte, value []byte, ok bool) {
	switch a.id {
	case der.UTF8String, der.BMPString, der.UniversalString, der.PrintableString, der.T61String, der.IA5String, der.VisibleString:
		value, ok = toUTF8(a.id, a.value)
		return der.UTF8String, appendFolded(room, value), ok
	}
	return a.id, a.value, true
}

// toUTF8 is ASN1_STRING_to_UTF8, which reads the 8-bit types as Latin-1.
func toUTF8(id byte, value []byte) ([]byte, bool) {
	size := 1
	switch id {
	case der.UTF8String:
		return value, utf8.Valid(value)
	case der.NumericString, der.PrintableString, der.T61String, der.IA5String, der.VisibleString:
		if isASCII(value) {
			return value, true
		}
	case der.BMPString:
		size = 2
	case der.UniversalString:
		size = 4
	default:
		return nil, false
	}
	if len(value)%size != 0 {
		return nil, false
	}
	out := make([]byte, 0, len(value)+8)
	for ; len(value) > 0; value = value[size:] {
		var r rune
		for _, c := range value[:size] {
			r = r<<8 | rune(c)
		}
		if !utf8.ValidRune(r) {
			return nil, false
		}
		out = utf8.AppendRune(out, r)
	}
	return out, true
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// appendFolded drops spaces at the ends, makes one of several, and writes ASCII
// letters small.
func appendFolded(out, b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	for i, c := range b {
		switch {
		case !isSpace(c):
			out = append(out, lower(c))
		case !isSpace(b[i-1]):
			out = append(out, ' ')
		}
	}
	return out
}

// isSpace is C's isspace.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
