package signature

import (
	"crypto/ecdsa"
	"crypto/elliptic"

	"pgwicket/internal/der"
)

// curve is a named curve. Go has some of them only.
type curve struct {
	name string // of a key
	bits int    // of the order
	is   elliptic.Curve
}

var curves = map[der.OID]curve{
	"\x2b\x81\x04\x00\x21":                 {"ECDSA P-224", 224, elliptic.P224()},
	"\x2a\x86\x48\xce\x3d\x03\x01\x07":     {"ECDSA P-256", 256, elliptic.P256()},
	"\x2b\x81\x04\x00\x22":                 {"ECDSA P-384", 384, elliptic.P384()},
	"\x2b\x81\x04\x00\x23":                 {"ECDSA P-521", 521, elliptic.P521()},
	"\x2a\x86\x48\xce\x3d\x03\x01\x01":     {"ECDSA P-192", 192, nil},
	"\x2b\x81\x04\x00\x0a":                 {"ECDSA secp256k1", 256, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x05": {"ECDSA brainpoolP224r1", 224, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x07": {"ECDSA brainpoolP256r1", 256, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x09": {"ECDSA brainpoolP320r1", 320, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x0b": {"ECDSA brainpoolP384r1", 384, nil},
	"\x2b\x24\x03\x03\x02\x08\x01\x01\x0d": {"ECDSA brainpoolP512r1", 512, nil},
}

func ecKey(algorithm AlgorithmIdentifier, bits []byte) *PublicKey {
	if algorithm.parameters.ID == der.Sequence {
		return &PublicKey{Name: "an ECDSA key with explicit curve parameters", Bits: 256, family: familyEC, ExplicitCurve: true}
	}
	named, known := curves[der.OID(algorithm.parameters.Content)]
	if algorithm.parameters.ID != der.ObjectIdentifier || !known {
		return unknownKey("an ECDSA key on an unknown curve")
	}
	k := &PublicKey{Name: named.name, Bits: ecSecurityBits(named.bits), family: familyEC}
	if named.is == nil {
		return k
	}
	point, ok := uncompressed(named.is, bits)
	if !ok {
		return unknownKey("an %s key that is no point of its curve", named.name)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(named.is, point)
	if err != nil {
		return unknownKey("an %s key that is no point of its curve", named.name)
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
