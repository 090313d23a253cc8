package certs

import (
	"slices"

	"pgwicket/internal/der"
)

// extensions is what ossl_x509v3_cache_extensions in crypto/x509/v3_purp.c
// keeps. As there, the version of the certificate does not matter.
type extensions struct {
	basic          bool // there is a basicConstraints
	ca             bool
	pathLen        int // -1: no limit
	hasKeyUsage    bool
	keyUsage       uint16
	hasExtKeyUsage bool
	extKeyUsage    []der.OID
	hasNSCertType  bool
	nsCertType     byte
	proxy          bool
	keyID          []byte // nil: none
	authority      *AuthorityKeyID
	altNames       []GeneralName
	constraints    *nameConstraints
	unknown        der.OID // a critical extension that is not supported
	malformed      string  // why the certificate cannot be used
	selfIssued     bool    // subject and issuer are the same
	selfSigned     bool    // and the certificate does not say that another key signed
}

// AuthorityKeyID is the extension of that name, by which a certificate or a list
// says which of several CAs of one name has issued it.
type AuthorityKeyID struct {
	keyID  []byte
	issuer Name // of the first directoryName
	named  bool
	serial []byte
}

// The bits of keyUsage as OpenSSL numbers them.
const (
	keyCertSign      = 0x0004
	keyCRLSign       = 0x0002
	keyAgreement     = 0x0008
	keyEncipherment  = 0x0020
	digitalSignature = 0x0080
)

// The bits of nsCertType.
const (
	nsSSLClient = 0x80
	nsSSLServer = 0x40
	nsSSLCA     = 0x04
	nsAnyCA     = 0x07
)

// parsers read the extensions that decide about a chain. A certificate for which
// one returns false is refused, and so is one with two extensions of a kind.
var parsers = map[der.OID]func(*Certificate, der.Input) bool{
	oidBasicConstraints:   (*Certificate).parseBasicConstraints,
	oidKeyUsage:           (*Certificate).parseKeyUsage,
	oidExtendedKeyUsage:   (*Certificate).parseExtKeyUsage,
	oidNSCertType:         (*Certificate).parseNSCertType,
	oidSubjectKeyID:       (*Certificate).parseSubjectKeyID,
	oidAuthorityKeyID:     (*Certificate).parseAuthorityKeyID,
	oidSubjectAltName:     (*Certificate).parseAltNames,
	oidNameConstraints:    (*Certificate).parseNameConstraints,
	oidDistributionPoints: (*Certificate).parseDistributionPoints,
	oidProxyCertInfo:      func(c *Certificate, _ der.Input) bool { c.ext.proxy = true; return true },
}

// parseExtensions reads the list. It fails where OpenSSL would not read the
// certificate; what is wrong inside of an extension is only noted.
func (c *Certificate) parseExtensions(list der.Input) bool {
	c.ext.pathLen = -1
	var seen []der.OID // of those that have a parser
	for !list.Empty() {
		e, ok := list.Read(der.Sequence)
		if !ok {
			return false
		}
		name, ok := e.ReadOID()
		if !ok {
			return false
		}
		critical, present, ok := e.Optional(der.Boolean)
		if !ok || present && len(critical) != 1 {
			return false
		}
		value, ok := e.Read(der.OctetString)
		if !ok || !e.Empty() {
			return false
		}
		repeated := slices.Contains(seen, name)
		if _, known := parsers[name]; known && !repeated {
			seen = append(seen, name)
		}
		c.Extensions = append(c.Extensions, Extension{OID: name, Critical: present && critical[0] != 0, Value: value})
		c.addExtension(name, repeated, value)
		if present && critical[0] != 0 && !supportedCritical[name] && c.ext.unknown == "" {
			c.ext.unknown = name
		}
	}
	return true
}

func (c *Certificate) addExtension(name der.OID, repeated bool, value der.Input) {
	switch parser, known := parsers[name]; {
	case name == oidIPAddrBlocks, name == oidASNumbers:
		c.malformed("has an extension of RFC 3779, which is not supported")
	case !known:
	case repeated:
		c.malformed("has two of the extension " + extensionName(name))
	case !parser(c, value):
		c.malformed("has an extension " + extensionName(name) + " that is malformed")
	}
}

func (c *Certificate) malformed(text string) {
	if c.ext.malformed == "" {
		c.ext.malformed = text
	}
}

