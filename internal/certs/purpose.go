package certs

import (
	"fmt"
	"strings"

	"pgwicket/internal/der"
)

// Purpose is what a leaf certificate is shown for.
type Purpose int

// The purposes: OpenSSL's sslclient and sslserver.
const (
	Client Purpose = iota
	Server
)

// String returns "client" or "server".
func (p Purpose) String() string {
	if p == Server {
		return "server"
	}
	return "client"
}

// Uses of extendedKeyUsage.
const (
	oidServerAuth der.OID = "\x2b\x06\x01\x05\x05\x07\x03\x01"
	oidClientAuth der.OID = "\x2b\x06\x01\x05\x05\x07\x03\x02"
	oidMSSGC      der.OID = "\x2b\x06\x01\x04\x01\x82\x37\x0a\x03\x03"
	oidNSSGC      der.OID = "\x60\x86\x48\x01\x86\xf8\x42\x04\x01"
)

var usageNames = map[der.OID]string{
	oidServerAuth: "serverAuth", oidClientAuth: "clientAuth", oidAnyUsage: "anyExtendedKeyUsage",
	"\x2b\x06\x01\x05\x05\x07\x03\x03":         "codeSigning",
	"\x2b\x06\x01\x05\x05\x07\x03\x04":         "emailProtection",
	"\x2b\x06\x01\x05\x05\x07\x03\x08":         "timeStamping",
	"\x2b\x06\x01\x05\x05\x07\x03\x09":         "OCSPSigning",
	"\x2b\x06\x01\x04\x01\x82\x37\x14\x02\x02": "msSmartcardLogin",
}

func (p Purpose) usage() der.OID {
	if p == Server {
		return oidServerAuth
	}
	return oidClientAuth
}

// rejects is ku_reject: there is a keyUsage and it has none of these bits.
func (c *Certificate) rejects(usage uint16) bool {
	return c.ext.hasKeyUsage && c.ext.keyUsage&usage == 0
}

// caKind is what check_ca in crypto/x509/v3_purp.c says of a certificate.
type caKind int

const (
	notCA       caKind = iota
	declaredCA         // by basicConstraints
	toleratedCA        // without: a v1 root, or by keyUsage
	netscapeCA         // without: by nsCertType
)

func (c *Certificate) caKind() caKind {
	x := &c.ext
	switch {
	case x.malformed != "" || c.rejects(keyCertSign):
		return notCA
	case x.basic && x.ca:
		return declaredCA
	case x.basic:
		return notCA
	case c.Version == 1 && x.selfSigned, x.hasKeyUsage:
		return toleratedCA
	case x.hasNSCertType && x.nsCertType&nsAnyCA != 0:
		return netscapeCA
	}
	return notCA
}

// wrongPurpose is check_purpose_ssl_client and check_purpose_ssl_server in
// crypto/x509/v3_purp.c. It returns what forbids the purpose, and "" if nothing
// does.
func (c *Certificate) wrongPurpose(p Purpose, asCA bool) (problem, rule string) {
	if c.ext.hasExtKeyUsage && !c.allowsUsage(p) {
		return fmt.Sprintf("has an extendedKeyUsage without %s: it has %s", usageNames[p.usage()], c.usages()), "RFC 5280 section 4.2.1.12"
	}
	if asCA {
		// Every other kind of CA was looked at before.
		if c.caKind() == netscapeCA && c.ext.nsCertType&nsSSLCA == 0 {
			return "has an nsCertType without sslCA", "check_ssl_ca in OpenSSL's crypto/x509/v3_purp.c"
		}
		return "", ""
	}
	usage, names, nsType := uint16(digitalSignature|keyAgreement), "neither digitalSignature nor keyAgreement", byte(nsSSLClient)
	if p == Server {
		usage |= keyEncipherment
		names, nsType = "none of digitalSignature, keyEncipherment and keyAgreement", nsSSLServer
	}
	switch {
	case c.rejects(usage):
		return "has a keyUsage with " + names, "RFC 5280 section 4.2.1.3"
	case c.ext.hasNSCertType && c.ext.nsCertType&nsType == 0:
		return fmt.Sprintf("has an nsCertType without %s", p), "check_purpose_ssl_" + p.String() + " in OpenSSL's crypto/x509/v3_purp.c"
	}
	return "", ""
}

func (c *Certificate) allowsUsage(p Purpose) bool {
	for rest := c.ext.extKeyUsage; !rest.Empty(); {
		id, _ := rest.ReadOID() // parseExtKeyUsage has read them all
		if o := der.OID(id); o == p.usage() || p == Server && (o == oidMSSGC || o == oidNSSGC) {
			return true
		}
	}
	return false
}

// usages lists the extendedKeyUsage for a message.
func (c *Certificate) usages() string {
	if c.ext.extKeyUsage.Empty() {
		return "none at all"
	}
	var names strings.Builder
	for rest := c.ext.extKeyUsage; !rest.Empty() && names.Len() <= clipped; {
		id, _ := rest.ReadOID()
		name, ok := usageNames[der.OID(id)]
		if !ok {
			name = der.OID(id).String()
		}
		if names.Len() > 0 {
			names.WriteString(", ")
		}
		names.WriteString(name)
	}
	return clip(names.String())
}
