package chains

import (
	"strconv"
	"strings"
	"time"
)

// tlv encodes one element.
func tlv(tag byte, parts ...[]byte) []byte {
	var content []byte
	for _, p := range parts {
		content = append(content, p...)
	}
	out := []byte{tag}
	switch n := len(content); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 0x100:
		out = append(out, 0x81, byte(n))
	case n < 0x10000:
		out = append(out, 0x82, byte(n>>8), byte(n))
	default:
		out = append(out, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(out, content...)
}

func seq(parts ...[]byte) []byte { return tlv(0x30, parts...) }
func set(parts ...[]byte) []byte { return tlv(0x31, parts...) }

// text encodes a string of some type.
func text(tag byte, s string) []byte { return tlv(tag, []byte(s)) }

// The types of strings.
const (
	utf8String      = 0x0c
	numericString   = 0x12
	printable       = 0x13
	t61             = 0x14
	ia5             = 0x16
	visible         = 0x1a
	universalString = 0x1c
	bmp             = 0x1e
)

// oid encodes dotted decimal.
func oid(s string) []byte {
	var arcs []int
	for _, part := range strings.Split(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			panic(err)
		}
		arcs = append(arcs, n)
	}
	content := base128(40*arcs[0] + arcs[1])
	for _, n := range arcs[2:] {
		content = append(content, base128(n)...)
	}
	return tlv(0x06, content)
}

func base128(n int) []byte {
	out := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		out = append([]byte{byte(n&0x7f) | 0x80}, out...)
	}
	return out
}

// bits encodes a BIT STRING of one byte.
func bits(b, unused byte) []byte { return tlv(0x03, []byte{unused, b}) }

var (
	yes  = tlv(0x01, []byte{0xff})
	null = []byte{0x05, 0x00}
)

func ext(id string, critical bool, value []byte) []byte {
	if critical {
		return seq(oid(id), yes, tlv(0x04, value))
	}
	return seq(oid(id), tlv(0x04, value))
}

func basic(isCA bool) []byte {
	if isCA {
		return ext("2.5.29.19", true, seq(yes))
	}
	return ext("2.5.29.19", true, seq())
}

func pathLen(content ...byte) []byte {
	return ext("2.5.29.19", true, seq(yes, tlv(0x02, content)))
}

func keyUsage(b, unused byte) []byte { return ext("2.5.29.15", true, bits(b, unused)) }

func usage(ids ...string) []byte {
	var list [][]byte
	for _, id := range ids {
		list = append(list, oid(id))
	}
	return ext("2.5.29.37", false, seq(list...))
}

// Uses of extendedKeyUsage.
const (
	serverAuth = "1.3.6.1.5.5.7.3.1"
	clientAuth = "1.3.6.1.5.5.7.3.2"
	anyUsage   = "2.5.29.37.0"
	msSGC      = "1.3.6.1.4.1.311.10.3.3"
)

func nsCertType(b byte) []byte { return ext("2.16.840.1.113730.1.1", false, tlv(0x03, []byte{0, b})) }

// Attributes of names.
const (
	commonName   = "2.5.4.3"
	organization = "2.5.4.10"
	unit         = "2.5.4.11"
	country      = "2.5.4.6"
	email        = "1.2.840.113549.1.9.1"
)

func attribute(id string, tag byte, value string) []byte { return seq(oid(id), text(tag, value)) }

// dn makes a name of "CN=x,O=y" with one attribute in each RDN, first to last.
func dn(s string) []byte {
	var rdns [][]byte
	for _, part := range strings.Split(s, ",") {
		key, value, _ := strings.Cut(part, "=")
		id, tag := map[string]string{"CN": commonName, "O": organization, "OU": unit, "C": country, "E": email}[key], byte(utf8String)
		switch key {
		case "C":
			tag = printable
		case "E":
			tag = ia5
		}
		rdns = append(rdns, set(attribute(id, tag, value)))
	}
	return seq(rdns...)
}

// cn makes a name of one common name of a type.
func cn(tag byte, value string) []byte { return seq(set(attribute(commonName, tag, value))) }

func validity(from, to time.Time) []byte { return seq(date(from), date(to)) }

func date(t time.Time) []byte {
	if t.Year() >= 2050 {
		return text(0x18, t.UTC().Format("20060102150405Z"))
	}
	return text(0x17, t.UTC().Format("060102150405Z"))
}

// wide encodes ASCII and Latin-1 in characters of several bytes.
func wide(s string, size int) string {
	var b strings.Builder
	for _, r := range s {
		for range size - 2 {
			b.WriteByte(0)
		}
		b.WriteByte(byte(r >> 8))
		b.WriteByte(byte(r))
	}
	return b.String()
}

// General names.
func dnsName(s string) []byte    { return text(0x82, s) }
func mailName(s string) []byte   { return text(0x81, s) }
func uriName(s string) []byte    { return text(0x86, s) }
func ipName(b ...byte) []byte    { return tlv(0x87, b) }
func dirName(n []byte) []byte    { return tlv(0xa4, n) }
func ridName(id string) []byte   { o := oid(id); o[0] = 0x88; return o }
func san(names ...[]byte) []byte { return ext("2.5.29.17", false, seq(names...)) }

func otherName(id string, value []byte) []byte {
	return tlv(0xa0, oid(id), tlv(0xa0, value))
}

// nc makes name constraints, not critical.
func nc(permitted, excluded [][]byte) []byte {
	var parts [][]byte
	for i, list := range [][][]byte{permitted, excluded} {
		var trees [][]byte
		for _, base := range list {
			trees = append(trees, seq(base))
		}
		if list != nil {
			parts = append(parts, tlv(0xa0+byte(i), trees...))
		}
	}
	return ext("2.5.29.30", false, seq(parts...))
}

func permit(bases ...[]byte) []byte  { return nc(bases, nil) }
func exclude(bases ...[]byte) []byte { return nc(nil, bases) }
