package signature

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"math/big"
	"strconv"

	"pgwicket/internal/der"
)

// Public keys, and what their parameters name.
const (
	oidRSA     der.OID = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"
	oidRSA2    der.OID = "\x55\x08\x01\x01" // X.509's id-ea-rsa, an alias in OpenSSL
	oidMGF1    der.OID = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08"
	oidPSS     der.OID = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"
	oidDSA     der.OID = "\x2a\x86\x48\xce\x38\x04\x01"
	oidEC      der.OID = "\x2a\x86\x48\xce\x3d\x02\x01"
	oidX25519  der.OID = "\x2b\x65\x6e"
	oidX448    der.OID = "\x2b\x65\x6f"
	oidEd25519 der.OID = "\x2b\x65\x70"
	oidEd448   der.OID = "\x2b\x65\x71"
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

	family        family
	key           any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey; nil: cannot be used
	exponent      *big.Int
	pss           *pssParameters // what an RSASSA-PSS key is restricted to
	ExplicitCurve bool           // curve parameters instead of a name
}

// Known reports whether OpenSSL knows the key.
func (k *PublicKey) Known() bool { return k.family != familyNone }

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

// ParsePublicKey reads a SubjectPublicKeyInfo. It fails where OpenSSL would not
// read the certificate; a key that it would not know is returned as such.
func ParsePublicKey(e der.Element) (*PublicKey, bool) {
	if e.ID != der.Sequence {
		return nil, false
	}
	in := der.Input(e.Content)
	algorithm, ok := ReadAlgorithm(&in)
	if !ok {
		return nil, false
	}
	content, ok := in.Read(der.BitString)
	if !ok || !in.Empty() {
		return nil, false
	}
	bits, _, ok := der.Bits(content)
	if !ok {
		return nil, false
	}
	switch der.OID(algorithm.oid) {
	case oidRSA, oidRSA2:
		return rsaKey(bits), true
	case oidPSS:
		return pssKey(algorithm, bits), true
	case oidEC:
		return ecKey(algorithm, bits), true
	case oidDSA:
		return dsaKey(algorithm), true
	}
	if fixed, ok := fixedKeys[der.OID(algorithm.oid)]; ok {
		return fixed.read(algorithm, bits), true
	}
	return unknownKey("a key of the unknown algorithm %v", der.OID(algorithm.oid)), true
}

// Limits of crypto/rsa/rsa_ossl.c, the second one for every modulus.
const (
	maxModulusBits  = 16384
	maxExponentBits = 64
)

func rsaKey(bits []byte) *PublicKey {
	in := der.Input(bits)
	pair, ok := in.Read(der.Sequence)
	if !ok {
		return unknownKey("an RSA key that cannot be read")
	}
	n, ok := pair.Read(der.Integer)
	e, ok2 := pair.Read(der.Integer)
	if !ok || !ok2 || !pair.Empty() {
		return unknownKey("an RSA key that cannot be read")
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	k := &PublicKey{
		Name:   "RSA " + strconv.Itoa(modulus.BitLen()),
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

func pssKey(algorithm AlgorithmIdentifier, bits []byte) *PublicKey {
	k := rsaKey(bits)
	if k.family == familyNone {
		return k
	}
	k.family, k.Name = familyPSS, k.Name+" (RSASSA-PSS)"
	if algorithm.parameters.ID == 0 {
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

var fixedKeys = map[der.OID]fixedKey{
	oidEd25519: {"Ed25519", 32, 128, familyEd25519},
	oidEd448:   {"Ed448", 57, 224, familyEd448},
	oidX25519:  {"X25519", 32, 128, familyOther},
	oidX448:    {"X448", 56, 224, familyOther},
}

func (f fixedKey) read(algorithm AlgorithmIdentifier, bits []byte) *PublicKey {
	if algorithm.parameters.ID != 0 || len(bits) != f.size {
		return unknownKey("an %s key that cannot be read", f.name)
	}
	k := &PublicKey{Name: f.name, Bits: f.bits, family: f.family}
	if f.family == familyEd25519 {
		k.key = ed25519.PublicKey(bits)
	}
	return k
}

// dsaKey knows the strength of a DSA key only: crypto/dsa is not used.
func dsaKey(algorithm AlgorithmIdentifier) *PublicKey {
	in := der.Input(algorithm.parameters.Content)
	p, ok := in.Read(der.Integer)
	q, ok2 := in.Read(der.Integer)
	if algorithm.parameters.ID != der.Sequence || !ok || !ok2 {
		return unknownKey("a DSA key without parameters")
	}
	l, n := new(big.Int).SetBytes(p).BitLen(), new(big.Int).SetBytes(q).BitLen()
	return &PublicKey{Name: fmt.Sprintf("DSA %d", l), Bits: dsaSecurityBits(l, n), family: familyDSA}
}
