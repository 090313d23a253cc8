package certs

import (
	"bytes"

	"pgwicket/internal/der"
)

// nameConstraints are those of one CA certificate (RFC 5280 section 4.2.1.10).
type nameConstraints struct {
	permitted, excluded []subtree
}

// subtree is a GeneralSubtree.
type subtree struct {
	base    GeneralName
	bounded bool // by a minimum other than 0 or by a maximum
}

// parseNameConstraints is the template NAME_CONSTRAINTS of crypto/x509/v3_ncons.c.
func (c *Certificate) parseNameConstraints(in der.Input) bool {
	content, ok := in.Read(der.Sequence)
	if !ok {
		return false
	}
	c.ext.constraints.raw = content
	permitted, excluded, ok := readConstraints(content)
	return ok && validSubtrees(permitted) && validSubtrees(excluded)
}

func readConstraints(in der.Input) (permitted, excluded der.Input, ok bool) {
	permitted, _, ok = in.Optional(der.Explicit(0))
	if ok {
		excluded, _, ok = in.Optional(der.Explicit(1))
	}
	return permitted, excluded, ok && in.Empty()
}

// nameConstraints returns those of the certificate, nil if it has none.
func (c *Certificate) nameConstraints() *nameConstraints {
	if c.ext.constraints.raw == nil {
		return nil
	}
	return c.ext.constraints.get(func(in der.Input) *nameConstraints {
		permitted, excluded, _ := readConstraints(in) // parseNameConstraints has read them
		return &nameConstraints{subtrees(permitted), subtrees(excluded)}
	})
}

func validSubtrees(in der.Input) (ok bool) {
	for ok = true; ok && !in.Empty(); {
		_, _, ok = nextSubtree(&in)
	}
	return ok
}

func subtrees(in der.Input) (list []subtree) {
	for !in.Empty() {
		base, bounded, ok := nextSubtree(&in)
		if !ok {
			break
		}
		list = append(list, subtree{parseGeneralName(base), bounded})
	}
	return list
}

func nextSubtree(in *der.Input) (base der.Element, bounded, ok bool) {
	content, ok := in.Read(der.Sequence)
	if !ok {
		return base, false, false
	}
	base, ok = content.Next()
	if !ok || !validGeneralName(base) {
		return base, false, false
	}
	minimum, hasMinimum, ok := content.Optional(der.Context(0))
	if !ok || hasMinimum && !der.ValidInteger(minimum) {
		return base, false, false
	}
	maximum, hasMaximum, ok := content.Optional(der.Context(1))
	if !ok || hasMaximum && !der.ValidInteger(maximum) || !content.Empty() {
		return base, false, false
	}
	return base, hasMaximum || hasMinimum && (len(minimum) > 1 || minimum[0] != 0), true
}

// violation is a verdict of name constraints: the errors of OpenSSL.
type violation int

const (
	noViolation violation = iota
	notPermitted
	isExcluded
	boundedSubtree
	unsupportedConstraint
	unsupportedName
	tooManyNames
)

var violationTexts = map[violation]string{
	notPermitted:          "which the nameConstraints of %s do not permit",
	isExcluded:            "which the nameConstraints of %s exclude",
	boundedSubtree:        "and the nameConstraints of %s have a minimum or maximum for it, which is not supported",
	unsupportedConstraint: "and the nameConstraints of %s have a rule for it that is not supported",
	unsupportedName:       "which cannot be held against the nameConstraints of %s",
	tooManyNames:          "and too many others to be held against the nameConstraints of %s",
}

// nameCheckMax is NAME_CHECK_MAX: names times constraints.
const nameCheckMax = 1 << 20

// check is NAME_CONSTRAINTS_check, and for a leaf without a DNS name among its
// alternative names NAME_CONSTRAINTS_check_CN as well. It returns the name that
// is at fault.
func (nc *nameConstraints) check(c *Certificate, leaf bool) (violation, GeneralName) {
	subject := GeneralName{Kind: DirectoryName, Name: c.Subject}
	attributes := c.Subject.attributes()
	altNames, _ := c.ext.altNames.count()
	names := len(attributes) + altNames
	if names > 0 && len(nc.permitted)+len(nc.excluded) > nameCheckMax/names {
		return tooManyNames, subject
	}
	if len(attributes) > 0 {
		if v := nc.match(subject); v != noViolation {
			return v, subject
		}
	}
	for _, a := range attributes {
		if der.OID(a.oid) != oidEmailAddress {
			continue
		}
		email := GeneralName{Kind: Email, Value: a.value}
		if a.id != der.IA5String {
			return unsupportedName, email
		}
		if v := nc.match(email); v != noViolation {
			return v, email
		}
	}
	hasDNS := false
	for rest := c.ext.altNames; len(rest) > 0; {
		g := rest.next()
		hasDNS = hasDNS || g.Kind == DNS
		if v := nc.match(g); v != noViolation {
			return v, g
		}
	}
	if leaf && !hasDNS {
		return nc.checkCommonNames(attributes)
	}
	return noViolation, GeneralName{}
}

// checkCommonNames is NAME_CONSTRAINTS_check_CN.
func (nc *nameConstraints) checkCommonNames(attributes []attribute) (violation, GeneralName) {
	for _, a := range attributes {
		if der.OID(a.oid) != oidCommonName {
			continue
		}
		host := GeneralName{Kind: DNS, Value: a.value}
		value, ok := toUTF8(a.id, a.value)
		if !ok {
			return unsupportedName, host
		}
		value = bytes.TrimRight(value, "\x00")
		if bytes.IndexByte(value, 0) >= 0 {
			return unsupportedName, host
		}
		if !looksLikeHost(value) {
			continue
		}
		host.Value = value
		if v := nc.match(host); v != noViolation {
			return v, host
		}
	}
	return noViolation, GeneralName{}
}

// looksLikeHost is cn2dnsid: at least two labels of letters, digits, hyphens
// and underscores.
func looksLikeHost(s []byte) bool {
	dotted := false
	for i, c := range s {
		switch inside := i > 0 && i < len(s)-1; {
		case 'a' <= lower(c) && lower(c) <= 'z', '0' <= c && c <= '9', c == '_':
		case inside && c == '-':
		case inside && c == '.' && s[i+1] != '.' && s[i-1] != '-' && s[i+1] != '-':
			dotted = true
		default:
			return false
		}
	}
	return dotted
}

// match is nc_match.
func (nc *nameConstraints) match(g GeneralName) violation {
	kind := g.Kind
	if kind == OtherName && der.OID(g.oid) == oidSMTPUTF8Mailbox {
		kind = Email // RFC 8398 section 6
	}
	concerns := func(s subtree) bool {
		return s.base.Kind == kind && (kind != OtherName || bytes.Equal(s.base.oid, g.oid))
	}
	restricted, within := false, false
	for _, s := range nc.permitted {
		if !concerns(s) {
			continue
		}
		if s.bounded {
			return boundedSubtree
		}
		if within {
			continue
		}
		restricted = true
		switch v := matchOne(kind, g, s.base); v {
		case noViolation:
			within = true
		case notPermitted:
		default:
			return v
		}
	}
	if restricted && !within {
		return notPermitted
	}
	for _, s := range nc.excluded {
		if !concerns(s) {
			continue
		}
		if s.bounded {
			return boundedSubtree
		}
		switch v := matchOne(kind, g, s.base); v {
		case noViolation:
			return isExcluded
		case notPermitted:
		default:
			return v
		}
	}
	return noViolation
}
