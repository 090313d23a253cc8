package tlsconfig

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/youmark/pkcs8"

	"pgwicket/internal/passphrase"
	"pgwicket/internal/privkey"
	"pgwicket/internal/tlstest"
)

// keep writes a file that only its owner can read.
func keep(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// openssl runs openssl and returns its output.
func openssl(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("openssl %q: %s", args, exit.Stderr)
	}
	return out
}

func fields(s string) []string { return strings.Fields(s) }

func answer(secret string) passphrases {
	return passphrases{ask: func(string) ([]byte, error) { return []byte(secret), nil }}
}

func TestKeysOfOpenSSL(t *testing.T) {
	t.Parallel()
	rsa := openssl(t, nil, fields("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048")...)
	ec := openssl(t, nil, fields("ecparam -name prime256v1 -genkey")...)
	for _, c := range []struct {
		what string
		key  []byte
		want string // the kind of key, or a part of the error
	}{
		{"RSA, PKCS#8", rsa, "RSA 2048"},
		{"RSA, PKCS#1", openssl(t, rsa, fields("rsa -traditional")...), "RSA 2048"},
		{"EC, SEC 1, with parameters before it", ec, "ECDSA P-256"},
		{"P-384", openssl(t, nil, fields("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384")...), "ECDSA P-384"},
		{"P-521", openssl(t, nil, fields("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521")...), "ECDSA P-521"},
		{"Ed25519", openssl(t, nil, fields("genpkey -algorithm ED25519")...), "Ed25519"},

		{"legacy, AES-256", openssl(t, rsa, fields("rsa -traditional -aes256 -passout pass:s3cret")...), "RSA 2048"},
		{"legacy, 3DES", openssl(t, rsa, fields("rsa -traditional -des3 -passout pass:s3cret")...), "RSA 2048"},
		{"legacy, EC", openssl(t, ec, fields("ec -aes128 -passout pass:s3cret")...), "ECDSA P-256"},
		{"legacy, a cipher Go has not", openssl(t, rsa, fields("rsa -traditional -camellia256 -passout pass:s3cret")...), "openssl pkcs8 -topk8 -v2 aes256"},
		{"PBES2 by default", openssl(t, rsa, fields("pkcs8 -topk8 -passout pass:s3cret")...), "RSA 2048"},
		{"AES-128", openssl(t, rsa, fields("pkcs8 -topk8 -v2 aes128 -passout pass:s3cret")...), "RSA 2048"},
		{"SHA-1", openssl(t, rsa, fields("pkcs8 -topk8 -v2 aes256 -v2prf hmacWithSHA1 -passout pass:s3cret")...), "RSA 2048"},
		{"3DES", openssl(t, ec, fields("pkcs8 -topk8 -v2 des3 -passout pass:s3cret")...), "ECDSA P-256"},
		{"scrypt", openssl(t, ec, fields("pkcs8 -topk8 -scrypt -passout pass:s3cret")...), "ECDSA P-256"},
		{"SHA-384", openssl(t, ec, fields("pkcs8 -topk8 -v2 aes192 -v2prf hmacWithSHA384 -passout pass:s3cret")...), "ECDSA P-256"},
		{"SHA-512", openssl(t, rsa, fields("pkcs8 -topk8 -v2 aes256 -v2prf hmacWithSHA512 -passout pass:s3cret")...), "RSA 2048"},
		{"SHA-512/256", openssl(t, rsa, fields("pkcs8 -topk8 -v2 aes256 -v2prf hmacWithSHA512-256 -passout pass:s3cret")...), "RSA 2048"},
		{"SHA-224", openssl(t, rsa, fields("pkcs8 -topk8 -v2 des3 -v2prf hmacWithSHA224 -passout pass:s3cret")...), "RSA 2048"},
		{"a cipher Go has not", openssl(t, rsa, fields("pkcs8 -topk8 -v2 camellia256 -passout pass:s3cret")...), "openssl pkcs8 -topk8 -v2 aes256"},
		{"PBES1, 3DES", openssl(t, rsa, fields("pkcs8 -topk8 -v1 PBE-SHA1-3DES -passout pass:s3cret")...), "RSA 2048"},
		{"PBES1, 3DES with two keys, many iterations", openssl(t, ec, fields("pkcs8 -topk8 -v1 PBE-SHA1-2DES -iter 5000 -passout pass:s3cret")...), "ECDSA P-256"},
		{"PBES1, a cipher of the legacy provider", openssl(t, rsa, fields("pkcs8 -topk8 -v1 PBE-MD5-DES -provider legacy -provider default -passout pass:s3cret")...), "PBE-MD5-DES, which OpenSSL 3 reads with its legacy provider only"},
		{"PBES1, RC2", openssl(t, rsa, fields("pkcs8 -topk8 -v1 PBE-SHA1-RC2-40 -provider legacy -provider default -passout pass:s3cret")...), "PBE-SHA1-RC2-40"},
		{"another passphrase, PBES1", openssl(t, rsa, fields("pkcs8 -topk8 -v1 PBE-SHA1-3DES -passout pass:other")...), "the passphrase is wrong"},
		{"an encrypted key of another kind", openssl(t, openssl(t, nil, fields("genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048")...), fields("pkcs8 -topk8 -passout pass:s3cret")...), "id-RSASSA-PSS"},
		{"another passphrase", openssl(t, rsa, fields("pkcs8 -topk8 -v2 aes256 -passout pass:other")...), "the passphrase is wrong"},
		{"another passphrase, scrypt", openssl(t, rsa, fields("pkcs8 -topk8 -scrypt -passout pass:other")...), "the passphrase is wrong"},
		{"another passphrase, legacy", openssl(t, rsa, fields("rsa -traditional -aes256 -passout pass:other")...), "the passphrase is wrong"},

		{"RSA-PSS", openssl(t, nil, fields("genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048")...), "id-RSASSA-PSS"},
		{"secp256k1", openssl(t, nil, fields("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1")...), "damaged or of a kind that Go cannot use"},
		{"P-224", openssl(t, nil, fields("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-224")...), "crypto/tls cannot use"},
		{"X25519", openssl(t, nil, fields("genpkey -algorithm X25519")...), "crypto/tls cannot use"},
		{"Ed448", openssl(t, nil, fields("genpkey -algorithm ED448")...), "damaged or of a kind that Go cannot use"},
	} {
		t.Run(c.what, func(t *testing.T) { checkKey(t, c.key, answer("s3cret"), c.want) })
	}
}

