package privkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // keys of old are encrypted with it, and OpenSSL reads them
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // the same
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/youmark/pkcs8"
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13} // RFC 8018, appendix A.4
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

// pbkdf2Hashes are the hashes of PBKDF2 that "openssl pkcs8 -v2prf" has, by the algorithm of their HMAC.
var pbkdf2Hashes = map[string]func() hash.Hash{
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

// pbes1Ciphers are those of the schemes of PBES1 that OpenSSL 3 reads (RFC 7292, appendix C).
var pbes1Ciphers = map[string]blockCipher{
	"1.2.840.113549.1.12.1.3": {24, des.NewTripleDESCipher},
	"1.2.840.113549.1.12.1.4": {16, twoKeyTripleDES},
}

// legacyPBES1 are the schemes that OpenSSL 3 reads with its legacy provider only, and PostgreSQL with it.
var legacyPBES1 = map[string]string{
	"1.2.840.113549.1.5.1": "PBE-MD2-DES", "1.2.840.113549.1.5.3": "PBE-MD5-DES", "1.2.840.113549.1.5.4": "PBE-MD2-RC2-64",
	"1.2.840.113549.1.5.6": "PBE-MD5-RC2-64", "1.2.840.113549.1.5.10": "PBE-SHA1-DES", "1.2.840.113549.1.5.11": "PBE-SHA1-RC2-64",
	"1.2.840.113549.1.12.1.1": "PBE-SHA1-RC4-128", "1.2.840.113549.1.12.1.2": "PBE-SHA1-RC4-40",
	"1.2.840.113549.1.12.1.5": "PBE-SHA1-RC2-128", "1.2.840.113549.1.12.1.6": "PBE-SHA1-RC2-40",
}

var (
	errEncryption = errors.New("the key is encrypted in a way that Go does not support: convert it with openssl pkcs8 -topk8 -v2 aes256")
	errDamagedKey = errors.New("the encrypted private key is damaged")
)

func twoKeyTripleDES(key []byte) (cipher.Block, error) {
	return des.NewTripleDESCipher(append(key[:16:16], key[:8]...))
}

// saltAndCount are the parameters of a scheme of PBES1.
type saltAndCount struct {
	Salt       []byte
	Iterations int
}

// pbkdf2Parameters are those of PBKDF2 (RFC 8018, appendix A.2). A missing PRF is HMAC with SHA-1.
type pbkdf2Parameters struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// decryptPKCS8 decrypts a key in the forms that OpenSSL 3 writes. The format does not tell a wrong passphrase from a key that
// cannot be parsed.
func decryptPKCS8(der, secret []byte) (key any, err error) {
	if len(secret) == 0 { // youmark/pkcs8 would parse the key as one that is not encrypted
		return nil, errPassphrase
	}
	// crypto/cipher and youmark/pkcs8 panic for lengths in a damaged file; a reload must not end the process.
	defer func() {
		if recover() != nil {
			key, err = nil, errDamagedKey
		}
	}()
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, errDamagedKey
	}
	scheme := info.Algorithm.Algorithm.String()
	var plain []byte
	c, isPBES1 := pbes1Ciphers[scheme]
	switch {
	case isPBES1:
		plain, err = decryptPBES1(c, info.Algorithm.Parameters.FullBytes, info.Data, secret)
	case legacyPBES1[scheme] != "":
		return nil, fmt.Errorf("the key is encrypted with %s, which OpenSSL 3 reads with its legacy provider only: "+
			"convert it with openssl pkcs8 -topk8 -v2 aes256 -provider legacy -provider default", legacyPBES1[scheme])
	case info.Algorithm.Algorithm.Equal(oidPBES2):
		return decryptPBES2(info.Algorithm.Parameters.FullBytes, info.Data, der, secret)
	default:
		return nil, errEncryption
	}
	return parseDecrypted(plain, err)
}

// decryptPBES2 leaves scrypt to youmark/pkcs8.
func decryptPBES2(parameters, data, whole, secret []byte) (any, error) {
	var p struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	if _, err := asn1.Unmarshal(parameters, &p); err != nil {
		return nil, errDamagedKey
	}
	if !p.KDF.Algorithm.Equal(oidPBKDF2) {
		key, err := pkcs8.ParsePKCS8PrivateKey(whole, secret)
		if err != nil && err.Error() != "pkcs8: incorrect password" {
			return nil, errEncryption
		}
		return key, wrongPassphrase(err)
	}
	var kdf pbkdf2Parameters
	var iv []byte
	if _, err := asn1.Unmarshal(p.KDF.Parameters.FullBytes, &kdf); err != nil || kdf.Iterations < 1 {
		return nil, errDamagedKey
	}
	c, ok := pbes2Ciphers[p.Cipher.Algorithm.String()]
	newHash := sha1.New
	if kdf.PRF.Algorithm != nil {
		newHash = pbkdf2Hashes[kdf.PRF.Algorithm.String()]
	}
	if !ok || newHash == nil {
		return nil, errEncryption
	}
	if _, err := asn1.Unmarshal(p.Cipher.Parameters.FullBytes, &iv); err != nil {
		return nil, errDamagedKey
	}
	key, err := pbkdf2.Key(newHash, string(secret), kdf.Salt, kdf.Iterations, c.keySize)
	if err != nil {
		return nil, errEncryption
	}
	defer clear(key)
	return parseDecrypted(c.decrypt(key, iv, data))
}

