package privkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // keys of old are encrypted with it, and OpenSSL reads them
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // the same
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/scrypt"
)

// What decrypt fails with, besides errPassphrase.
var (
	errDamaged     = errors.New("the encrypted private key is damaged")
	errTooLong     = errors.New("the encrypted private key is damaged or made to take too long to decrypt: convert it with openssl pkcs8 -topk8 -v2 aes256")
	errUnsupported = errors.New("the key is encrypted in a way that is not supported: convert it with openssl pkcs8 -topk8 -v2 aes256")
)

// The algorithms of RFC 8018, appendix A, and RFC 7914, section 7.
const (
	oidPBES2  = "1.2.840.113549.1.5.13"
	oidPBKDF2 = "1.2.840.113549.1.5.12"
	oidScrypt = "1.3.6.1.4.1.11591.4.11"
)

// maxIterations bounds the work of deriving a key from a passphrase, to some ten seconds: a file must not stop a reload. OpenSSL
// has no bound. It writes 2,048 iterations unless told otherwise.
const maxIterations = 10_000_000

// hashes are those of PBKDF2 that "openssl pkcs8 -v2prf" has, by the algorithm of their HMAC.
var hashes = map[string]func() hash.Hash{
	"":                    sha1.New, // the default
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
	"1.2.840.113549.2.12": sha512.New512_224,
	"1.2.840.113549.2.13": sha512.New512_256,
}

// blockCipher is a cipher in CBC mode.
type blockCipher struct {
	keySize int
	make    func(key []byte) (cipher.Block, error)
}

var pbes2Ciphers = map[string]blockCipher{
	"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
	"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
}

// pbes1Ciphers are those of the schemes that OpenSSL 3 reads (RFC 7292, appendix C).
var pbes1Ciphers = map[string]blockCipher{
	"1.2.840.113549.1.12.1.3": {24, des.NewTripleDESCipher},
	"1.2.840.113549.1.12.1.4": {16, func(key []byte) (cipher.Block, error) {
		return des.NewTripleDESCipher(append(key[:16:16], key[:8]...)) //nolint:gosec // as above
	}},
}

// legacy are the schemes that OpenSSL 3 reads with its legacy provider only, and PostgreSQL with it.
var legacy = map[string]string{
	"1.2.840.113549.1.5.1": "PBE-MD2-DES", "1.2.840.113549.1.5.3": "PBE-MD5-DES", "1.2.840.113549.1.5.4": "PBE-MD2-RC2-64",
	"1.2.840.113549.1.5.6": "PBE-MD5-RC2-64", "1.2.840.113549.1.5.10": "PBE-SHA1-DES", "1.2.840.113549.1.5.11": "PBE-SHA1-RC2-64",
	"1.2.840.113549.1.12.1.1": "PBE-SHA1-RC4-128", "1.2.840.113549.1.12.1.2": "PBE-SHA1-RC4-40",
	"1.2.840.113549.1.12.1.5": "PBE-SHA1-RC2-128", "1.2.840.113549.1.12.1.6": "PBE-SHA1-RC2-40",
}

// decryptPKCS8 decrypts and parses. OpenSSL encrypts with no empty passphrase.
func decryptPKCS8(der, secret []byte) (any, error) {
	if len(secret) == 0 {
		return nil, errPassphrase
	}
	plain, err := decrypt(der, secret)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return parsePlain("PRIVATE KEY", plain)
}

