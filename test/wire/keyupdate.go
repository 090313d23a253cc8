package wire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
)

// KeyUpdater is the writing half of a TLS 1.3 client that can do what neither
// crypto/tls nor libpq would: change its key after every record.
type KeyUpdater struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// NewKeyUpdater takes the key log of a client that has done its handshake with
// TLS_AES_128_GCM_SHA256 and has written nothing since.
func NewKeyUpdater(keyLog string) (*KeyUpdater, error) {
	for line := range strings.Lines(keyLog) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "CLIENT_TRAFFIC_SECRET_0" {
			continue
		}
		secret, err := hex.DecodeString(f[2])
		if err == nil && len(secret) != sha256.Size {
			err = errors.New("the suite is not TLS_AES_128_GCM_SHA256")
		}
		if err != nil {
			return nil, err
		}
		k := new(KeyUpdater)
		return k, k.use(secret)
	}
	return nil, errors.New("the key log has no CLIENT_TRAFFIC_SECRET_0")
}

func (k *KeyUpdater) expand(label string, n int) ([]byte, error) {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(6+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	return hkdf.Expand(sha256.New, k.secret, string(info), n)
}

func (k *KeyUpdater) use(secret []byte) error {
	k.secret, k.seq = secret, 0
	key, err := k.expand("key", 16)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return err
	}
	k.iv, err = k.expand("iv", 12)
	return err
}

// record appends one record of TLS 1.3 (RFC 8446, section 5.2).
func (k *KeyUpdater) record(out []byte, kind byte, body ...byte) []byte {
	inner := append(bytes.Clone(body), kind)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+16))
	nonce := bytes.Clone(k.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(k.seq >> (56 - 8*i))
	}
	k.seq++
	return k.aead.Seal(append(out, head...), nonce, inner, head)
}

// Data appends a record of application data.
func (k *KeyUpdater) Data(out []byte, body ...byte) []byte { return k.record(out, 23, body...) }

// Update appends a KeyUpdate that asks for none in return (section 4.6.3).
func (k *KeyUpdater) Update(out []byte) ([]byte, error) {
	out = k.record(out, 22, 24, 0, 0, 1, 0)
	next, err := k.expand("traffic upd", 32)
	if err != nil {
		return nil, err
	}
	return out, k.use(next)
}
