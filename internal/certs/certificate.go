package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"pgwicket/internal/der"
	"pgwicket/internal/signature"
)

// Certificate is a certificate as Parse has read it. Its fields must not be
// changed, but for Origin before anybody else has it.
type Certificate struct {
	Origin string // where it is from, for messages: its file and place; "" if it was sent

	Raw       []byte // the whole certificate
	RawTBS    []byte // what is signed
	RawSPKI   []byte // the SubjectPublicKeyInfo
	RawSerial []byte // the content of the serial number, which may be negative

	Version int // 1 for v1; 0 for a number that makes no sense
	Issuer  Name
	Subject Name

	// The dates, zero where one cannot be read: such a certificate is in date at
	// no time.
	NotBefore time.Time
	NotAfter  time.Time

	Key        *signature.PublicKey
	Algorithm  *signature.Algorithm // as the signed part names it
	Signature  []byte
	Extensions int // how many there are

	ext   extensions
	aux   *trust
	outer signatureField
}

// signatureField is what stands outside of the signed part.
type signatureField struct {
	same   bool // the algorithm is the one inside
	unused int  // bits of the last byte of the signature
}

// ParseError says what of a certificate cannot be read.
type ParseError struct {
	Problem string // goes on from the name of the certificate
	Serial  string // "" if it was not reached
	Subject string // likewise
}

func (e *ParseError) Error() string {
	text := "certificate "
	if e.Serial != "" {
		text += e.Serial + " "
	}
	if e.Subject != "" {
		text += fmt.Sprintf("(%q) ", e.Subject)
	}
	return text + e.Problem
}

