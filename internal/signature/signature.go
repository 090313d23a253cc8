// Package signature reads public keys and signature algorithms, checks signatures
// and rates both as OpenSSL 3.0 does: with its security bits, and with the forms
// that crypto/x509 does not have (RSASSA-PSS with any salt and mask, RSA keys below
// 1024 bits and with long exponents, SHA-3, compressed points).
package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha1" //nolint:gosec // whether SHA-1 is good enough is for MinSecurityBits to say
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"errors"
	"fmt"

	"pgwicket/internal/der"
)

// AlgorithmIdentifier is an AlgorithmIdentifier.
type AlgorithmIdentifier struct {
	oid        []byte
	parameters der.Element // with id 0 if there are none
}

// ReadAlgorithm takes an AlgorithmIdentifier.
func ReadAlgorithm(in *der.Input) (a AlgorithmIdentifier, ok bool) {
	content, ok := in.Read(der.Sequence)
	if !ok {
		return a, false
	}
	if a.oid, ok = content.ReadOID(); !ok {
		return a, false
	}
	if !content.Empty() {
		if a.parameters, ok = content.Next(); !ok || !der.ValidAny(a.parameters) {
			return a, false
		}
	}
	return a, content.Empty()
}

// Equal is X509_ALGOR_cmp.
func (a AlgorithmIdentifier) Equal(b AlgorithmIdentifier) bool {
	return bytes.Equal(a.oid, b.oid) && a.parameters.ID == b.parameters.ID && bytes.Equal(a.parameters.Content, b.parameters.Content)
}

// Algorithm says how something was signed.
type Algorithm struct {
	Name string
	Bits int // OpenSSL's security bits; -1: not known to it

	family family
	hash   crypto.Hash // 0: none, or one that is not supported
	pss    *pssParameters
}

// ParseAlgorithm reads the DER of an AlgorithmIdentifier, of a
// revocation list for example.
func ParseAlgorithm(raw []byte) (*Algorithm, bool) {
	in := der.Input(raw)
	a, ok := ReadAlgorithm(&in)
	if !ok || !in.Empty() {
		return nil, false
	}
	return a.Algorithm(), true
}

// signatures are those that OpenSSL can take apart into a digest and a key
// (crypto/objects/obj_xref.txt), with the security bits of x509_sig_info_init
// in crypto/x509/x509_set.c.
var signatures = map[der.OID]*Algorithm{
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x02": {"RSA with MD2", -1, familyRSA, 0, nil},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x03": {"RSA with MD4", -1, familyRSA, 0, nil},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04": {"RSA with MD5", 39, familyRSA, 0, nil},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05": {"RSA with SHA-1", 63, familyRSA, crypto.SHA1, nil},
	"\x2b\x0e\x03\x02\x1d":                 {"RSA with SHA-1", 63, familyRSA, crypto.SHA1, nil},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0e": {"RSA with SHA-224", 112, familyRSA, crypto.SHA224, nil},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b": {"RSA with SHA-256", 128, familyRSA, crypto.SHA256, nil},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c": {"RSA with SHA-384", 192, familyRSA, crypto.SHA384, nil},
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d": {"RSA with SHA-512", 256, familyRSA, crypto.SHA512, nil},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x0d": {"RSA with SHA3-224", 112, familyRSA, crypto.SHA3_224, nil},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x0e": {"RSA with SHA3-256", 128, familyRSA, crypto.SHA3_256, nil},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x0f": {"RSA with SHA3-384", 192, familyRSA, crypto.SHA3_384, nil},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x10": {"RSA with SHA3-512", 256, familyRSA, crypto.SHA3_512, nil},
	"\x2a\x86\x48\xce\x3d\x04\x01":         {"ECDSA with SHA-1", 63, familyEC, crypto.SHA1, nil},
	"\x2a\x86\x48\xce\x3d\x04\x03\x01":     {"ECDSA with SHA-224", 112, familyEC, crypto.SHA224, nil},
	"\x2a\x86\x48\xce\x3d\x04\x03\x02":     {"ECDSA with SHA-256", 128, familyEC, crypto.SHA256, nil},
	"\x2a\x86\x48\xce\x3d\x04\x03\x03":     {"ECDSA with SHA-384", 192, familyEC, crypto.SHA384, nil},
	"\x2a\x86\x48\xce\x3d\x04\x03\x04":     {"ECDSA with SHA-512", 256, familyEC, crypto.SHA512, nil},
	"\x2b\x0e\x03\x02\x03":                 {"RSA with MD5", 39, familyRSA, 0, nil},
	"\x2b\x0e\x03\x02\x0f":                 {"RSA with SHA", -1, familyRSA, 0, nil},
	"\x55\x08\x03\x65":                     {"RSA with MDC-2", 64, familyRSA, 0, nil},
	"\x2b\x24\x03\x03\x01\x02":             {"RSA with RIPEMD-160", 80, familyRSA, 0, nil},
	oidEd25519:                             {"Ed25519", 128, familyEd25519, 0, nil},
	oidEd448:                               {"Ed448", 224, familyEd448, 0, nil},
	"\x2a\x86\x48\xce\x38\x04\x03":         {"DSA with SHA-1", 63, familyDSA, 0, nil},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x01": {"DSA with SHA-224", 112, familyDSA, 0, nil},
	"\x60\x86\x48\x01\x65\x03\x04\x03\x02": {"DSA with SHA-256", 128, familyDSA, 0, nil},
}