// decryptPBES1 is the one that PKCS #12 has defined: SHA-1, and the passphrase as a BMPString.
func decryptPBES1(c blockCipher, parameters, data, secret []byte) ([]byte, error) {
	var p saltAndCount
	if _, err := asn1.Unmarshal(parameters, &p); err != nil || p.Iterations < 1 {
		return nil, errDamagedKey
	}
	key, iv := pkcs12Bytes(1, secret, p, c.keySize), pkcs12Bytes(2, secret, p, des.BlockSize)
	defer clear(key)
	return c.decrypt(key, iv, data)
}

// pkcs12Bytes is the key derivation of RFC 7292, appendix B.2, with SHA-1. The purpose is 1 for a key and 2 for an IV.
func pkcs12Bytes(purpose byte, secret []byte, p saltAndCount, size int) []byte {
	password := bmpString(secret)
	defer clear(password)
	fill := func(of []byte) (out []byte) { // to a multiple of the block size
		for n := (len(of) + sha1.BlockSize - 1) / sha1.BlockSize * sha1.BlockSize; len(out) < n; {
			out = append(out, of[:min(len(of), n-len(out))]...)
		}
		return out
	}
	diversifier := make([]byte, sha1.BlockSize)
	for i := range diversifier {
		diversifier[i] = purpose
	}
	input := append(fill(p.Salt), fill(password)...)
	defer clear(input)
	var out []byte
	for {
		sum := sha1.Sum(append(diversifier[:sha1.BlockSize:sha1.BlockSize], input...)) //nolint:gosec // the format says so
		for range p.Iterations - 1 {
			sum = sha1.Sum(sum[:]) //nolint:gosec // the same
		}
		if out = append(out, sum[:]...); len(out) >= size {
			return out[:size]
		}
		add := new(big.Int).SetBytes(fill(sum[:])[:sha1.BlockSize])
		add.Add(add, big.NewInt(1))
		modulus := new(big.Int).Lsh(big.NewInt(1), 8*sha1.BlockSize)
		for i := 0; i < len(input); i += sha1.BlockSize {
			block := input[i : i+sha1.BlockSize]
			n := new(big.Int).SetBytes(block)
			n.Add(n, add).Mod(n, modulus).FillBytes(block)
		}
	}
}

// bmpString writes a passphrase as OpenSSL does for PKCS #12: UTF-16 with a zero at its end, from UTF-8 or else from Latin-1.
func bmpString(secret []byte) (out []byte) {
	var runes []rune
	if utf8.Valid(secret) {
		runes = []rune(string(secret))
	} else {
		for _, b := range secret {
			runes = append(runes, rune(b))
		}
	}
	for _, u := range append(utf16.Encode(runes), 0) {
		out = append(out, byte(u>>8), byte(u))
	}
	return out
}

// decrypt decrypts in CBC mode and takes off the padding (RFC 8018, section 6.1.2), in place.
func (c blockCipher) decrypt(key, iv, data []byte) ([]byte, error) {
	block, err := c.make(key)
	if err != nil {
		return nil, errEncryption
	}
	size := block.BlockSize()
	if len(iv) != size || len(data) == 0 || len(data)%size != 0 {
		return nil, errDamagedKey
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(data, data)
	padding := int(data[len(data)-1])
	if padding == 0 || padding > size || subtle.ConstantTimeByteEq(data[len(data)-padding], byte(padding)) != 1 {
		return nil, errPassphrase
	}
	return data[:len(data)-padding], nil
}

// parseDecrypted parses what a passphrase has decrypted.
func parseDecrypted(plain []byte, err error) (any, error) {
	if err != nil {
		return nil, wrongPassphrase(err)
	}
	defer clear(plain)
	key, err := parsePlain("PRIVATE KEY", plain)
	if err != nil && isPrivateKeyInfo(plain) { // the passphrase is right
		return nil, err
	}
	if err != nil {
		return nil, wrongPassphrase(errPassphrase)
	}
	return key, nil
}

func isPrivateKeyInfo(der []byte) bool {
	var info privateKeyInfo
	_, err := asn1.Unmarshal(der, &info)
	return err == nil
}

// wrongPassphrase adds to an error about the passphrase what else it may be.
func wrongPassphrase(err error) error {
	if err == nil || errors.Is(err, errDamagedKey) || errors.Is(err, errEncryption) {
		return err
	}
	return fmt.Errorf("%w, or the key is not one of %s", errPassphrase, usableKeys)
}
