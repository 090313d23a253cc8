package privkey

import (
	"bytes"
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
