package privkey

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func openssl(t *testing.T, stdin []byte, command string) []byte {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("openssl", strings.Fields(command)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v", command, err)
	}
	return out
}

// Every form gives the key that openssl has encrypted. A wrong passphrase and a file that is cut anywhere are errors.
func TestDecrypt(t *testing.T) {
	t.Parallel()
	key := openssl(t, nil, "genpkey -algorithm ED25519")
	plain, _ := pem.Decode(key)
	for _, form := range []string{
		"-v2 aes128 -v2prf hmacWithSHA1", "-v2 aes192 -v2prf hmacWithSHA384", "-v2 aes256 -v2prf hmacWithSHA512",
		"-v2 des3 -v2prf hmacWithSHA512-224", "-scrypt", "-scrypt -scrypt_N 1024 -scrypt_r 4 -scrypt_p 3",
		"-v1 PBE-SHA1-3DES", "-v1 PBE-SHA1-2DES",
	} {
		block, _ := pem.Decode(openssl(t, key, "pkcs8 -topk8 -passout pass:s3cret "+form))
		before := bytes.Clone(block.Bytes)
		if got, err := decrypt(block.Bytes, []byte("s3cret")); err != nil || !bytes.Equal(got, plain.Bytes) {
			t.Errorf("%s: %v", form, err)
		}
		if !bytes.Equal(before, block.Bytes) {
			t.Errorf("%s: what is encrypted was changed", form)
		}
		if _, err := decrypt(block.Bytes, []byte("S3cret")); !errors.Is(err, errPassphrase) {
			t.Errorf("%s, with another passphrase: %v", form, err)
		}
		for n := range block.Bytes {
			if _, err := decrypt(block.Bytes[:n], []byte("s3cret")); err == nil {
				t.Errorf("%s: the first %d bytes are enough", form, n)
			}
		}
	}
}

// A damaged file is an error and no panic, whichever byte it is; a scrypt that wants gigabytes is one as well.
func TestDamaged(t *testing.T) {
	t.Parallel()
	key := openssl(t, nil, "genpkey -algorithm ED25519")
	block, _ := pem.Decode(openssl(t, key, "pkcs8 -topk8 -passout pass:s3cret -scrypt -scrypt_N 16"))
	for i := range block.Bytes {
		for _, b := range []byte{0, 1, 0x7f, 0xff} {
			damaged := bytes.Clone(block.Bytes)
			damaged[i] = b
			_, _ = decrypt(damaged, []byte("s3cret"))
		}
	}
	large, _ := pem.Decode(openssl(t, key, "pkcs8 -topk8 -passout pass:s3cret -scrypt -scrypt_N 16384"))
	at := bytes.Index(large.Bytes, []byte{2, 2, 0x40, 0}) // N
	if at < 0 {
		t.Fatal("there is no N")
	}
	large.Bytes[at+2] = 0x7f // openssl's own bound is twice the 16 MiB of 16384
	if _, err := decrypt(large.Bytes, []byte("s3cret")); !errors.Is(err, errDamaged) {
		t.Errorf("a scrypt of more than 32 MiB: %v", err)
	}
}

// Parameters by which a key would take minutes or years to derive are refused at once.
func TestTooLong(t *testing.T) {
	t.Parallel()
	type scryptParameters struct {
		Salt    []byte
		N, R, P int
	}
	salt := []byte("12345678")
	for _, c := range []struct {
		name       string
		derive     func(parameters []byte) error
		parameters any
		want       error
	}{
		{"PBKDF2", pbkdf2Error, saltAndCount{salt, 2048}, nil},
		{"PBKDF2", pbkdf2Error, saltAndCount{salt, maxIterations + 1}, errTooLong},
		{"PBKDF2", pbkdf2Error, saltAndCount{salt, 1 << 62}, errTooLong},
		{"PBES1", pbes1Error, saltAndCount{salt, 2048}, errDamaged}, // there is nothing to decrypt
		{"PBES1", pbes1Error, saltAndCount{salt, maxIterations + 1}, errTooLong},
		{"PBES1", pbes1Error, saltAndCount{salt, 1 << 62}, errTooLong},
		{"scrypt", scryptError, scryptParameters{salt, 16384, 8, 1}, nil},
		{"scrypt", scryptError, scryptParameters{salt, 16384, 8, 257}, errTooLong},
		{"scrypt", scryptError, scryptParameters{salt, 1 << 14, 1, 1 << 17}, errTooLong},
	} {
		der, err := asn1.Marshal(c.parameters)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.derive(der); !errors.Is(err, c.want) {
			t.Errorf("%s with %+v: %v, want %v", c.name, c.parameters, err, c.want)
		}
	}
}

func pbkdf2Error(parameters []byte) error {
	_, err := byPBKDF2(parameters, []byte("s3cret"), 32)
	return err
}

func pbes1Error(parameters []byte) error {
	_, err := pbes1(pbes1Ciphers["1.2.840.113549.1.12.1.3"], parameters, nil, []byte("s3cret"))
	return err
}

func scryptError(parameters []byte) error {
	_, err := byScrypt(parameters, []byte("s3cret"), 32)
	return err
}

// No arithmetic is done on a block that is longer than any key.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"} {
		_, err := Parse(&pem.Block{Type: kind, Bytes: make([]byte, maxSize+1)}, []byte("s3cret"))
		if err == nil || !strings.Contains(err.Error(), "it has 65537 bytes, and the limit is 65536") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
