package signature

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"encoding/binary"
	"math/big"

	"pgwicket/internal/der"
)

// pssParameters are RSASSA-PSS-params (RFC 4055 section 3.1). A hash of 0 is one
// that is not supported.
type pssParameters struct {
	hash, mgf crypto.Hash
	salt      int
	bits      int
}

var hashes = map[der.OID]crypto.Hash{
	"\x2b\x0e\x03\x02\x1a":                 crypto.SHA1,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x04": crypto.SHA224,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x01": crypto.SHA256,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x02": crypto.SHA384,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x03": crypto.SHA512,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x07": crypto.SHA3_224,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x08": crypto.SHA3_256,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x09": crypto.SHA3_384,
	"\x60\x86\x48\x01\x65\x03\x04\x02\x0a": crypto.SHA3_512,
}

// parsePSS is ossl_rsa_pss_decode and ossl_rsa_pss_get_param in
// crypto/rsa/rsa_ameth.c and crypto/rsa/rsa_asn1.c, which ask for parameters
// although their defaults are defined.
func parsePSS(a AlgorithmIdentifier) (p *pssParameters, ok bool) {
	if a.parameters.ID != der.Sequence {
		return nil, false
	}
	p = &pssParameters{hash: crypto.SHA1, mgf: crypto.SHA1, salt: 20}
	in := der.Input(a.parameters.Content)
	hash, present, ok := in.Optional(der.Explicit(0))
	if ok && present {
		p.hash, ok = readHash(hash)
	}
	if !ok {
		return nil, false
	}
	mgf, present, ok := in.Optional(der.Explicit(1))
	if ok && present {
		p.mgf, ok = readMGF(mgf)
	}
	if !ok {
		return nil, false
	}
	trailer := 1
	for n, value := range []*int{&p.salt, &trailer} {
		wrapped, present, ok := in.Optional(der.Explicit(byte(2 + n)))
		if !ok {
			return nil, false
		}
		if !present {
			continue
		}
		number, ok := wrapped.Read(der.Integer)
		if !ok || !wrapped.Empty() || !der.ValidInteger(number) {
			return nil, false
		}
		*value = der.SmallInteger(number)
	}
	if p.hash != 0 {
		p.bits = p.hash.Size() * 4
	}
	if p.hash == crypto.SHA1 {
		p.bits = 64
	}
	return p, in.Empty() && trailer == 1 && p.salt >= 0
}

func readHash(in der.Input) (crypto.Hash, bool) {
	a, ok := ReadAlgorithm(&in)
	return hashes[der.OID(a.oid)], ok && in.Empty()
}

func readMGF(in der.Input) (crypto.Hash, bool) {
	a, ok := ReadAlgorithm(&in)
	if !ok || !in.Empty() || der.OID(a.oid) != oidMGF1 {
		return 0, false
	}
	return readHash(a.parameters.Full)
}

// public is the RSA public operation, for what crypto/rsa does not do.
func (k *PublicKey) public(signature []byte) ([]byte, bool) {
	n := k.key.(*rsa.PublicKey).N
	size := (n.BitLen() + 7) / 8
	s := new(big.Int).SetBytes(signature)
	if len(signature) != size || s.Cmp(n) >= 0 {
		return nil, false
	}
	return s.Exp(s, k.exponent, n).FillBytes(make([]byte, size)), true
}

// checkPKCS1 is RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2.2) for keys that
// crypto/rsa refuses: below 1024 bits, and exponents above 31.
func (k *PublicKey) checkPKCS1(hash crypto.Hash, digest, signature []byte) error {
	em, ok := k.public(signature)
	if !ok {
		return ErrForged
	}
	var name der.OID
	for o, h := range hashes {
		if h == hash {
			name = o
		}
	}
	algorithm := der.Append(nil, der.ObjectIdentifier, []byte(name))
	algorithm = der.Append(algorithm, der.Null, nil)
	info := der.Append(nil, der.Sequence, algorithm)
	info = der.Append(nil, der.Sequence, der.Append(info, der.OctetString, digest))
	padding := len(em) - len(info) - 3
	if padding < 8 {
		return ErrForged
	}
	want := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, padding)...)
	want = append(append(want, 0), info...)
	return verdict(bytes.Equal(em, want))
}

// checkPSS is RSASSA-PSS (RFC 8017 section 8.1.2). crypto/rsa would allow
// neither another hash for the mask nor a salt of exactly no bytes.
func (k *PublicKey) checkPSS(p *pssParameters, digest, signature []byte) error {
	if r := k.pss; r != nil && (r.hash != p.hash || r.mgf != p.mgf || p.salt < r.salt) {
		return UnsupportedError("the signature does not keep to the parameters of the RSASSA-PSS key")
	}
	if p.mgf == 0 {
		return UnsupportedError("the mask of the RSASSA-PSS signature cannot be computed")
	}
	em, ok := k.public(signature)
	bits := k.key.(*rsa.PublicKey).N.BitLen() - 1
	if ok && bits%8 == 0 {
		ok = em[0] == 0
		em = em[1:]
	}
	size := len(digest)
	if !ok || len(em) < size+p.salt+2 || em[len(em)-1] != 0xbc {
		return ErrForged
	}
	top := byte(0xff >> (8*len(em) - bits))
	db, h := em[:len(em)-size-1], em[len(em)-size-1:len(em)-1]
	if db[0]&^top != 0 {
		return ErrForged
	}
	mask(db, h, p.mgf)
	db[0] &= top
	zeros := len(db) - p.salt - 1
	if len(bytes.Trim(db[:zeros], "\x00")) != 0 || db[zeros] != 1 {
		return ErrForged
	}
	again := p.hash.New()
	again.Write(make([]byte, 8))
	again.Write(digest)
	again.Write(db[zeros+1:])
	return verdict(bytes.Equal(again.Sum(nil), h))
}

// mask XORs MGF1 of a seed into dst (RFC 8017 appendix B.2.1).
func mask(dst, seed []byte, hash crypto.Hash) {
	for counter := uint32(0); len(dst) > 0; counter++ {
		h := hash.New()
		h.Write(seed)
		h.Write(binary.BigEndian.AppendUint32(nil, counter))
		for _, c := range h.Sum(nil) {
			if len(dst) == 0 {
				return
			}
			dst[0] ^= c
			dst = dst[1:]
		}
	}
}