// decrypt returns the PrivateKeyInfo in an EncryptedPrivateKeyInfo (RFC 5208, section 6). It fails with one of the errors
// above, or with one that names a scheme of OpenSSL's legacy provider. The caller clears the result. der is not changed.
func decrypt(der, passphrase []byte) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, errDamaged
	}
	scheme, parameters := info.Algorithm.Algorithm.String(), info.Algorithm.Parameters.FullBytes
	var plain []byte
	var err error
	c, isPBES1 := pbes1Ciphers[scheme]
	switch {
	case isPBES1:
		plain, err = pbes1(c, parameters, info.Data, passphrase)
	case legacy[scheme] != "":
		err = fmt.Errorf("the key is encrypted with %s, which OpenSSL 3 reads with its legacy provider only: "+
			"convert it with openssl pkcs8 -topk8 -v2 aes256 -provider legacy -provider default", legacy[scheme])
	case scheme == oidPBES2:
		plain, err = pbes2(parameters, info.Data, passphrase)
	default:
		err = errUnsupported
	}
	if err != nil {
		return nil, err
	}
	// The padding is right by accident for one wrong passphrase in 256.
	var key privateKeyInfo
	if _, err := asn1.Unmarshal(plain, &key); err != nil {
		clear(plain)
		return nil, errPassphrase
	}
	return plain, nil
}

// pbes2 is RFC 8018, section 6.2.2.
func pbes2(parameters, data, passphrase []byte) ([]byte, error) {
	var p struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	if _, err := asn1.Unmarshal(parameters, &p); err != nil {
		return nil, errDamaged
	}
	c, ok := pbes2Ciphers[p.Cipher.Algorithm.String()]
	if !ok {
		return nil, errUnsupported
	}
	var iv []byte
	if _, err := asn1.Unmarshal(p.Cipher.Parameters.FullBytes, &iv); err != nil {
		return nil, errDamaged
	}
	derive, ok := map[string]func(parameters, passphrase []byte, size int) ([]byte, error){oidPBKDF2: byPBKDF2, oidScrypt: byScrypt}[p.KDF.Algorithm.String()]
	if !ok {
		return nil, errUnsupported
	}
	key, err := derive(p.KDF.Parameters.FullBytes, passphrase, c.keySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return c.decrypt(key, iv, data)
}

func byPBKDF2(parameters, passphrase []byte, size int) ([]byte, error) {
	var p struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(parameters, &p); err != nil || p.Iterations < 1 {
		return nil, errDamaged
	}
	if p.Iterations > maxIterations {
		return nil, errTooLong
	}
	newHash, ok := hashes[p.PRF.Algorithm.String()]
	if !ok {
		return nil, errUnsupported
	}
	key, err := pbkdf2.Key(newHash, string(passphrase), p.Salt, p.Iterations, size)
	if err != nil { // such as by GODEBUG=fips140=only
		return nil, errUnsupported
	}
	return key, nil
}

// maxScrypt is OpenSSL's SCRYPT_MAX_MEM (crypto/evp/pbe_scrypt.c), in bytes.
const maxScrypt = 32 << 20

// maxScryptWork bounds N*r*p as maxIterations does for PBKDF2. OpenSSL writes 1 << 17.
const maxScryptWork = 1 << 25

func byScrypt(parameters, passphrase []byte, size int) ([]byte, error) {
	var p struct {
		Salt      []byte
		N, R, P   int
		KeyLength int `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(parameters, &p); err != nil || min(p.N, p.R, p.P) < 1 ||
		max(p.N, p.R, p.P) > maxScrypt || 128*p.R*(p.N+p.P+2) > maxScrypt {
		return nil, errDamaged
	}
	if p.N*p.R*p.P > maxScryptWork {
		return nil, errTooLong
	}
	key, err := scrypt.Key(passphrase, p.Salt, p.N, p.R, p.P, size)
	if err != nil {
		return nil, errDamaged
	}
	return key, nil
}

// decrypt decrypts in CBC mode and takes off the padding (RFC 8018, section 6.1.2).
func (c blockCipher) decrypt(key, iv, data []byte) ([]byte, error) {
	block, err := c.make(key)
	if err != nil {
		return nil, errUnsupported
	}
	size := block.BlockSize()
	if len(iv) != size || len(data) == 0 || len(data)%size != 0 {
		return nil, errDamaged
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	padding := int(plain[len(plain)-1])
	if padding == 0 || padding > size {
		clear(plain)
		return nil, errPassphrase
	}
	for _, b := range plain[len(plain)-padding:] {
		if int(b) != padding {
			clear(plain)
			return nil, errPassphrase
		}
	}
	return plain[:len(plain)-padding], nil
}
