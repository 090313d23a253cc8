package certs

import (
	"fmt"
	"strconv"
	"strings"
)

// oid is an object identifier as the bytes of its encoding.
type oid string

// The extensions that are looked at.
const (
	oidSubjectKeyID       oid = "\x55\x1d\x0e"
	oidKeyUsage           oid = "\x55\x1d\x0f"
	oidSubjectAltName     oid = "\x55\x1d\x11"
	oidBasicConstraints   oid = "\x55\x1d\x13"
	oidNameConstraints    oid = "\x55\x1d\x1e"
	oidDistributionPoints oid = "\x55\x1d\x1f"
	oidPolicies           oid = "\x55\x1d\x20"
	oidPolicyMappings     oid = "\x55\x1d\x21"
	oidAuthorityKeyID     oid = "\x55\x1d\x23"
	oidPolicyConstraints  oid = "\x55\x1d\x24"
	oidExtendedKeyUsage   oid = "\x55\x1d\x25"
	oidInhibitAnyPolicy   oid = "\x55\x1d\x36"
	oidIPAddrBlocks       oid = "\x2b\x06\x01\x05\x05\x07\x01\x07"
	oidASNumbers          oid = "\x2b\x06\x01\x05\x05\x07\x01\x08"
	oidProxyCertInfo      oid = "\x2b\x06\x01\x05\x05\x07\x01\x0e"
	oidOCSPNoCheck        oid = "\x2b\x06\x01\x05\x05\x07\x30\x01\x05"
	oidNSCertType         oid = "\x60\x86\x48\x01\x86\xf8\x42\x01\x01"
)

// Attributes of names, and a type of other names.
const (
	oidCommonName      oid = "\x55\x04\x03"
	oidEmailAddress    oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"
	oidSMTPUTF8Mailbox oid = "\x2b\x06\x01\x05\x05\x07\x08\x09"
)

// Public keys.
const (
	oidRSA     oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"
	oidRSA2    oid = "\x55\x08\x01\x01" // X.509's id-ea-rsa, an alias in OpenSSL
	oidMGF1    oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08"
	oidPSS     oid = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"
	oidDSA     oid = "\x2a\x86\x48\xce\x38\x04\x01"
	oidEC      oid = "\x2a\x86\x48\xce\x3d\x02\x01"
	oidX25519  oid = "\x2b\x65\x6e"
	oidX448    oid = "\x2b\x65\x6f"
	oidEd25519 oid = "\x2b\x65\x70"
	oidEd448   oid = "\x2b\x65\x71"
)

// supportedCritical is the table of X509_supported_extension in
// crypto/x509/v3_purp.c.
var supportedCritical = map[oid]bool{
	oidNSCertType: true, oidKeyUsage: true, oidSubjectAltName: true,
	oidBasicConstraints: true, oidPolicies: true, oidDistributionPoints: true,
	oidExtendedKeyUsage: true, oidIPAddrBlocks: true, oidASNumbers: true,
	oidOCSPNoCheck: true, oidPolicyConstraints: true, oidProxyCertInfo: true,
	oidNameConstraints: true, oidPolicyMappings: true, oidInhibitAnyPolicy: true,
}

// extensionNames are for messages.
var extensionNames = map[oid]string{
	oidSubjectKeyID: "subjectKeyIdentifier", oidKeyUsage: "keyUsage",
	oidSubjectAltName: "subjectAltName", oidBasicConstraints: "basicConstraints",
	oidNameConstraints: "nameConstraints", oidDistributionPoints: "cRLDistributionPoints",
	oidPolicies: "certificatePolicies", oidPolicyMappings: "policyMappings",
	oidAuthorityKeyID: "authorityKeyIdentifier", oidPolicyConstraints: "policyConstraints",
	oidExtendedKeyUsage: "extendedKeyUsage", oidInhibitAnyPolicy: "inhibitAnyPolicy",
	oidIPAddrBlocks: "ipAddrBlocks", oidASNumbers: "autonomousSysIds",
	oidProxyCertInfo: "proxyCertInfo", oidOCSPNoCheck: "ocsp-nocheck", oidNSCertType: "nsCertType",
	"\x55\x1d\x12": "issuerAltName", "\x55\x1d\x2e": "freshestCRL",
	"\x2b\x06\x01\x05\x05\x07\x01\x01": "authorityInfoAccess", "\x2b\x06\x01\x05\x05\x07\x01\x18": "tlsFeature",
}

// validOID is ossl_c2i_ASN1_OBJECT: whole arcs without leading zeros.
func validOID(b []byte) bool {
	if len(b) == 0 || b[len(b)-1]&0x80 != 0 {
		return false
	}
	for i, c := range b {
		if c == 0x80 && (i == 0 || b[i-1]&0x80 == 0) {
			return false
		}
	}
	return true
}

// String writes the identifier in dotted decimal, and one with an arc above 63
// bits in hexadecimal.
func (o oid) String() string {
	var b strings.Builder
	var arc uint64
	first := true
	for i := range len(o) {
		if arc > 1<<56 {
			return fmt.Sprintf("0x%X", string(o))
		}
		arc = arc<<7 | uint64(o[i]&0x7f)
		if o[i]&0x80 != 0 {
			continue
		}
		if first {
			root := min(arc/40, 2)
			b.WriteString(strconv.FormatUint(root, 10))
			arc, first = arc-40*root, false
		}
		b.WriteByte('.')
		b.WriteString(strconv.FormatUint(arc, 10))
		arc = 0
	}
	return b.String()
}

// extensionName names an extension for a message.
func extensionName(o oid) string {
	if name, ok := extensionNames[o]; ok {
		return name + " (" + o.String() + ")"
	}
	return o.String()
}
