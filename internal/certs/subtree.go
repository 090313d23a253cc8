package certs

import (
	"bytes"
	"strings"

	"pgwicket/internal/der"
)

// matchOne is nc_match_single in crypto/x509/v3_ncons.c: whether a name lies in
// a subtree of its kind. notPermitted means that it does not.
func matchOne(kind NameKind, g, base GeneralName) violation {
	switch g.Kind {
	case OtherName:
		if kind == Email {
			return matchMailbox(g, base.Value)
		}
	case DirectoryName:
		return within(strings.HasPrefix(g.Name.canonical, base.Name.canonical))
	case DNS:
		return matchDNS(g.Value, base.Value)
	case Email:
		return matchEmail(g.Value, base.Value)
	case URI:
		return matchURI(g.Value, base.Value)
	case IPAddress:
		return matchIP(g.Value, base.Value)
	}
	return unsupportedConstraint
}

func within(yes bool) violation {
	if yes {
		return noViolation
	}
	return notPermitted
}

// equalFold compares as ia5ncasecmp does.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func hasSuffixFold(s, suffix []byte) bool {
	return len(s) >= len(suffix) && equalFold(s[len(s)-len(suffix):], suffix)
}

// matchDNS is nc_dns: labels may be added on the left.
func matchDNS(dns, base []byte) violation {
	if len(base) == 0 {
		return noViolation
	}
	if longer := len(dns) - len(base); longer > 0 && base[0] != '.' && dns[longer-1] != '.' {
		return notPermitted
	}
	return within(hasSuffixFold(dns, base))
}

// matchEmail is nc_email: a mailbox, all of a host, or with a dot in front all
// below a domain.
func matchEmail(email, base []byte) violation {
	at := bytes.LastIndexByte(email, '@')
	if at < 0 {
		return unsupportedName
	}
	baseAt := bytes.LastIndexByte(base, '@')
	if baseAt < 0 && len(base) > 0 && base[0] == '.' {
		return within(len(email) > len(base) && hasSuffixFold(email, base))
	}
	if baseAt > 0 {
		if baseAt != at {
			return notPermitted
		}
		if bytes.IndexByte(base[:at], 0) >= 0 || bytes.IndexByte(email[:at], 0) >= 0 {
			return unsupportedName
		}
		if !bytes.Equal(base[:at], email[:at]) {
			return notPermitted
		}
	}
	return within(equalFold(base[baseAt+1:], email[at+1:]))
}

// matchMailbox is nc_email_eai for hosts without A-labels (RFC 8398 section 6).
// A host with one is refused, for which OpenSSL would decode Punycode, and a
// domain with a dot in front, which OpenSSL 3.0 never finds anything in.
func matchMailbox(g GeneralName, base []byte) violation {
	at := bytes.LastIndexByte(g.Value, '@')
	switch {
	case g.id != der.UTF8String || at < 0 || bytes.IndexByte(base, 0) >= 0:
		return unsupportedName
	case !isASCII(base) || bytes.Contains(bytes.ToLower(base), []byte("xn--")) || len(base) > 250,
		len(base) > 0 && base[0] == '.':
		return unsupportedConstraint
	}
	return within(equalFold(base, g.Value[at+1:]))
}

// matchURI is nc_uri: the host, or with a dot in front a host below a domain.
func matchURI(uri, base []byte) violation {
	colon := bytes.IndexByte(uri, ':')
	if colon < 0 || len(uri)-colon < 3 || uri[colon+1] != '/' || uri[colon+2] != '/' {
		return unsupportedName
	}
	host := uri[colon+3:]
	if end := bytes.IndexByte(host, ':'); end >= 0 {
		host = host[:end]
	} else if end := bytes.IndexByte(host, '/'); end >= 0 {
		host = host[:end]
	}
	switch {
	case len(host) == 0:
		return unsupportedName
	case len(base) > 0 && base[0] == '.':
		return within(len(host) > len(base) && hasSuffixFold(host, base))
	}
	return within(equalFold(host, base))
}

// matchIP is nc_ip: an address and a mask.
func matchIP(ip, base []byte) violation {
	if len(ip) != 4 && len(ip) != 16 || len(base) != 8 && len(base) != 32 {
		return unsupportedName
	}
	if len(base) != 2*len(ip) {
		return notPermitted
	}
	mask := base[len(ip):]
	for i := range ip {
		if ip[i]&mask[i] != base[i]&mask[i] {
			return notPermitted
		}
	}
	return noViolation
}
