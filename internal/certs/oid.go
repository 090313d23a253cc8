package certs

import (
	"pgwicket/internal/der"
)

// The extensions that are looked at.
const (
	oidSubjectKeyID       der.OID = "\x55\x1d\x0e"
	oidKeyUsage           der.OID = "\x55\x1d\x0f"
	oidSubjectAltName     der.OID = "\x55\x1d\x11"
	oidBasicConstraints   der.OID = "\x55\x1d\x13"
	oidNameConstraints    der.OID = "\x55\x1d\x1e"
	oidDistributionPoints der.OID = "\x55\x1d\x1f"
	oidPolicies           der.OID = "\x55\x1d\x20"
	oidPolicyMappings     der.OID = "\x55\x1d\x21"
	oidAuthorityKeyID     der.OID = "\x55\x1d\x23"
	oidPolicyConstraints  der.OID = "\x55\x1d\x24"
	oidExtendedKeyUsage   der.OID = "\x55\x1d\x25"
	oidInhibitAnyPolicy   der.OID = "\x55\x1d\x36"
	oidIPAddrBlocks       der.OID = "\x2b\x06\x01\x05\x05\x07\x01\x07"
	oidASNumbers          der.OID = "\x2b\x06\x01\x05\x05\x07\x01\x08"
	oidProxyCertInfo      der.OID = "\x2b\x06\x01\x05\x05\x07\x01\x0e"
	oidOCSPNoCheck        der.OID = "\x2b\x06\x01\x05\x05\x07\x30\x01\x05"
	oidNSCertType         der.OID = "\x60\x86\x48\x01\x86\xf8\x42\x01\x01"
)

// Attributes of names, and a type of other names.
const (
	oidCommonName      der.OID = "\x55\x04\x03"
	oidEmailAddress    der.OID = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"
	oidSMTPUTF8Mailbox der.OID = "\x2b\x06\x01\x05\x05\x07\x08\x09"
)

// extensionNames are for messages.
var extensionNames = map[der.OID]string{
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

// extensionName names an extension for a message.
func extensionName(o der.OID) string {
	if name, ok := extensionNames[o]; ok {
		return name + " (" + o.String() + ")"
	}
	return o.String()
}
