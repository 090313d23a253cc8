package certs

// Identifier octets (X.690 section 8.1.2).
const (
	idBoolean     = 0x01
	idInteger     = 0x02
	idBitString   = 0x03
	idOctetString = 0x04
	idNull        = 0x05
	idOID         = 0x06
	idUTF8        = 0x0c
	idNumeric     = 0x12
	idPrintable   = 0x13
	idT61         = 0x14
	idIA5         = 0x16
	idUTCTime     = 0x17
	idGeneralTime = 0x18
	idVisible     = 0x1a
	idUniversal   = 0x1c
	idBMP         = 0x1e
	idSequence    = 0x30
	idSet         = 0x31
)

const constructedBit = 0x20

// context returns the identifier of a primitive context tag.
func context(n byte) byte { return 0x80 | n }

// explicit returns the identifier of a constructed context tag.
func explicit(n byte) byte { return 0xa0 | n }

// element is one tag, length and value.
type element struct {
	id      byte
	content []byte
	full    []byte
}

// input is what is left of an encoding.
type input []byte

func (in input) empty() bool { return len(in) == 0 }

// next takes one element of whatever type. As OpenSSL's ASN1_get_object it
// reads lengths with leading zeros; unlike it, no indefinite lengths.
func (in *input) next() (e element, ok bool) {
	s := []byte(*in)
	if len(s) < 2 || s[0] == 0 { // 0 ends an indefinite form
		return e, false
	}
	e.id = s[0]
	at := 1
	if e.id&0x1f == 0x1f {
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
	e.content, e.full = s[at:at+length], s[:at+length]
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

// read takes the content of an element that must have this identifier.
func (in *input) read(id byte) (content input, ok bool) {
	rest := *in
	e, ok := rest.next()
	if !ok || e.id != id {
		return nil, false
	}
	*in = rest
	return e.content, true
}

// optional takes the element if it is the next one.
func (in *input) optional(id byte) (content input, present, ok bool) {
	if in.empty() || (*in)[0] != id {
		return nil, false, true
	}
	content, ok = in.read(id)
	return content, ok, ok
}

// readOID takes an OBJECT IDENTIFIER.
func (in *input) readOID() (oid, bool) {
	content, ok := in.read(idOID)
	if !ok || !validOID(content) {
		return "", false
	}
	return oid(content), true
}

// validInteger is c2i_ibuf: at least one byte and none too many.
func validInteger(b []byte) bool {
	if len(b) < 2 {
		return len(b) == 1
	}
	negative := b[1] >= 0x80
	return (b[0] != 0 || negative) && (b[0] != 0xff || !negative)
}

// smallInteger returns a non-negative integer, and -1 for one that is too large
// or negative.
func smallInteger(b []byte) int {
	if len(b) == 0 || len(b) > 4 || b[0] >= 0x80 {
		return -1
	}
	n := 0
	for _, c := range b {
		n = n<<8 | int(c)
	}
	return n
}

// bitString returns the bits of a BIT STRING, those beyond its end as zeros.
func bitString(content []byte) (bits []byte, unused int, ok bool) {
	if len(content) == 0 || content[0] > 7 {
		return nil, 0, false
	}
	bits, unused = content[1:], int(content[0])
	if last := len(bits) - 1; unused > 0 && last >= 0 {
		bits = append([]byte(nil), bits...)
		bits[last] &= 0xff << unused
	}
	return bits, unused, true
}

// validAny holds an element of a type that we do not look into against what
// OpenSSL's asn1_ex_c2i refuses.
func validAny(e element) bool {
	if e.id&0xc0 != 0 || e.id&0x1f == 0x1f {
		return true
	}
	switch e.id {
	case idSequence, idSet:
		return true
	case idBoolean:
		return len(e.content) == 1
	case idInteger, 0x0a:
		return validInteger(e.content)
	case idBitString:
		_, _, ok := bitString(e.content)
		return ok
	case idOID:
		return validOID(e.content)
	case idNull:
		return len(e.content) == 0
	case idBMP:
		return len(e.content)%2 == 0
	case idUniversal:
		return len(e.content)%4 == 0
	}
	return e.id&constructedBit == 0 && e.id != idSequence&0x1f && e.id != idSet&0x1f
}

// appendElement encodes an element.
func appendElement(dst []byte, id byte, content []byte) []byte {
	dst = append(dst, id)
	switch n := len(content); {
	case n < 0x80:
		dst = append(dst, byte(n))
	case n < 0x100:
		dst = append(dst, 0x81, byte(n))
	case n < 0x10000:
		dst = append(dst, 0x82, byte(n>>8), byte(n))
	default:
		dst = append(dst, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(dst, content...)
}
