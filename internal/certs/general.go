package certs

import (
	"fmt"
	"net/netip"

	"pgwicket/internal/der"
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

	oid []byte // of an OtherName
	id  byte   // the type of an OtherName's value
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
		return der.OID(g.Value).String()
	case OtherName:
		return fmt.Sprintf("%v:%X", der.OID(g.oid), g.Value)
	}
	return fmt.Sprintf("%X", g.Value)
}

// parseGeneralName reads a name of which validGeneralName says that it can be read.
func parseGeneralName(e der.Element) GeneralName {
	g := GeneralName{Kind: NameKind(e.ID & 0x1f), Value: e.Content}
	in := der.Input(e.Content)
	switch g.Kind {
	case OtherName:
		var value der.Element
		g.oid, value, _ = readOther(in)
		g.id, g.Value = value.ID, value.Content
	case DirectoryName:
		name, _ := in.Next()
		g.Value = name.Full
		g.Name, _ = parseName(name)
	}
	return g
}

// validGeneralName is the template GENERAL_NAME of crypto/x509/v3_genn.c.
func validGeneralName(e der.Element) bool {
	in := der.Input(e.Content)
	switch e.ID {
	case der.Context(byte(Email)), der.Context(byte(DNS)), der.Context(byte(URI)), der.Context(byte(IPAddress)), der.Explicit(byte(X400Address)):
		return true
	case der.Explicit(byte(OtherName)):
		_, _, ok := readOther(in)
		return ok
	case der.Explicit(byte(DirectoryName)):
		name, ok := in.Next()
		return ok && in.Empty() && validName(name)
	case der.Explicit(byte(EDIPartyName)):
		return validEDIParty(in)
	case der.Context(byte(RegisteredID)):
		return der.ValidOID(e.Content)
	}
	return false
}

func readOther(in der.Input) (oid []byte, value der.Element, ok bool) {
	if oid, ok = in.ReadOID(); !ok {
		return nil, value, false
	}
	wrapped, ok := in.Read(der.Explicit(0))
	if !ok || !in.Empty() {
		return nil, value, false
	}
	value, ok = wrapped.Next()
	return oid, value, ok && wrapped.Empty() && der.ValidAny(value)
}

func validEDIParty(in der.Input) bool {
	if assigner, present, ok := in.Optional(der.Explicit(0)); !ok || present && !validDirectoryString(assigner) {
		return false
	}
	party, ok := in.Read(der.Explicit(1))
	return ok && in.Empty() && validDirectoryString(party)
}

func validDirectoryString(in der.Input) bool {
	e, ok := in.Next()
	if !ok || !in.Empty() || !der.ValidAny(e) {
		return false
	}
	switch e.ID {
	case der.PrintableString, der.T61String, der.BMPString, der.UniversalString, der.UTF8String:
		return true
	}
	return false
}

// generalNames are the content of a GeneralNames. A stranger's certificate may have
// thousands of names, so they are read one by one when they are asked for.
type generalNames der.Input

// next takes a name. All of them can be read: see count.
func (n *generalNames) next() GeneralName {
	e, ok := (*der.Input)(n).Next()
	if !ok {
		*n = nil
	}
	return parseGeneralName(e)
}

// count returns how many names there are, and whether all can be read.
func (n generalNames) count() (count int, ok bool) {
	for in := der.Input(n); !in.Empty(); count++ {
		if e, ok := in.Next(); !ok || !validGeneralName(e) {
			return count, false
		}
	}
	return count, true
}

// parseGeneralNames reads the content of a GeneralNames.
func parseGeneralNames(in der.Input) (names []GeneralName, ok bool) {
	rest := generalNames(in)
	count, ok := rest.count()
	if !ok {
		return nil, false
	}
	names = make([]GeneralName, count)
	for i := range names {
		names[i] = rest.next()
	}
	return names, true
}