// Algorithm looks the algorithm up; one that is not known has no security bits.
func (a AlgorithmIdentifier) Algorithm() *Algorithm {
	if known, ok := signatures[der.OID(a.oid)]; ok {
		return known
	}
	if der.OID(a.oid) != oidPSS {
		return &Algorithm{Name: "the unknown algorithm " + der.OID(a.oid).String(), Bits: -1}
	}
	s := &Algorithm{Name: "RSASSA-PSS", Bits: -1, family: familyPSS}
	if parameters, ok := parsePSS(a); ok {
		s.pss, s.hash, s.Bits = parameters, parameters.hash, parameters.bits
	}
	return s
}

// ErrForged is a signature that does not belong to the key.
var ErrForged = errors.New("the signature does not verify")

// UnsupportedError is a signature that cannot be checked.
type UnsupportedError string

func (e UnsupportedError) Error() string { return string(e) }

// Supported reports whether signatures by the algorithm can be checked at all.
func (a *Algorithm) Supported() bool {
	return a.family == familyEd25519 || a.hash != 0 && a.family != familyDSA && (a.pss == nil || a.pss.mgf != 0)
}

// CanCheck reports whether the algorithm goes with the key: check_sig_alg_match
// in crypto/x509/v3_purp.c.
func (k *PublicKey) CanCheck(a *Algorithm) bool {
	return k.family != familyNone && (k.family == a.family || k.family == familyRSA && a.family == familyPSS)
}

// Mismatch is the error of an algorithm that does not go with the key.
func Mismatch(a *Algorithm, k *PublicKey) error {
	return UnsupportedError(fmt.Sprintf("a signature with %s is not by a key of its kind, %s", a.Name, k.Name))
}

// Check verifies a signature by the key. The error says in words what is wrong
// with it.
func (k *PublicKey) Check(a *Algorithm, signed, signature []byte) error {
	switch {
	case !k.CanCheck(a):
		return Mismatch(a, k)
	case k.key == nil:
		return UnsupportedError(fmt.Sprintf("signatures by %s cannot be checked", k.Name))
	case a.hash == 0 && a.family != familyEd25519:
		return UnsupportedError(fmt.Sprintf("signatures with %s cannot be checked", a.Name))
	}
	if public, ok := k.key.(ed25519.PublicKey); ok {
		return verdict(ed25519.Verify(public, signed, signature))
	}
	h := a.hash.New()
	h.Write(signed)
	digest := h.Sum(nil)
	if public, ok := k.key.(*ecdsa.PublicKey); ok {
		return verdict(ecdsa.VerifyASN1(public, digest, signature))
	}
	public := k.key.(*rsa.PublicKey)
	switch {
	case a.pss != nil:
		return k.checkPSS(a.pss, digest, signature)
	case public.E == 0 || public.N.BitLen() < 1024: // not by crypto/rsa
		return k.checkPKCS1(a.hash, digest, signature)
	}
	return verdict(rsa.VerifyPKCS1v15(public, a.hash, digest, signature) == nil)
}

func verdict(good bool) error {
	if !good {
		return ErrForged
	}
	return nil
}
