package chains

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// key signs certificates and stands in one.
type key struct {
	signer crypto.Signer
	spki   []byte
	id     []byte
	pem    []byte
	file   string
}

// keys are made once for all cases.
type keys struct {
	dir               string
	root, sub, leaf   *key // P-256
	other             *key // P-256
	p224, p384, p521  *key
	ed25519           *key
	rsa, rsaLeaf      *key // 2048 bits
	rsa1024, rsa2047  *key
	rsa3, rsaLargeExp *key // public exponents 3 and 2^32+1
}

func makeKeys(dir string) (*keys, error) {
	k := &keys{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, m := range []struct {
		to   **key
		make func() (crypto.Signer, error)
	}{
		{&k.root, onCurve(elliptic.P256())},
		{&k.sub, onCurve(elliptic.P256())},
		{&k.leaf, onCurve(elliptic.P256())},
		{&k.other, onCurve(elliptic.P256())},
		{&k.p224, onCurve(elliptic.P224())},
		{&k.p384, onCurve(elliptic.P384())},
		{&k.p521, onCurve(elliptic.P521())},
		{&k.ed25519, func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err }},
		{&k.rsa, modulus(2048)},
		{&k.rsaLeaf, modulus(2048)},
		{&k.rsa1024, modulus(1024)},
		{&k.rsa2047, modulus(2047)},
		{&k.rsa3, k.exponent("3")},
		{&k.rsaLargeExp, k.exponent("4294967297")},
	} {
		signer, err := m.make()
		if err != nil {
			return nil, err
		}
		if *m.to, err = newKey(signer); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func onCurve(c elliptic.Curve) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return ecdsa.GenerateKey(c, rand.Reader) }
}

func modulus(n int) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, n) }
}

// opensslKey is a key that only the openssl command signs with.
type opensslKey struct {
	file   string
	public crypto.PublicKey
}

func (o opensslKey) Public() crypto.PublicKey { return o.public }

// exponent makes an RSA key with a public exponent that crypto/rsa does not
// generate.
func (k *keys) exponent(e string) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) {
		file := filepath.Join(k.dir, "rsa-e"+e+".key")
		_, err := openssl(nil, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:"+e, "-out", file)
		return opensslKey{file: file}, err
	}
}

func (o opensslKey) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("%s signs whole messages only", o.file)
}

func newKey(signer crypto.Signer) (*key, error) {
	k := &key{signer: signer}
	if o, ok := signer.(opensslKey); ok {
		return k.load(o.file)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, err
	}
	k.pem = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if k.spki, err = x509.MarshalPKIXPublicKey(signer.Public()); err != nil {
		return nil, err
	}
	k.identify()
	return k, nil
}

// load takes a key from a file of the openssl command.
func (k *key) load(file string) (_ *key, err error) {
	k.file = file
	if k.pem, err = os.ReadFile(file); err != nil {
		return nil, err
	}
	if k.spki, err = openssl(nil, "pkey", "-in", file, "-pubout", "-outform", "DER"); err != nil {
		return nil, err
	}
	k.identify()
	return k, nil
}

func (k *key) identify() {
	sum := sha1.Sum(k.spki)
	k.id = sum[:]
}

func openssl(stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("openssl %q: %w\n%s", args, err, stderr.Bytes())
	}
	return out, nil
}

// algorithm is the identifier of the key's signatures with a hash.
func (k *key) algorithm(h crypto.Hash) []byte {
	switch k.signer.Public().(type) {
	case ed25519.PublicKey:
		return seq(oid("1.3.101.112"))
	case *ecdsa.PublicKey:
		return seq(oid(map[crypto.Hash]string{
			crypto.SHA1: "1.2.840.10045.4.1", crypto.SHA224: "1.2.840.10045.4.3.1", crypto.SHA256: "1.2.840.10045.4.3.2",
			crypto.SHA384: "1.2.840.10045.4.3.3", crypto.SHA512: "1.2.840.10045.4.3.4",
		}[h]))
	}
	return seq(oid(map[crypto.Hash]string{
		crypto.SHA1: "1.2.840.113549.1.1.5", crypto.SHA224: "1.2.840.113549.1.1.14", crypto.SHA256: "1.2.840.113549.1.1.11",
		crypto.SHA384: "1.2.840.113549.1.1.12", crypto.SHA512: "1.2.840.113549.1.1.13",
	}[h]), null)
}

func (k *key) sign(h crypto.Hash, message []byte) []byte {
	if k.file != "" {
		signature, err := openssl(message, "dgst", "-"+map[crypto.Hash]string{crypto.SHA1: "sha1", crypto.SHA256: "sha256"}[h], "-sign", k.file)
		if err != nil {
			panic(err)
		}
		return signature
	}
	digest := message
	var opts crypto.SignerOpts = crypto.Hash(0)
	if _, ok := k.signer.(ed25519.PrivateKey); !ok {
		w := h.New()
		w.Write(message)
		digest, opts = w.Sum(nil), h
	}
	signature, err := k.signer.Sign(rand.Reader, digest, opts)
	if err != nil {
		panic(err)
	}
	return signature
}
