package certs

import (
	"pgwicket/internal/der"
)

// AllReasons are the reasons of a distribution point that names none
// (CRLDP_ALL_REASONS in OpenSSL): bits 0 to 8 of RFC 5280 section 4.2.1.13, the
// first in the highest bit of the low byte.
const AllReasons = 0x807f

// DistributionPoint is one of a certificate's CRL distribution points.
type DistributionPoint struct {
	Name    DistributionPointName
	Reasons uint16        // AllReasons where the point names none
	Issuer  []GeneralName // of an indirect list
}

// DistributionPointName is the name of a distribution point, in a certificate or
// in the issuing distribution point of a list. The zero value is none.
type DistributionPointName struct {
	Full     []GeneralName
	Relative Name // canonical encoding only; empty: there is none

	fragment string
	present  bool
}

// Present reports whether there is a name at all, which may be an empty list.
func (n DistributionPointName) Present() bool { return n.present }

// Matches is idp_check_dp of crypto/x509/x509_vfy.c: a point and a list belong
// together if one of their names is the same, and if one of them has none.
func (n DistributionPointName) Matches(other DistributionPointName) bool {
	if !n.present || !other.present {
		return true
	}
	for key := range n.keys() {
		if _, same := other.keys()[key]; same {
			return true
		}
	}
	return false
}

func (n DistributionPointName) keys() map[string]struct{} {
	keys := make(map[string]struct{}, len(n.Full)+1)
	for _, g := range n.Full {
		keys[g.Key()] = struct{}{}
	}
	if n.fragment != "" && n.Relative.canonical != "" {
		keys[GeneralName{Kind: DirectoryName, Name: n.Relative}.Key()] = struct{}{}
	}
	return keys
}

// Below completes a name that is relative to the issuer of a list.
func (n DistributionPointName) Below(issuer Name) DistributionPointName {
	if n.fragment != "" {
		n.Relative = Name{canonical: issuer.canonical + n.fragment}
	}
	return n
}

// ParseDistributionPointName reads the DER of a DistributionPointName with
// nothing behind it: what the explicit tag [0] holds in both extensions.
func ParseDistributionPointName(raw []byte) (n DistributionPointName, ok bool) {
	if !validDistributionPointName(raw) {
		return n, false
	}
	in := der.Input(raw)
	e, _ := in.Next()
	n.present = true
	if e.ID == der.Explicit(0) {
		n.Full, _ = parseGeneralNames(e.Content)
		return n, true
	}
	rdn, _ := appendRDN(nil, e.Content)
	fragment, _ := appendCanonical(nil, rdn)
	n.fragment = string(fragment)
	return n, true
}

func validDistributionPointName(in der.Input) bool {
	e, ok := in.Next()
	if !ok || !in.Empty() {
		return false
	}
	switch e.ID {
	case der.Explicit(0):
		_, ok = generalNames(e.Content).count()
		return ok
	case der.Explicit(1):
		rdn, ok := appendRDN(nil, e.Content)
		if ok {
			_, ok = appendCanonical(nil, rdn)
		}
		return ok
	}
	return false
}

// rawPoint is the content of a distribution point.
type rawPoint struct {
	name    der.Input // nil: none
	reasons uint16
	issuer  der.Input
}

// nextPoint takes a distribution point.
func nextPoint(points *der.Input) (p rawPoint, ok bool) {
	in, ok := points.Read(der.Sequence)
	if !ok {
		return p, false
	}
	p.reasons = AllReasons
	name, present, ok := in.Optional(der.Explicit(0))
	if !ok || present && !validDistributionPointName(name) {
		return p, false
	}
	p.name = name
	reasons, present, ok := in.Optional(der.Context(1))
	if ok && present {
		var bits []byte
		bits, _, ok = der.Bits(reasons)
		p.reasons = lowBits(bits) & AllReasons
	}
	if !ok {
		return p, false
	}
	if p.issuer, _, ok = in.Optional(der.Explicit(2)); !ok || !in.Empty() {
		return p, false
	}
	issuers, ok := generalNames(p.issuer).count()
	return p, ok && (p.name != nil || issuers > 0)
}

// parseDistributionPoints is setup_crldp of crypto/x509/v3_purp.c.
func (c *Certificate) parseDistributionPoints(in der.Input) bool {
	points, ok := in.Read(der.Sequence)
	c.ext.points.raw = points
	for ok && !points.Empty() {
		_, ok = nextPoint(&points)
	}
	return ok
}

// DistributionPoints returns the CRL distribution points.
func (c *Certificate) DistributionPoints() []DistributionPoint {
	return c.ext.points.get(func(in der.Input) (list []DistributionPoint) {
		for !in.Empty() {
			raw, ok := nextPoint(&in)
			if !ok {
				break
			}
			list = append(list, c.distributionPoint(raw))
		}
		return list
	})
}

func (c *Certificate) distributionPoint(raw rawPoint) DistributionPoint {
	p := DistributionPoint{Reasons: raw.reasons}
	if raw.name != nil {
		p.Name, _ = ParseDistributionPointName(raw.name)
	}
	p.Issuer, _ = parseGeneralNames(raw.issuer)
	above := c.Issuer
	for _, g := range p.Issuer {
		if g.Kind == DirectoryName {
			above = g.Name
			break
		}
	}
	p.Name = p.Name.Below(above)
	return p
}

// lowBits reads the first two bytes of a bit string as OpenSSL keeps them.
func lowBits(bits []byte) (v uint16) {
	if len(bits) > 0 {
		v = uint16(bits[0])
	}
	if len(bits) > 1 {
		v |= uint16(bits[1]) << 8
	}
	return v
}