// A passphrase is UTF-16 for PBES1, and its bytes elsewhere; keys of every length of it are read.
func TestPassphrasesOfOpenSSL(t *testing.T) {
	t.Parallel()
	key := openssl(t, nil, fields("genpkey -algorithm ED25519")...)
	for _, secret := range []string{"four", "gr\u00fc\u00dfe", "\U0001f511 key", strings.Repeat("a long one ", 40)} {
		for _, form := range []string{"-v1 PBE-SHA1-3DES", "-v2 aes256 -v2prf hmacWithSHA384"} {
			encrypted := openssl(t, key, append(fields("pkcs8 -topk8 "+form), "-passout", "pass:"+secret)...)
			checkKey(t, encrypted, answer(secret), "Ed25519")
		}
	}
}

func TestKeysOfGo(t *testing.T) {
	t.Parallel()
	pair := tlstest.NewCA("root").Server("localhost")
	sec1, _ := x509.ParsePKCS8PrivateKey(decode(pair.KeyPEM()))
	scrypt, err := pkcs8.MarshalPrivateKey(sec1, []byte("s3cret"), &pkcs8.Opts{
		Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 8, CostParameter: 2, BlockSize: 8, ParallelizationParameter: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: scrypt})
	block := func(kind, der string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(der)})
	}
	for _, c := range []struct {
		what    string
		key     []byte
		secrets passphrases
		want    string
	}{
		{"plain", pair.KeyPEM(), passphrases{}, "ECDSA P-256"},
		{"behind its certificate", append(pair.CertPEM(), pair.KeyPEM()...), passphrases{}, "ECDSA P-256"},
		{"the first of two", append(pair.KeyPEM(), block("RSA PRIVATE KEY", "x")...), passphrases{}, "ECDSA P-256"},
		{"encrypted", encrypted, answer("s3cret"), "ECDSA P-256"},
		{"wrong passphrase", encrypted, answer("S3cret"), "the passphrase is wrong"},
		{"no passphrase", encrypted, answer(""), "the passphrase is wrong"},
		{"no terminal", encrypted, passphrases{}, "set passphrase_command or start from a terminal"},
		{"no answer", encrypted, passphrases{ask: func(string) ([]byte, error) { return nil, io.EOF }}, `could not be read: "EOF"`},
		{"cut short", encrypted[:len(encrypted)/2], answer("s3cret"), "its PEM is damaged"},
		{"damaged", block("ENCRYPTED PRIVATE KEY", string(damage(t, scrypt))), answer("s3cret"), "damaged"},
		{"not ASN.1", block("ENCRYPTED PRIVATE KEY", "hello"), answer("s3cret"), "the encrypted private key is damaged"},
		{"not a key", block("PRIVATE KEY", "hello"), passphrases{}, "damaged or of a kind"},
		{"of ssh", block("OPENSSH PRIVATE KEY", "openssh-key-v1"), passphrases{}, "ssh-keygen -p -m PKCS8"},
		{"empty", nil, passphrases{}, "holds no private key in PEM: it is empty"},
		{"DER", decode(pair.KeyPEM()), passphrases{}, "holds no private key in PEM: convert it with openssl pkey -inform DER"},
		{"a certificate", pair.CertPEM(), passphrases{}, "holds no private key in PEM: it holds a certificate alone"},
		{"a text", []byte("server.key"), passphrases{}, "holds no private key in PEM: write one in PEM"},
	} {
		t.Run(c.what, func(t *testing.T) { checkKey(t, c.key, c.secrets, c.want) })
	}
}

