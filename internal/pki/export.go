package pki

import (
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// Formats are those of [CA.Export].
func Formats() []string { return []string{"libpq", "pkcs12", "pem", "kubernetes", "jdbc"} }

// exported is a file of an export.
type exported struct {
	name string
	data []byte
}

// bundle is what an export is made of.
type bundle struct {
	name  string
	cert  *x509.Certificate
	chain []*x509.Certificate // without the root
	all   []*x509.Certificate // with it
	key   any
	trust []byte
}

// Export writes the valid certificate of a name, its key and its CA into files of a
// directory, which it makes if it is missing, and returns their paths. All have mode 0600.
func (c *CA) Export(name, format, dir string) (paths []string, err error) {
	b, err := c.bundle(name)
	if err != nil {
		return nil, err
	}
	render := map[string]func(*bundle) ([]exported, error){
		"libpq": (*bundle).libpq, "pkcs12": (*bundle).pkcs12, "pem": (*bundle).pem, "kubernetes": (*bundle).kubernetes, "jdbc": (*bundle).jdbc,
	}[format]
	if render == nil {
		return nil, fmt.Errorf("the format %q is unknown", format)
	}
	files, err := render(b)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, privateDir); err != nil {
		return nil, err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := replaceKeepingOther(path, f.data); err != nil { // perhaps of another CA
			return paths, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func (c *CA) bundle(name string) (*bundle, error) {
	e, cert, err := c.current(name)
	if err != nil {
		return nil, err
	}
	if err := checkFileName(e.Name); err != nil { // openssl takes every common name
		return nil, err
	}
	if !isThere(c.KeyFile(e.Name)) {
		return nil, fmt.Errorf("the key of %s is not in %s, so there is nothing to export but %s", e.Name, c.KeyFile(e.Name), c.CertFile(e.Name))
	}
	key, err := readKey(c.KeyFile(e.Name), c.ca.secrets)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(key.Public(), cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of the certificate %s", c.KeyFile(e.Name), e.Serial)
	}
	b := &bundle{name: fileOf(e.Name), cert: cert, key: key, trust: c.trust(), all: []*x509.Certificate{c.ca.cert}}
	if c.root != nil {
		b.chain = []*x509.Certificate{c.ca.cert}
		b.all = append(b.all, c.root.cert)
	}
	return b, nil
}

func (b *bundle) certs() (text []byte) {
	for _, c := range append([]*x509.Certificate{b.cert}, b.chain...) {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

func (b *bundle) keyDER() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(b.key) }

func (b *bundle) keyPEM() ([]byte, error) {
	der, err := b.keyDER()
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// libpq has the names that libpq looks for in ~/.postgresql. There is no root.crl: libpq
// refuses every server when a list there has ended.
func (b *bundle) libpq() ([]exported, error) {
	key, err := b.keyPEM()
	return []exported{{"postgresql.crt", b.certs()}, {"postgresql.key", key}, {"root.crt", b.trust}}, err
}

func (b *bundle) pem() ([]exported, error) {
	key, err := b.keyPEM()
	return []exported{{b.name + ".pem", slices.Concat(key, b.certs())}}, err
}

// pkcs12 is protected by a random password, in a file beside it.
func (b *bundle) pkcs12() ([]exported, error) {
	password := rand.Text()
	data, err := pkcs12.Modern.Encode(b.key, b.cert, b.all, password)
	return []exported{{b.name + ".p12", data}, {b.name + ".p12.password", []byte(password + "\n")}}, err
}

// jdbc has the key in DER of PKCS #8, which pgjdbc reads under the name .pk8.
func (b *bundle) jdbc() ([]exported, error) {
	key, err := b.keyDER()
	return []exported{{b.name + ".crt", b.certs()}, {b.name + ".pk8", key}, {"root.crt", b.trust}}, err
}

func (b *bundle) kubernetes() ([]exported, error) {
	key, err := b.keyPEM()
	if err != nil {
		return nil, err
	}
	name := strings.Trim(strings.Map(func(c rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.-", c) {
			return c
		}
		return '-'
	}, strings.ToLower(b.name)), ".-")
	name = cmp.Or(name, "pgwicket") // of a name without ASCII
	var text strings.Builder
	fmt.Fprintf(&text, "apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\ntype: kubernetes.io/tls\ndata:\n", name)
	for _, item := range []exported{{"tls.crt", b.certs()}, {"tls.key", key}, {"ca.crt", b.trust}} {
		fmt.Fprintf(&text, "  %s: %s\n", item.name, base64.StdEncoding.EncodeToString(item.data))
	}
	return []exported{{b.name + ".yaml", []byte(text.String())}}, nil
}
