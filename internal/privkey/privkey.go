// Package privkey parses private keys in the forms that openssl writes, encrypted ones among them, if crypto/tls can sign a
// handshake with them.
package privkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

// usableKeys are the kinds of keys that crypto/tls can sign a handshake with.
const usableKeys = "RSA, ECDSA on P-256, P-384 or P-521, or Ed25519"

var oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}

// Encrypted reports whether a PEM block of a private key needs a passphrase.
func Encrypted(block *pem.Block) bool {
	return isLegacy(block) || block.Type == "ENCRYPTED PRIVATE KEY"
}

func isLegacy(block *pem.Block) bool {
	_, legacy := block.Headers["DEK-Info"] // RFC 1421, section 4.6.1.3
	return legacy
}

// maxSize is the size of the largest PEM block that is parsed, in bytes. A key of RSA 16384, the largest that OpenSSL makes, has
// less than 10,000. The time of the arithmetic in crypto/x509 grows faster than the size.
const maxSize = 64 << 10

// Parse parses a PEM block of a private key, and decrypts it with secret before if it is Encrypted. It may overwrite the
// block's bytes. Its errors say how to convert a key that it cannot read.
func Parse(block *pem.Block, secret []byte) (crypto.Signer, error) {
	if len(block.Bytes) > maxSize {
		return nil, fmt.Errorf("the private key is damaged: it has %d bytes, and the limit is %d", len(block.Bytes), maxSize)
	}
	var key any
	var err error
	switch {
	case isLegacy(block):
		key, err = decryptLegacy(block, secret)
	case Encrypted(block):
		key, err = decryptPKCS8(block.Bytes, secret)
	default:
		key, err = parsePlain(block.Type, block.Bytes)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok || Name(signer.Public()) == "" {
		return nil, fmt.Errorf("crypto/tls cannot use this kind of key: create one of %s, and its certificate", usableKeys)
	}
	return signer, nil
}

// parsePlain parses a key by the type of its PEM block. The errors of crypto/x509 are left out: they are about ASN.1 or
// about other functions to call.
func parsePlain(kind string, der []byte) (any, error) {
	var key any
	var err error
	switch kind {
	case "PRIVATE KEY":
		if isRSAPSS(der) {
			return nil, fmt.Errorf("a key for RSA-PSS only (id-RSASSA-PSS) cannot be used by Go: create one of %s, and its certificate", usableKeys)
		}
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	default: // OPENSSH, DSA, ANY, …
		return nil, fmt.Errorf("a PEM block %q cannot be read by Go: convert it with openssl pkey, or ssh-keygen -p -m PKCS8", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("the private key is damaged or of a kind that Go cannot use: create one of %s", usableKeys)
	}
	return key, nil
}

// privateKeyInfo is PKCS #8 (RFC 5208, section 5), as far as it is looked at.
type privateKeyInfo struct {
	Version   int
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
	Rest      []asn1.RawValue `asn1:"optional,omitempty"`
}

func isRSAPSS(der []byte) bool {
	var info privateKeyInfo
	_, err := asn1.Unmarshal(der, &info)
	return err == nil && info.Algorithm.Algorithm.Equal(oidRSAPSS)
}

var errPassphrase = errors.New("the passphrase is wrong")

// decryptLegacy decrypts "Proc-Type: 4,ENCRYPTED". The padding is the only check of the passphrase, and one wrong
// passphrase in 256 passes it: then the key cannot be parsed.
func decryptLegacy(block *pem.Block, secret []byte) (any, error) {
	//nolint:staticcheck // deprecated because the format is weak, but openssl rsa -traditional still writes it
	der, err := x509.DecryptPEMBlock(block, secret)
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, errPassphrase
	}
	if err != nil {
		return nil, errors.New("the key is encrypted in a way that Go does not support: convert it with openssl pkcs8 -topk8 -v2 aes256")
	}
	defer clear(der)
	key, err := parsePlain(block.Type, der)
	if err != nil {
		return nil, errPassphrase
	}
	return key, nil
}

// Name returns the kind and size of a public key; empty if crypto/tls cannot use it.
func Name(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return "ECDSA " + k.Params().Name
		}
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return ""
}