// Parse reads a certificate in DER or definite BER, with nothing behind it. It
// fails, with a *ParseError, for what OpenSSL does not read either; an extension
// that is malformed and a key that is not known fail Verify instead, so that the
// certificate can be named. The certificate keeps raw.
func Parse(raw []byte) (*Certificate, error) {
	in := der.Input(raw)
	c, err := parse(&in)
	if err == nil && !in.Empty() {
		err = c.parseError("has bytes behind its end")
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// ParseTrusted reads what a PEM block "TRUSTED CERTIFICATE" holds: a certificate
// and OpenSSL's settings of what it is trusted for (d2i_X509_AUX).
func ParseTrusted(raw []byte) (*Certificate, error) {
	in := der.Input(raw)
	c, err := parse(&in)
	if err != nil {
		return nil, err
	}
	if !in.Empty() {
		if c.aux, err = parseTrust(in); err != nil {
			return nil, c.unreadable("trust settings")
		}
	}
	return c, nil
}

func parse(in *der.Input) (*Certificate, error) {
	c := &Certificate{}
	e, ok := in.Next()
	if !ok || e.ID != der.Sequence {
		return nil, c.parseError("is no certificate in DER")
	}
	c.Raw = e.Full
	outer := der.Input(e.Content)
	tbs, ok := outer.Next()
	if !ok || tbs.ID != der.Sequence {
		return nil, c.unreadable("a signed part")
	}
	c.RawTBS = tbs.Full
	inside, err := c.parseTBS(tbs.Content)
	if err != nil {
		return nil, err
	}
	algorithm, ok := signature.ReadAlgorithm(&outer)
	if !ok {
		return nil, c.unreadable("a signature algorithm")
	}
	c.outer.same = inside.Equal(algorithm)
	signature, ok := outer.Read(der.BitString)
	if ok {
		c.Signature, c.outer.unused, ok = der.Bits(signature)
	}
	if !ok || !outer.Empty() {
		return nil, c.unreadable("a signature")
	}
	c.derive()
	return c, nil
}

func (c *Certificate) unreadable(field string) error {
	return c.parseError("has " + field + " that cannot be read")
}

func (c *Certificate) parseError(problem string) error {
	e := &ParseError{Problem: problem}
	if c.RawSerial != nil {
		e.Serial = c.Serial()
	}
	if c.Subject.Raw != nil {
		e.Subject = text(c.Subject)
	}
	return e
}

// parseTBS reads the signed part.
func (c *Certificate) parseTBS(in der.Input) (algorithm signature.AlgorithmIdentifier, err error) {
	c.Version = 1
	version, present, ok := in.Optional(der.Explicit(0))
	if ok && present {
		var number der.Input
		number, ok = version.Read(der.Integer)
		ok = ok && version.Empty() && der.ValidInteger(number)
		c.Version = der.SmallInteger(number) + 1
	}
	if !ok {
		return algorithm, c.unreadable("a version")
	}
	serial, ok := in.Read(der.Integer)
	if !ok || !der.ValidInteger(serial) {
		return algorithm, c.unreadable("a serial number")
	}
	c.RawSerial = serial
	if algorithm, ok = signature.ReadAlgorithm(&in); !ok {
		return algorithm, c.unreadable("a signature algorithm in its signed part")
	}
	c.Algorithm = algorithm.Algorithm()
	if c.Issuer, ok = readName(&in); !ok {
		return algorithm, c.unreadable("an issuer")
	}
	if !c.parseValidity(&in) {
		return algorithm, c.unreadable("a validity")
	}
	if c.Subject, ok = c.readSubject(&in); !ok {
		return algorithm, c.unreadable("a subject")
	}
	spki, ok := in.Next()
	if ok {
		c.RawSPKI = spki.Full
		c.Key, ok = signature.ParsePublicKey(spki)
	}
	if !ok {
		return algorithm, c.unreadable("a public key")
	}
	return algorithm, c.parseTail(in)
}

// parseTail reads the optional end of the signed part.
func (c *Certificate) parseTail(in der.Input) error {
	for n := byte(1); n <= 2; n++ {
		id, present, ok := in.Optional(der.Context(n))
		if ok && present {
			_, _, ok = der.Bits(id)
		}
		if !ok {
			return c.unreadable("a unique identifier")
		}
	}
	wrapped, present, ok := in.Optional(der.Explicit(3))
	if ok && present {
		var list der.Input
		list, ok = wrapped.Read(der.Sequence)
		ok = ok && wrapped.Empty() && c.parseExtensions(list)
	}
	if !ok || !in.Empty() {
		return c.unreadable("a list of extensions")
	}
	return nil
}

// readSubject spares a second look at the issuer's name.
func (c *Certificate) readSubject(in *der.Input) (Name, bool) {
	if bytes.HasPrefix(*in, c.Issuer.Raw) {
		*in = (*in)[len(c.Issuer.Raw):]
		return c.Issuer, true
	}
	return readName(in)
}

func readName(in *der.Input) (Name, bool) {
	e, ok := in.Next()
	if !ok {
		return Name{}, false
	}
	return parseName(e)
}

// Serial writes the serial number as "openssl x509 -serial" does.
func (c *Certificate) Serial() string {
	b := c.RawSerial
	if len(b) == 0 {
		return ""
	}
	if b[0] < 0x80 {
		if len(b) > 1 && b[0] == 0 {
			b = b[1:]
		}
		return clip(strings.ToUpper(hex.EncodeToString(b)))
	}
	negated := make([]byte, len(b))
	carry := 1
	for i := len(b) - 1; i >= 0; i-- {
		v := int(^b[i]) + carry
		negated[i], carry = byte(v), v>>8
	}
	for len(negated) > 1 && negated[0] == 0 {
		negated = negated[1:]
	}
	return clip("-" + strings.ToUpper(hex.EncodeToString(negated)))
}

// DER returns copies of what crypto/x509 has read. crypto/tls does not copy: each certificate of a peer holds all of its
// message, in which a few bytes of certificate may stand beside kilobytes of extensions (RFC 8446, section 4.4.2).
func DER(all []*x509.Certificate) (der [][]byte) {
	for _, c := range all {
		der = append(der, bytes.Clone(c.Raw))
	}
	return der
}

// Equal reports whether both are the same certificate, byte by byte.
func (c *Certificate) Equal(other *Certificate) bool {
	return c == other || bytes.Equal(c.Raw, other.Raw)
}

// clipped is how much of a text clip leaves.
const clipped = 256

// clip keeps a certificate of a quarter of a megabyte out of the log.
func clip(s string) string {
	if len(s) > clipped {
		return s[:clipped] + "..."
	}
	return s
}
