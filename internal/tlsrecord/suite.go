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

var (
	aes128Of13 = &suite{tls13: true, hash: sha256.New, hashLen: sha256.Size, keyLen: 16, ivLen: nonceLen}
	aes256Of13 = &suite{tls13: true, hash: sha512.New384, hashLen: sha512.Size384, keyLen: 32, ivLen: nonceLen}
	chachaOf13 = &suite{tls13: true, chacha: true, hash: sha256.New, hashLen: sha256.Size, keyLen: 32, ivLen: nonceLen}
	aes128Of12 = &suite{hash: sha256.New, hashLen: sha256.Size, keyLen: 16, ivLen: 4, explicit: 8}
	aes256Of12 = &suite{hash: sha512.New384, hashLen: sha512.Size384, keyLen: 32, ivLen: 4, explicit: 8}
	chachaOf12 = &suite{chacha: true, hash: sha256.New, hashLen: sha256.Size, keyLen: 32, ivLen: nonceLen}
)

// suites are all that a Layer speaks: the ones of TLS 1.2 and 1.3 with AEAD ciphers that
// crypto/tls has.
var suites = map[uint16]*suite{
	tls.TLS_AES_128_GCM_SHA256:                        aes128Of13,
	tls.TLS_AES_256_GCM_SHA384:                        aes256Of13,
	tls.TLS_CHACHA20_POLY1305_SHA256:                  chachaOf13,
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256:               aes128Of12,
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384:               aes256Of12,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:         aes128Of12,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:         aes256Of12,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   chachaOf12,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       aes128Of12,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       aes256Of12,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: chachaOf12,
}

// suiteOf returns the suite of a version of TLS; nil: a Layer cannot speak it.
func suiteOf(version, id uint16) *suite {
	s := suites[id]
	if s == nil || s.tls13 && version != tls.VersionTLS13 || !s.tls13 && version != tls.VersionTLS12 {
		return nil
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