func decode(data []byte) []byte {
	block, _ := pem.Decode(data)
	return block.Bytes
}

// damage makes the ciphertext end in the middle of a block of the cipher.
func damage(t *testing.T, der []byte) []byte {
	t.Helper()
	var info struct {
		Algorithm asn1.RawValue
		Data      []byte
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		t.Fatal(err)
	}
	info.Data = info.Data[:len(info.Data)-1]
	der, err := asn1.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// checkKey expects a kind of key, or else a part of an error, which is one line with the file and no secret.
func checkKey(t *testing.T, data []byte, secrets passphrases, want string) {
	t.Helper()
	file := keep(t, "server.key", data)
	key, err := readKey(file, secrets)
	if err == nil {
		if got := privkey.Name(key.Public()); got != want {
			t.Errorf("read a key %s, want %s", got, want)
		}
		return
	}
	text := err.Error()
	if !strings.Contains(text, want) || !strings.Contains(text, file) || strings.Contains(text, "\n") || strings.Contains(text, "s3cret") {
		t.Errorf("error %s\nwant: %s, with the file", text, want)
	}
}

func TestKeyFileRule(t *testing.T) {
	t.Parallel()
	me := os.Geteuid()
	for _, c := range []struct {
		mode        os.FileMode
		owner, euid int
		want        string // a part of the error; empty is none
	}{
		{0o600, 0, 0, ""},
		{0o400, 0, 0, ""},
		{0o640, 0, 0, ""},
		{0o640, 0, 4711, ""},
		{0o660, 0, 4711, "chmod 0640"},
		{0o650, 0, 4711, "chmod 0640"},
		{0o644, 0, 4711, "chmod 0640"},
		{0o604, 0, 0, "chmod 0640"},
		{0o600, 4711, 4711, ""},
		{0o700, 4711, 4711, ""},
		{0o640, 4711, 4711, "chmod 0600"},
		{0o604, 4711, 4711, "chmod 0600"},
		{0o666, 4711, 4711, "chmod 0600"},
		{0o600, 4711, 4712, "belongs to user 4711, and this process runs as user 4712: run it as the account of the gate; the key must belong to that account or to root"},
		{0o600, 4711, 0, "this process runs as root (0)"},
		{0o600, me, me, ""},
		{0o604, me, me, ": only "},
	} {
		file := keep(t, "server.key", nil)
		if os.Chmod(file, c.mode) != nil || os.Chown(file, c.owner, -1) != nil {
			continue // only root can give files away
		}
		st, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		err = keyFileRule(file, st, c.euid, false)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%04o of %d for %d: %v, want %q", c.mode, c.owner, c.euid, err, c.want)
		}
		// Only the account in user is one to give the file to.
		if err = keyFileRule(file, st, c.euid, true); c.owner == 4711 && c.euid == 4712 &&
			(err == nil || !strings.Contains(err.Error(), `it must belong to user 4712, the account in user, or to root: chown 4712 "`)) {
			t.Errorf("%d for %d, which user names: %v", c.owner, c.euid, err)
		}
	}
}

func TestPassphraseCommand(t *testing.T) {
	t.Parallel()
	const file = "/etc/pgwicket/server.key"
	for _, c := range []struct{ command, want, err string }{
		{"echo s3cret", "s3cret", ""},
		{"echo '%p'", "Enter PEM pass phrase for " + file + ":", ""},
		{"echo '100%% %%p'", "100% %p", ""},
		{"exit 3", "", "exit status 3"},
		{"echo %d s3cret", "", `only "p" (the prompt) and "%" are known`},
		{"echo s3cret %", "", `only "p"`},
	} {
		got, err := passphrases{command: c.command, timeout: passphrase.Timeout}.get(file)
		fault := &passphraseError{}
		switch {
		case c.err == "" && (err != nil || string(got) != c.want):
			t.Errorf("%s: %q, %v, want %q", c.command, got, err, c.want)
		case c.err == "":
		case !errors.As(err, &fault) || !strings.Contains(err.Error(), c.err):
			t.Errorf("%s: %q, %v, want a passphraseError with %q", c.command, got, err, c.err)
		}
	}
}

func TestPromptNeedsNoQuoting(t *testing.T) {
	t.Parallel()
	for _, file := range []string{`a"b`, "a'b", "a$(b)", "a`b`", `a\b`, "a\nb"} {
		p := passphrases{command: `echo "%p"`, timeout: passphrase.Timeout}
		if got, err := p.get(file); string(got) != "Enter PEM pass phrase:" {
			t.Errorf("%q: %q, %v", file, got, err)
		}
	}
}
