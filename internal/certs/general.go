package certs

import (
	"fmt"
	"net/netip"
)

// NameKind is the kind of a GeneralName; the values are the tags of RFC 5280
// section 4.2.1.6.
type NameKind int

// The kinds.
const (
	OtherName NameKind = iota
	Email
	DNS
	X400Address
	DirectoryName
	EDIPartyName
	URI
	IPAddress
	RegisteredID
)

var kindNames = [...]string{"otherName", "rfc822Name", "dNSName", "x400Address", "directoryName", "ediPartyName", "uniformResourceIdentifier", "iPAddress", "registeredID"}

// String returns the name of the kind in RFC 5280.
func (k NameKind) String() string { return kindNames[k] }

// GeneralName is one name of an alternative name, a constraint or a
// distribution point.
type GeneralName struct {
	Kind  NameKind
	Value []byte // content; of an OtherName the whole value, of a DirectoryName its DER
	Name  Name   // of a DirectoryName

	oid oid  // of an OtherName
	id  byte // the type of an OtherName's value
}

// Key returns a text that is equal for equal names, as OpenSSL's
// GENERAL_NAME_cmp compares them.
func (g GeneralName) Key() string {
	if g.Kind == DirectoryName {
		return string(rune(g.Kind)) + g.Name.canonical
	}
	return string(rune(g.Kind)) + string(g.oid) + string(rune(g.id)) + string(g.Value)
}

// String writes the name for a message. It may hold any bytes: quote it.
func (g GeneralName) String() string {
	switch g.Kind {
	case Email, DNS, URI:
		return string(g.Value)
	case DirectoryName:
		return g.Name.String()
	case IPAddress:
		if ip, ok := netip.AddrFromSlice(g.Value); ok {
			return ip.String()
		}
		if half := len(g.Value) / 2; len(g.Value)%2 == 0 {
			ip, ok := netip.AddrFromSlice(g.Value[:half])
			mask, ok2 := netip.AddrFromSlice(g.Value[half:])
			if ok && ok2 {
				return ip.String() + "/" + mask.String()
			}
		}
	case RegisteredID:
		return oid(g.Value).String()
	case OtherName:
		return fmt.Sprintf("%v:%X", g.oid, g.Value)
	}
	return fmt.Sprintf("%X", g.Value)
}

// parseGeneralName is the template GENERAL_NAME of crypto/x509/v3_genn.c.
func parseGeneralName(e element) (g GeneralName, ok bool) {
	if e.id&0xc0 != 0x80 || e.id&0x1f > byte(RegisteredID) {
		return g, false
	}
	g.Kind, g.Value = NameKind(e.id&0x1f), e.content
	in := input(e.content)
	switch g.Kind {
	case OtherName:
		ok = e.id == explicit(0) && g.parseOther(in)
	case Email, DNS, URI, IPAddress:
		ok = e.id == context(byte(g.Kind))
	case X400Address:
		ok = e.id == explicit(3)
	case DirectoryName:
		var name element
		if name, ok = in.next(); ok && in.empty() && e.id == explicit(4) {
			g.Value = name.full
			g.Name, ok = parseName(name)
		} else {
			ok = false
		}
	case EDIPartyName:
		ok = e.id == explicit(5) && validEDIParty(in)
	case RegisteredID:
		ok = e.id == context(8) && validOID(e.content)
	}
	return g, ok
}

func (g *GeneralName) parseOther(in input) (ok bool) {
	if g.oid, ok = in.readOID(); !ok {
		return false
	}
	wrapped, ok := in.read(explicit(0))
	if !ok || !in.empty() {
		return false
	}
	value, ok := wrapped.next()
	g.id, g.Value = value.id, value.content
	return ok && wrapped.empty() && validAny(value)
}

func validEDIParty(in input) bool {
	if assigner, present, ok := in.optional(explicit(0)); !ok || present && !validDirectoryString(assigner) {
		return false
	}
	party, ok := in.read(explicit(1))
	return ok && in.empty() && validDirectoryString(party)
}

func validDirectoryString(in input) bool {
	e, ok := in.next()
	if !ok || !in.empty() || !validAny(e) {
		return false
	}
	switch e.id {
	case idPrintable, idT61, idBMP, idUniversal, idUTF8:
		return true
	}
	return false
}

// parseGeneralNames reads the content of a GeneralNames.
func parseGeneralNames(in input) (names []GeneralName, ok bool) {
	for !in.empty() {
		e, ok := in.next()
		if !ok {
			return nil, false
		}
		g, ok := parseGeneralName(e)
		if !ok {
			return nil, false
		}
		names = append(names, g)
	}
	return names, true
}
