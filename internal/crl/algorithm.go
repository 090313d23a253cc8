package crl

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// The signature algorithms that a list may be signed with (RFC 4055, RFC 5758, RFC 8410), and the broken ones that some
// CAs still use. x509.Certificate.CheckSignature accepts SHA-1 for CRLs, this package does not.
var algorithms = map[string]x509.SignatureAlgorithm{
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA,
	"1.2.840.113549.1.1.12": x509.SHA384WithRSA,
	"1.2.840.113549.1.1.13": x509.SHA512WithRSA,
	"1.2.840.10045.4.3.2":   x509.ECDSAWithSHA256,
	"1.2.840.10045.4.3.3":   x509.ECDSAWithSHA384,
	"1.2.840.10045.4.3.4":   x509.ECDSAWithSHA512,
	"1.3.101.112":           x509.PureEd25519,
}

var weakAlgorithms = map[string]string{
	"1.2.840.113549.1.1.2": "MD2 (md2WithRSAEncryption)",
	"1.2.840.113549.1.1.4": "MD5 (md5WithRSAEncryption)",
	"1.2.840.113549.1.1.5": "SHA-1 (sha1WithRSAEncryption)",
	"1.3.14.3.2.29":        "SHA-1 (sha1WithRSA)",
	"1.2.840.10040.4.3":    "SHA-1 (dsa-with-SHA1)",
	"1.2.840.10045.4.1":    "SHA-1 (ecdsa-with-SHA1)",
}

// The parameters of RSASSA-PSS (RFC 4055 section 3.1), each of them explicit but for the trailer.
type pssParameters struct {
	Hash    pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
	MGF     pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
	Salt    int                      `asn1:"explicit,tag:2"`
	Trailer int                      `asn1:"optional,explicit,tag:3,default:1"`
}

var (
	oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}

	pssHashes = map[string]struct {
		algorithm x509.SignatureAlgorithm
		size      int
	}{
		"2.16.840.1.101.3.4.2.1": {x509.SHA256WithRSAPSS, 32},
		"2.16.840.1.101.3.4.2.2": {x509.SHA384WithRSAPSS, 48},
		"2.16.840.1.101.3.4.2.3": {x509.SHA512WithRSAPSS, 64},
	}
)

// signatureAlgorithm reads an AlgorithmIdentifier.
func signatureAlgorithm(der []byte) (x509.SignatureAlgorithm, error) {
	var id pkix.AlgorithmIdentifier
	if rest, err := asn1.Unmarshal(der, &id); err != nil || len(rest) != 0 {
		return 0, errMalformed
	}
	name := id.Algorithm.String()
	if id.Algorithm.Equal(oidRSAPSS) {
		if a, ok := pssAlgorithm(id.Parameters.FullBytes); ok {
			return a, nil
		}
		return 0, fmt.Errorf("is signed with RSA-PSS, but not with SHA-256, SHA-384 or SHA-512 for both hashes and a salt of the same length: " +
			"have the CA sign it that way")
	}
	if weak, ok := weakAlgorithms[name]; ok {
		return 0, fmt.Errorf("is signed with %s, which can be forged: have the CA sign it with SHA-256", weak)
	}
	a, ok := algorithms[name]
	if !ok {
		return 0, fmt.Errorf("is signed with an unknown algorithm (%s): have the CA sign it with RSA, ECDSA or Ed25519", name)
	}
	return a, nil
}

// pssAlgorithm accepts the three sets of parameters that crypto/x509 can verify.
func pssAlgorithm(der []byte) (x509.SignatureAlgorithm, bool) {
	var p pssParameters
	var mgf pkix.AlgorithmIdentifier
	if rest, err := asn1.Unmarshal(der, &p); err != nil || len(rest) != 0 {
		return 0, false
	}
	if rest, err := asn1.Unmarshal(p.MGF.Parameters.FullBytes, &mgf); err != nil || len(rest) != 0 {
		return 0, false
	}
	h, ok := pssHashes[p.Hash.Algorithm.String()]
	return h.algorithm, ok && p.MGF.Algorithm.Equal(oidMGF1) && mgf.Algorithm.Equal(p.Hash.Algorithm) &&
		p.Salt == h.size && p.Trailer == 1
}
