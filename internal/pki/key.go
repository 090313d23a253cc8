package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/youmark/pkcs8"

	"pgwicket/internal/privkey"
)

// Key types of [InitOptions] and [Request].
const (
	ECDSA = "ecdsa" // on P-256
	RSA   = "rsa"   // of 3072 bits, for clients that know nothing else
)

const (
	rsaBits    = 3072
	maxRSABits = 8192 // of crypto/tls (maxRSAKeySize)
)

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case RSA:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case ECDSA, "":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return nil, fmt.Errorf("the key type %q is unknown: write ecdsa or rsa", kind)
}

// encodeKey returns a private key as PEM of PKCS #8; encrypted, if there is a passphrase,
// with AES-256 and scrypt, whose cost is openssl's default and the most that it reads.
func encodeKey(key crypto.Signer, passphrase []byte) ([]byte, error) {
	kind, options := "PRIVATE KEY", (*pkcs8.Opts)(nil)
	if len(passphrase) > 0 {
		kind = "ENCRYPTED PRIVATE KEY"
		options = &pkcs8.Opts{
			Cipher:  pkcs8.AES256CBC,
			KDFOpts: pkcs8.ScryptOpts{SaltSize: 16, CostParameter: 1 << 14, BlockSize: 8, ParallelizationParameter: 1},
		}
	}
	if options == nil {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), nil
	}
	der, err := pkcs8.MarshalPrivateKey(key, passphrase, options)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), nil
}

// readKey reads the private key in a file.
func readKey(path string, s Secrets) (crypto.Signer, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(path); err != nil {
		return nil, err
	}
	block := keyBlock(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no private key in PEM", path)
	}
	if !privkey.Encrypted(block) {
		key, err := privkey.Parse(block, nil)
		return key, inFile(path, err)
	}
	for tries := max(1, s.Attempts); ; tries-- {
		secret, err := s.passphrase(path, false)
		if err != nil {
			return nil, fmt.Errorf("%s is encrypted: %w", path, err)
		}
		key, err := privkey.Parse(keyBlock(data), secret)
		clear(secret)
		if err == nil || tries == 1 || !strings.Contains(err.Error(), "passphrase is wrong") {
			return key, inFile(path, err)
		}
	}
}

func keyBlock(data []byte) *pem.Block {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return block
		}
	}
	return nil
}

func inFile(path string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// keyID is the subject key identifier of RFC 7093, section 2, method 1. SHA-1, which
// openssl's "hash" is, would be refused by GODEBUG=fips140=only.
func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}

// checkStrength refuses the public key of a request that peers or PostgreSQL would refuse.
func checkStrength(public crypto.PublicKey) error {
	if k, ok := public.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
		return fmt.Errorf("its key, RSA %d, is too weak: make one of at least RSA 2048, or ECDSA on P-256", k.N.BitLen())
	}
	if k, ok := public.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSABits {
		return fmt.Errorf("its key, RSA %d, is too long, and TLS in Go refuses it: make one of RSA 3072, or ECDSA on P-256", k.N.BitLen())
	}
	if privkey.Name(public) == "" {
		return errors.New("its key is of a kind that TLS in Go cannot use: make one of ECDSA on P-256, or of RSA 3072")
	}
	return nil
}
