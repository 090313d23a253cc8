package certs

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"math/big"
)

// family is the kind of a public key, as far as signatures are told apart by it.
type family int

const (
	familyNone family = iota // not known, or malformed: OpenSSL has no key either
	familyRSA
	familyPSS // an RSA key for RSASSA-PSS alone
	familyEC
	familyEd25519
	familyEd448
	familyDSA
	familyOther // known to OpenSSL, of no use for signatures
)

// PublicKey is the key of a certificate.
type PublicKey struct {
	Name string // "RSA 2048", "ECDSA P-256", "Ed25519", or what is wrong with it
	Bits int    // OpenSSL's security bits; 0 for a key that is not known

	family   family
	key      any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey; nil: cannot be used
	exponent *big.Int
	pss      *pssParameters // what an RSASSA-PSS key is restricted to
	explicit bool           // curve parameters instead of a name
}

// Usable returns the key as crypto has it, nil if signatures by it cannot be
// checked.
func (k *PublicKey) Usable() crypto.PublicKey {
	if k.key == nil {
		return nil
	}
	return k.key
}

func unknownKey(format string, args ...any) *PublicKey {
	return &PublicKey{Name: fmt.Sprintf(format, args...)}
}

// parsePublicKey reads a SubjectPublicKeyInfo. It fails where OpenSSL would not
// read the certificate; a key that it would not know is returned as such.
func parsePublicKey(e element) (*PublicKey, bool) {
	if e.id != idSequence {
		return nil, false
	}
	in := input(e.content)
	algorithm, ok := readAlgorithm(&in)
	if !ok {
		return nil, false
	}
	content, ok := in.read(idBitString)
	if !ok || !in.empty() {
		return nil, false
	}
	bits, _, ok := bitString(content)
	if !ok {
		return nil, false
	}
	switch algorithm.oid {
	case oidRSA, oidRSA2:
		return rsaKey(bits), true
	case oidPSS:
		return pssKey(algorithm, bits), true
	case oidEC:
		return ecKey(algorithm, bits), true
	case oidDSA:
		return dsaKey(algorithm), true
	}
	if fixed, ok := fixedKeys[algorithm.oid]; ok {
		return fixed.read(algorithm, bits), true
	}
	return unknownKey("a key of the unknown algorithm %v", algorithm.oid), true
}

// Limits of crypto/rsa/rsa_ossl.c, the second one for every modulus.
const (
	maxModulusBits  = 16384
	maxExponentBits = 64
)

func rsaKey(bits []byte) *PublicKey {
	in := input(bits)
	pair, ok := in.read(idSequence)
	if !ok {
		return unknownKey("an RSA key that cannot be read")
	}
	n, ok := pair.read(idInteger)
	e, ok2 := pair.read(idInteger)
	if !ok || !ok2 || !pair.empty() {
		return unknownKey("an RSA key that cannot be read")
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	k := &PublicKey{
		Name:   fmt.Sprintf("RSA %d", modulus.BitLen()),
		Bits:   rsaSecurityBits(modulus.BitLen()),
		family: familyRSA,
	}
	if modulus.BitLen() > maxModulusBits || exponent.BitLen() > maxExponentBits ||
		modulus.Bit(0) == 0 || exponent.Bit(0) == 0 || exponent.BitLen() < 2 {
		return k
	}
	k.exponent = exponent
	public := &rsa.PublicKey{N: modulus}
	if exponent.BitLen() <= 31 {
		public.E = int(exponent.Int64())
	}
	k.key = public
	return k
}

func pssKey(algorithm algorithmID, bits []byte) *PublicKey {
	k := rsaKey(bits)
	if k.family == familyNone {
		return k
	}
	k.family, k.Name = familyPSS, k.Name+" (RSASSA-PSS)"
	if algorithm.parameters.id == 0 {
		return k
	}
	parameters, ok := parsePSS(algorithm)
	if !ok {
		return unknownKey("an RSASSA-PSS key with parameters that cannot be read")
	}
	k.pss = parameters
	if parameters.hash == 0 || parameters.mgf == 0 {
		k.key = nil
	}
	return k
}

// fixedKey is an algorithm of RFC 8410: no parameters, one size.
type fixedKey struct {
	name   string
	size   int
	bits   int
	family family
}

var fixedKeys = map[oid]fixedKey{
	oidEd25519: {"Ed25519", 32, 128, familyEd25519},
	oidEd448:   {"Ed448", 57, 224, familyEd448},
	oidX25519:  {"X25519", 32, 128, familyOther},
	oidX448:    {"X448", 56, 224, familyOther},
}

func (f fixedKey) read(algorithm algorithmID, bits []byte) *PublicKey {
	if algorithm.parameters.id != 0 || len(bits) != f.size {
		return unknownKey("an %s key that cannot be read", f.name)
	}
	k := &PublicKey{Name: f.name, Bits: f.bits, family: f.family}
	if f.family == familyEd25519 {
		k.key = ed25519.PublicKey(bits)
	}
	return k
}

// dsaKey knows the strength of a DSA key only: crypto/dsa is not used.
func dsaKey(algorithm algorithmID) *PublicKey {
	in := input(algorithm.parameters.content)
	p, ok := in.read(idInteger)
	q, ok2 := in.read(idInteger)
	if algorithm.parameters.id != idSequence || !ok || !ok2 {
		return unknownKey("a DSA key without parameters")
	}
	l, n := new(big.Int).SetBytes(p).BitLen(), new(big.Int).SetBytes(q).BitLen()
	return &PublicKey{Name: fmt.Sprintf("DSA %d", l), Bits: dsaSecurityBits(l, n), family: familyDSA}
}
