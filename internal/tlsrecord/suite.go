package tlsrecord

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// suite is what the record layer must know of a cipher suite.
type suite struct {
	tls13    bool
	chacha   bool // else AES-GCM
	hash     func() hash.Hash
	hashLen  int
	keyLen   int
	ivLen    int // from the key block or the secret
	explicit int // bytes of the nonce in each record (RFC 5288, section 3)
}

const (
	nonceLen = 12
	tagLen   = 16
)

// suiteOf returns the suite of a version of TLS; nil: a Layer cannot speak it.
func suiteOf(version, id uint16) *suite {
	s := new(suite)
	switch id {
	case tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256:
		s.tls13, s.ivLen = true, nonceLen
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_256_GCM_SHA384:
		s.ivLen, s.explicit = 4, 8
	case tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		s.ivLen = nonceLen
	default:
		return nil
	}
	if s.tls13 != (version == tls.VersionTLS13) || !s.tls13 && version != tls.VersionTLS12 {
		return nil
	}
	s.hash, s.hashLen, s.keyLen = sha256.New, sha256.Size, 32
	switch id {
	case tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_GCM_SHA256:
		s.keyLen = 16
	case tls.TLS_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_256_GCM_SHA384:
		s.hash, s.hashLen = sha512.New384, sha512.Size384
	default:
		s.chacha = true
	}
	return s
}

// aead makes the cipher of a key.
func (s *suite) aead(key []byte) cipher.AEAD {
	if s.chacha {
		return must(chacha20poly1305.New(key))
	}
	return must(cipher.NewGCM(must(aes.NewCipher(key))))
}

// must is for errors of wrong lengths, which suite rules out.
func must[T any](v T, err error) T {
	if err != nil {
		panic("tlsrecord: " + err.Error())
	}
	return v
}

// expand is HKDF-Expand-Label with no context (RFC 8446, section 7.1).
func (s *suite) expand(secret []byte, label string, length int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(make([]byte, 0, 32), uint16(length))
	info = append(info, byte(len(label)))
	info = append(append(info, label...), 0)
	return must(hkdf.Expand(s.hash, secret, string(info), length))
}

// keyBlock returns the keys and the IVs of TLS 1.2: the client's key, the server's,
// the client's IV, the server's (RFC 5246, section 6.3).
func (s *suite) keyBlock(master, clientRandom, serverRandom []byte) []byte {
	return s.prf12(master, "key expansion", append(append([]byte(nil), serverRandom...), clientRandom...), 2*(s.keyLen+s.ivLen))
}

// prf12 is the pseudorandom function of TLS 1.2 (RFC 5246, section 5).
func (s *suite) prf12(secret []byte, label string, seed []byte, length int) (out []byte) {
	seed = append([]byte(label), seed...)
	mac := hmac.New(s.hash, secret)
	for a := seed; len(out) < length; {
		mac.Reset()
		mac.Write(a)
		a = mac.Sum(nil)
		mac.Reset()
		mac.Write(a)
		mac.Write(seed)
		out = mac.Sum(out)
	}
	return out[:length]
}
