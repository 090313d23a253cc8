// Package der takes DER apart as OpenSSL's crypto/asn1/tasn_dec.c and
// crypto/asn1/asn1_lib.c do for the definite form of BER: a length with leading
// zeros and a TRUE that is not 0xFF are read. The indefinite form and strings in
// pieces are not. It allocates nothing for what it reads.
package der

// Identifier octets (X.690 section 8.1.2).
const (
	Boolean          = 0x01
	Integer          = 0x02
	BitString        = 0x03
	OctetString      = 0x04
	Null             = 0x05
	ObjectIdentifier = 0x06
	UTF8String       = 0x0c
	NumericString    = 0x12
	PrintableString  = 0x13
	T61String        = 0x14
	IA5String        = 0x16
	UTCTime          = 0x17
	GeneralizedTime  = 0x18
	VisibleString    = 0x1a
	UniversalString  = 0x1c
	BMPString        = 0x1e
	Sequence         = 0x30
	Set              = 0x31
)

const constructedBit = 0x20

// Context returns the identifier of a primitive context tag.
func Context(n byte) byte { return 0x80 | n }

// Explicit returns the identifier of a constructed context tag.
func Explicit(n byte) byte { return 0xa0 | n }

// Element is one tag, length and value.
type Element struct {
	ID      byte // the identifier octet; 0 for no element
	Content []byte
	Full    []byte // with tag and length
}

// Input is what is left of an encoding.
type Input []byte

// Empty reports whether nothing is left.
func (in Input) Empty() bool { return len(in) == 0 }

// Next takes one element of whatever type. As OpenSSL's ASN1_get_object it
// reads lengths with leading zeros; unlike it, no indefinite lengths.
func (in *Input) Next() (e Element, ok bool) {
	s := []byte(*in)
	if len(s) < 2 || s[0] == 0 { // 0 ends an indefinite form
		return e, false
	}
	e.ID = s[0]
	if end := 2 + int(s[1]); e.ID&0x1f != 0x1f && s[1] < 0x80 && end <= len(s) { // nearly all
		e.Content, e.Full = s[2:end], s[:end]
		*in = s[end:]
		return e, true
	}
	at := 1
	if e.ID&0x1f == 0x1f {
		for at < len(s) && at <= 5 && s[at]&0x80 != 0 {
			at++
		}
		at++
		if at > 5 {
			return e, false
		}
	}
	length, at, ok := readLength(s, at)
	if !ok || length > len(s)-at {
		return e, false
	}
	e.Content, e.Full = s[at:at+length], s[:at+length]
	*in = s[at+length:]
	return e, true
}

func readLength(s []byte, at int) (length, next int, ok bool) {
	if at >= len(s) {
		return 0, at, false
	}
	n := int(s[at])
	at++
	if n < 0x80 {
		return n, at, true
	}
	if n &= 0x7f; n == 0 || n > len(s)-at {
		return 0, at, false
	}
	for ; n > 0; n-- {
		if length > 1<<22 {
			return 0, at, false
		}
		length = length<<8 | int(s[at])
		at++
	}
	return length, at, true
}

// Read takes the content of an element that must have this identifier.
func (in *Input) Read(id byte) (content Input, ok bool) {
	rest := *in
	e, ok := rest.Next()
	if !ok || e.ID != id {
		return nil, false
	}
	*in = rest
	return e.Content, true
}

// Optional takes the element if it is the next one.
func (in *Input) Optional(id byte) (content Input, present, ok bool) {
	if in.Empty() || (*in)[0] != id {
		return nil, false, true
	}
	content, ok = in.Read(id)
	return content, ok, ok
}

// ReadOID takes an OBJECT IDENTIFIER and returns its content, which OID makes of it.
func (in *Input) ReadOID() ([]byte, bool) {
	content, ok := in.Read(ObjectIdentifier)
	if !ok || !ValidOID(content) {
		return nil, false
	}
	return content, true
}

// ValidInteger is c2i_ibuf: at least one byte and none too many.
func ValidInteger(b []byte) bool {
	if len(b) < 2 {
		return len(b) == 1
	}
	negative := b[1] >= 0x80
	return (b[0] != 0 || negative) && (b[0] != 0xff || !negative)
}

// SmallInteger returns a non-negative integer, and -1 for one that is too large
// or negative.
func SmallInteger(b []byte) int {
	if len(b) == 0 || len(b) > 4 || b[0] >= 0x80 {
		return -1
	}
	n := 0
	for _, c := range b {
		n = n<<8 | int(c)
	}
	return n
}

// Bits returns the bits of a BIT STRING, those beyond its end as zeros.
func Bits(content []byte) (bits []byte, unused int, ok bool) {
	if len(content) == 0 || content[0] > 7 {
		return nil, 0, false
	}
	bits, unused = content[1:], int(content[0])
	if last := len(bits) - 1; last >= 0 && bits[last]&^(0xff<<unused) != 0 {
		bits = append([]byte(nil), bits...)
		bits[last] &= 0xff << unused
	}
	return bits, unused, true
}

// ValidAny holds an element of a type that we do not look into against what
// OpenSSL's asn1_ex_c2i refuses.
func ValidAny(e Element) bool {
	if e.ID&0xc0 != 0 || e.ID&0x1f == 0x1f {
		return true
	}
	switch e.ID {
	case Sequence, Set:
		return true
	case Boolean:
		return len(e.Content) == 1
	case Integer, 0x0a:
		return ValidInteger(e.Content)
	case BitString:
		_, _, ok := Bits(e.Content)
		return ok
	case ObjectIdentifier:
		return ValidOID(e.Content)
	case Null:
		return len(e.Content) == 0
	case BMPString:
		return len(e.Content)%2 == 0
	case UniversalString:
		return len(e.Content)%4 == 0
	}
	return e.ID&constructedBit == 0 && e.ID != Sequence&0x1f && e.ID != Set&0x1f
}

// Append encodes an element.
func Append(dst []byte, id byte, content []byte) []byte {
	return append(AppendHeader(dst, id, len(content)), content...)
}

// AppendHeader encodes the identifier and the length of an element.
func AppendHeader(dst []byte, id byte, length int) []byte {
	dst = append(dst, id)
	switch n := length; {
	case n < 0x80:
		return append(dst, byte(n))
	case n < 0x100:
		return append(dst, 0x81, byte(n))
	case n < 0x10000:
		return append(dst, 0x82, byte(n>>8), byte(n))
	default:
		return append(dst, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
}

// HeaderLength returns how many bytes AppendHeader adds.
func HeaderLength(length int) int {
	switch {
	case length < 0x80:
		return 2
	case length < 0x100:
		return 3
	case length < 0x10000:
		return 4
	}
	return 6
}
