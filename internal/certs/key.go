package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
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

// rsaSecurityBits is ossl_ifc_ffc_compute_security_bits in
// crypto/rsa/rsa_lib.c, with its fixed-point arithmetic.
func rsaSecurityBits(n int) int {
	canonical := map[int]int{2048: 112, 3072: 128, 4096: 152, 6144: 176, 7680: 192, 8192: 200, 15360: 256}
	if bits, ok := canonical[n]; ok {
		return bits
	}
	switch {
	case n >= 687737:
		return 1200
	case n < 8:
		return 0
	}
	limit := uint64(1200)
	if n <= 7680 {
		limit = 192
	} else if n <= 15360 {
		limit = 256
	}
	const log2, c1923, c4690 = 0x02c5c8, 0x07b126, 0x12c28f
	x := uint64(n) * log2
	lx := uint64(fixedLog(x))
	y := (scaled(c1923, fixedCubeRoot(scaled(scaled(x, lx), lx))) - c4690) / log2
	return int(min((y&0xffff+4)&^7, limit))
}

const fixedScale = 1 << 18

func scaled(a, b uint64) uint64 { return a * b / fixedScale }

func fixedLog(v uint64) uint32 {
	const logE = 0x05c551
	var r uint32
	for v >= 2*fixedScale {
		v >>= 1
		r += fixedScale
	}
	for i := uint32(fixedScale / 2); i != 0; i /= 2 {
		v = scaled(v, v)
		if v >= 2*fixedScale {
			v >>= 1
			r += i
		}
	}
	return uint32(uint64(r) * fixedScale / logE)
}

func fixedCubeRoot(x uint64) uint64 {
	const scale = 1 << 12
	var r uint64
	for s := 63; s >= 0; s -= 3 {
		r <<= 1
		b := 3*r*(r+1) + 1
		if x>>s >= b {
			x -= b << s
			r++
		}
	}
	return r * scale
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

// dsaSecurityBits is BN_security_bits in crypto/bn/bn_lib.c.
func dsaSecurityBits(l, n int) int {
	bits := 0
	for _, step := range [][2]int{{1024, 80}, {2048, 112}, {3072, 128}, {7680, 192}, {15360, 256}} {
		if l >= step[0] {
			bits = step[1]
		}
	}
	if n/2 < 80 {
		return 0
	}
	return min(bits, n/2)
}

// curve is a named curve. Go has some of them only.
type curve struct {
	name string
	bits int // of the order
	is   elliptic.Curve
}

var curves = map[oid]curve{
	"\x2b\x81\x04\x00\x21":                 {"P-224", 224, elliptic.P224()},
	"\x2a\x86\x48\xce\x3d\x03\x01\x07":     {"P-256", 256, elliptic.P256()},
	"\x2b\x81\x04\x00\x22":                 {"P-384", 384, elliptic.P384()},
	"\x2b\x81\x04\x00\x23":                 {"P-521", 521, elliptic.P521()},
	"\x2a\x86\x48\xce\x3d\x03\x01\x01":     {"P-192", 192, nil},
	"\x2b\x81\x04\x00\x0a":                 {"secp256k1", 256, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x05": {"brainpoolP224r1", 224, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x07": {"brainpoolP256r1", 256, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x09": {"brainpoolP320r1", 320, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x0b": {"brainpoolP384r1", 384, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x0d": {"brainpoolP512r1", 512, nil},
}

func ecKey(algorithm algorithmID, bits []byte) *PublicKey {
	if algorithm.parameters.id == idSequence {
		return &PublicKey{Name: "an ECDSA key with explicit curve parameters", Bits: 256, family: familyEC, explicit: true}
	}
	named, known := curves[oid(algorithm.parameters.content)]
	if algorithm.parameters.id != idOID || !known {
		return unknownKey("an ECDSA key on an unknown curve")
	}
	k := &PublicKey{Name: "ECDSA " + named.name, Bits: ecSecurityBits(named.bits), family: familyEC}
	if named.is == nil {
		return k
	}
	point, ok := uncompressed(named.is, bits)
	if !ok {
		return unknownKey("an ECDSA key that is no point of %s", named.name)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(named.is, point)
	if err != nil {
		return unknownKey("an ECDSA key that is no point of %s", named.name)
	}
	k.key = public
	return k
}

// uncompressed takes the compressed and the hybrid form of a point (SEC 1
// section 2.3.3, X9.62) as well, as OpenSSL does.
func uncompressed(c elliptic.Curve, point []byte) ([]byte, bool) {
	size := (c.Params().BitSize + 7) / 8
	if len(point) == 0 {
		return nil, false
	}
	switch point[0] {
	case 4:
		return point, true
	case 6, 7:
		if len(point) != 1+2*size || point[len(point)-1]&1 != point[0]&1 {
			return nil, false
		}
		return append([]byte{4}, point[1:]...), true
	case 2, 3:
		if len(point) != 1+size {
			return nil, false
		}
		x, y := elliptic.UnmarshalCompressed(c, point)
		if x == nil {
			return nil, false
		}
		out := make([]byte, 1+2*size)
		out[0] = 4
		x.FillBytes(out[1 : 1+size])
		y.FillBytes(out[1+size:])
		return out, true
	}
	return nil, false
}

// ecSecurityBits is ec_security_bits in crypto/ec/ec_ameth.c.
func ecSecurityBits(order int) int {
	for _, step := range [][2]int{{512, 256}, {384, 192}, {256, 128}, {224, 112}, {160, 80}} {
		if order >= step[0] {
			return step[1]
		}
	}
	return order / 2
}
