package certs

import (
	"sync/atomic"

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
	extKeyUsage    der.Input // OIDs
	hasNSCertType  bool
	nsCertType     byte
	proxy          bool
	keyID          []byte // nil: none
	authority      *AuthorityKeyID
	altNames       generalNames
	points         lazy[[]DistributionPoint]
	constraints    lazy[*nameConstraints]
	unknown        der.OID // a critical extension that is not supported
	malformed      string  // why the certificate cannot be used
	selfIssued     bool    // subject and issuer are the same
	selfSigned     bool    // and the certificate does not say that another key signed
}

// lazy is read when it is first asked for. Of the certificates that strangers send
// most is never asked for, and it would take many times its space in DER.
type lazy[T any] struct {
	raw   der.Input // the content, which can be read; nil: the extension is missing
	value atomic.Pointer[T]
}

func (l *lazy[T]) get(read func(der.Input) T) T {
	if known := l.value.Load(); known != nil {
		return *known
	}
	v := read(l.raw)
	l.value.Store(&v)
	return v
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

// extensionKind is an extension that is known. parse reads those that decide about a
// chain. A certificate for which it returns false is refused, and so is one with two
// extensions of a kind; nil: what is in it does not matter.
type extensionKind struct {
	parse         func(*Certificate, der.Input) bool
	bit           extensionSet // of those with parse
	mayBeCritical bool         // by the table of X509_supported_extension in crypto/x509/v3_purp.c
}

// extensionSet has a bit for each kind of extension that is parsed.
type extensionSet uint16

var knownExtensions = map[der.OID]extensionKind{
	oidBasicConstraints:   {(*Certificate).parseBasicConstraints, 1 << 0, true},
	oidKeyUsage:           {(*Certificate).parseKeyUsage, 1 << 1, true},
	oidExtendedKeyUsage:   {(*Certificate).parseExtKeyUsage, 1 << 2, true},
	oidNSCertType:         {(*Certificate).parseNSCertType, 1 << 3, true},
	oidSubjectKeyID:       {(*Certificate).parseSubjectKeyID, 1 << 4, false},
	oidAuthorityKeyID:     {(*Certificate).parseAuthorityKeyID, 1 << 5, false},
	oidSubjectAltName:     {(*Certificate).parseAltNames, 1 << 6, true},
	oidNameConstraints:    {(*Certificate).parseNameConstraints, 1 << 7, true},
	oidDistributionPoints: {(*Certificate).parseDistributionPoints, 1 << 8, true},
	oidProxyCertInfo:      {(*Certificate).parseProxyCertInfo, 1 << 9, true},
	oidIPAddrBlocks:       {(*Certificate).parseResources, 0, true},
	oidASNumbers:          {(*Certificate).parseResources, 0, true},
	oidPolicies:           {mayBeCritical: true},
	oidPolicyConstraints:  {mayBeCritical: true},
	oidPolicyMappings:     {mayBeCritical: true},
	oidInhibitAnyPolicy:   {mayBeCritical: true},
	oidOCSPNoCheck:        {mayBeCritical: true},
}

// parseExtensions reads the list. It fails where OpenSSL would not read the
// certificate; what is wrong inside of an extension is only noted.
func (c *Certificate) parseExtensions(list der.Input) bool {
	c.ext.pathLen = -1
	var seen extensionSet
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
		c.Extensions++
		kind := knownExtensions[der.OID(name)]
		switch {
		case kind.parse == nil:
		case seen&kind.bit != 0:
			c.malformed("has two of the extension " + extensionName(der.OID(name)))
		case !kind.parse(c, value):
			c.malformed("has an extension " + extensionName(der.OID(name)) + " that is malformed")
		}
		seen |= kind.bit
		if present && critical[0] != 0 && !kind.mayBeCritical && c.ext.unknown == "" {
			c.ext.unknown = der.OID(name)
		}
	}
	return true
}

func (c *Certificate) parseProxyCertInfo(der.Input) bool {
	c.ext.proxy = true
	return true
}

// parseResources refuses the extensions of RFC 3779.
func (c *Certificate) parseResources(der.Input) bool {
	c.malformed("has an extension of RFC 3779, which is not supported")
	return true
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
	c.ext.hasExtKeyUsage, c.ext.extKeyUsage = true, content
	for rest := content; ok && !rest.Empty(); {
		_, ok = rest.ReadOID()
	}
	return ok
}

func (c *Certificate) parseSubjectKeyID(in der.Input) bool {
	id, ok := in.Read(der.OctetString)
	c.ext.keyID = id
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
		a.keyID = id
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
	c.ext.altNames = generalNames(content)
	_, ok = c.ext.altNames.count()
	return ok
}

// derive finds what follows from several fields.
func (c *Certificate) derive() {
	if c.Extensions == 0 {
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
func (c *Certificate) AltNames() []GeneralName {
	names, _ := parseGeneralNames(der.Input(c.ext.altNames))
	return names
}

// IsCA reports what basicConstraints says, which decides what of a list's scope
// a certificate belongs to (crl_crldp_check in crypto/x509/x509_vfy.c).
func (c *Certificate) IsCA() bool { return c.ext.ca }

// MaySignLists reports whether keyUsage, if there is one, has cRLSign.
func (c *Certificate) MaySignLists() bool { return !c.rejects(keyCRLSign) }

// SelfSigned reports whether the certificate is a root: subject and issuer are
// the same, and neither key identifiers nor algorithms say otherwise. The
// signature itself is not checked (EXFLAG_SS in crypto/x509/v3_purp.c).
func (c *Certificate) SelfSigned() bool { return c.ext.selfSigned }