func (c *Certificate) parseBasicConstraints(in der.Input) bool {
	content, ok := in.Read(der.Sequence)
	if !ok {
		return false
	}
	c.ext.basic = true
	ca, present, ok := content.Optional(der.Boolean)
	if !ok || present && len(ca) != 1 {
		return false
	}
	c.ext.ca = present && ca[0] != 0
	length, present, ok := content.Optional(der.Integer)
	if !ok || !content.Empty() {
		return false
	}
	if present {
		c.ext.pathLen = der.SmallInteger(length)
		return der.ValidInteger(length) && length[0] < 0x80
	}
	return true
}

func (c *Certificate) parseKeyUsage(in der.Input) bool {
	content, ok := in.Read(der.BitString)
	if !ok {
		return false
	}
	bits, _, ok := der.Bits(content)
	c.ext.hasKeyUsage, c.ext.keyUsage = true, lowBits(bits)
	return ok && c.ext.keyUsage != 0 // RFC 5280 section 4.2.1.3
}

func (c *Certificate) parseNSCertType(in der.Input) bool {
	content, ok := in.Read(der.BitString)
	if !ok {
		return false
	}
	bits, _, ok := der.Bits(content)
	c.ext.hasNSCertType, c.ext.nsCertType = true, byte(lowBits(bits))
	return ok
}

func (c *Certificate) parseExtKeyUsage(in der.Input) bool {
	content, ok := in.Read(der.Sequence)
	c.ext.hasExtKeyUsage = true
	for ok && !content.Empty() {
		var usage der.OID
		usage, ok = content.ReadOID()
		c.ext.extKeyUsage = append(c.ext.extKeyUsage, usage)
	}
	return ok
}

func (c *Certificate) parseSubjectKeyID(in der.Input) bool {
	id, ok := in.Read(der.OctetString)
	c.ext.keyID = append([]byte{}, id...)
	return ok
}

func (c *Certificate) parseAuthorityKeyID(in der.Input) (ok bool) {
	c.ext.authority, ok = ParseAuthorityKeyID(in)
	return ok
}

// ParseAuthorityKeyID reads the value of the extension.
func ParseAuthorityKeyID(value []byte) (*AuthorityKeyID, bool) {
	a := &AuthorityKeyID{}
	in := der.Input(value)
	content, ok := in.Read(der.Sequence)
	if !ok {
		return nil, false
	}
	id, present, ok := content.Optional(der.Context(0))
	if ok && present {
		a.keyID = append([]byte{}, id...)
	}
	names, _, ok2 := content.Optional(der.Explicit(1))
	issuer, ok3 := parseGeneralNames(names)
	for _, g := range issuer {
		if g.Kind == DirectoryName && !a.named {
			a.issuer, a.named = g.Name, true
		}
	}
	serial, present, ok4 := content.Optional(der.Context(2))
	if present {
		a.serial = serial
	}
	return a, ok && ok2 && ok3 && ok4 && content.Empty() && (!present || der.ValidInteger(serial))
}

func (c *Certificate) parseAltNames(in der.Input) bool {
	content, ok := in.Read(der.Sequence)
	if !ok {
		return false
	}
	c.ext.altNames, ok = parseGeneralNames(content)
	return ok
}

// derive finds what follows from several fields.
func (c *Certificate) derive() {
	if len(c.Extensions) == 0 {
		c.ext.pathLen = -1
	}
	c.ext.selfIssued = c.Subject.Equal(c.Issuer)
	c.ext.selfSigned = c.ext.selfIssued && c.MatchesAuthority(c.ext.authority) == nil &&
		c.Key.CanCheck(c.Algorithm) && c.ext.malformed == ""
}

// KeyID returns the subject key identifier, nil if there is none.
func (c *Certificate) KeyID() []byte { return c.ext.keyID }

// AuthorityKeyID returns the key identifier of the issuer that the certificate
// names, nil if it names none.
func (c *Certificate) AuthorityKeyID() []byte {
	if c.ext.authority == nil {
		return nil
	}
	return c.ext.authority.keyID
}

// AltNames returns the alternative names of the subject.
func (c *Certificate) AltNames() []GeneralName { return c.ext.altNames }

// IsCA reports what basicConstraints says, which decides what of a list's scope
// a certificate belongs to (crl_crldp_check in crypto/x509/x509_vfy.c).
func (c *Certificate) IsCA() bool { return c.ext.ca }

// MaySignLists reports whether keyUsage, if there is one, has cRLSign.
func (c *Certificate) MaySignLists() bool { return !c.rejects(keyCRLSign) }

// SelfSigned reports whether the certificate is a root: subject and issuer are
// the same, and neither key identifiers nor algorithms say otherwise. The
// signature itself is not checked (EXFLAG_SS in crypto/x509/v3_purp.c).
func (c *Certificate) SelfSigned() bool { return c.ext.selfSigned }
