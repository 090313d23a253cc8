package privkey

import (
	"crypto/des"  //nolint:gosec // see pkcs8.go
	"crypto/sha1" //nolint:gosec // the same
	"encoding/asn1"
	"math/big"
	"unicode/utf16"
	"unicode/utf8"
)

// saltAndCount are the parameters of a scheme.
type saltAndCount struct {
	Salt       []byte
	Iterations int
}

// pbes1 decrypts by the schemes that PKCS #12 has defined: with SHA-1, and the passphrase as a BMPString.
func pbes1(c blockCipher, parameters, data, passphrase []byte) ([]byte, error) {
	var p saltAndCount
	if _, err := asn1.Unmarshal(parameters, &p); err != nil || p.Iterations < 1 {
		return nil, errDamaged
	}
	if p.Iterations > maxIterations {
		return nil, errTooLong
	}
	key, iv := derive(forKey, passphrase, p, c.keySize), derive(forIV, passphrase, p, des.BlockSize)
	defer clear(key)
	return c.decrypt(key, iv, data)
}

// What derive makes.
const (
	forKey = 1
	forIV  = 2
)

// derive is the key derivation of RFC 7292, appendix B.2, with SHA-1.
func derive(purpose byte, passphrase []byte, p saltAndCount, size int) []byte {
	password := bmpString(passphrase)
	defer clear(password)
	diversifier := make([]byte, sha1.BlockSize)
	for i := range diversifier {
		diversifier[i] = purpose
	}
	input := append(repeat(p.Salt), repeat(password)...)
	defer clear(input)
	modulus := new(big.Int).Lsh(big.NewInt(1), 8*sha1.BlockSize)
	var out []byte
	for {
		sum := sha1.Sum(append(diversifier[:sha1.BlockSize:sha1.BlockSize], input...)) //nolint:gosec // the format says so
		for range p.Iterations - 1 {
			sum = sha1.Sum(sum[:]) //nolint:gosec // the same
		}
		if out = append(out, sum[:]...); len(out) >= size {
			return out[:size]
		}
		add := new(big.Int).SetBytes(repeat(sum[:]))
		add.Add(add, big.NewInt(1))
		for i := 0; i < len(input); i += sha1.BlockSize {
			block := input[i : i+sha1.BlockSize]
			n := new(big.Int).SetBytes(block)
			n.Add(n, add).Mod(n, modulus).FillBytes(block)
		}
	}
}

// repeat repeats bytes until a multiple of the block size of SHA-1 is full.
func repeat(of []byte) (out []byte) {
	for n := (len(of) + sha1.BlockSize - 1) / sha1.BlockSize * sha1.BlockSize; len(out) < n; {
		out = append(out, of[:min(len(of), n-len(out))]...)
	}
	return out
}

// bmpString writes a passphrase as OpenSSL does for PKCS #12 (crypto/pkcs12/p12_utl.c): UTF-16 with a zero at its end, from
// UTF-8 or else from Latin-1.
func bmpString(passphrase []byte) (out []byte) {
	var runes []rune
	if utf8.Valid(passphrase) {
		runes = []rune(string(passphrase))
	} else {
		for _, b := range passphrase {
			runes = append(runes, rune(b))
		}
	}
	for _, u := range append(utf16.Encode(runes), 0) {
		out = append(out, byte(u>>8), byte(u))
	}
	return out
}
