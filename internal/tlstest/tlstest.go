// Package tlstest is a certificate authority in memory, for tests and the demo: certificates, revocation lists and names,
// also such as no real CA would make. Nothing here takes a *testing.T. What cannot fail in practice panics.
package tlstest

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// KeyKind is a kind of private key. The zero value is ECDSA on P-256, the fastest to create and to use.
type KeyKind int

// The kinds of keys.
const (
	ECDSA KeyKind = iota
	RSA
	Ed25519
)

// CA is a certificate authority. It may be used by many goroutines at once.
type CA struct {
	Cert *x509.Certificate
	Key  crypto.Signer

	above []*x509.Certificate // from Cert up to the root, without the root
	keys  KeyKind             // of what it issues
}

// Pair is a certificate and its key.
type Pair struct {
	Chain []*x509.Certificate // leaf first, then the intermediates; no root
	Key   crypto.Signer
}

// NewCA returns a self-signed root that is valid for ten years.
func NewCA(name string, edit ...func(*x509.Certificate)) *CA {
	key := newKey(ECDSA)
	t := authority(name, edit)
	return &CA{Cert: issue(t, t, key.Public(), key), Key: key}
}

// WithKey returns the same CA, which issues certificates with keys of that kind.
func (ca *CA) WithKey(kind KeyKind) *CA {
	c := *ca
	c.keys = kind
	return &c
}

// Intermediate returns a CA below this one.
func (ca *CA) Intermediate(name string, edit ...func(*x509.Certificate)) *CA {
	key := newKey(ca.keys)
	cert := issue(authority(name, edit), ca.Cert, key.Public(), ca.Key)
	return &CA{Cert: cert, Key: key, above: append([]*x509.Certificate{cert}, ca.above...)}
}

// Server returns a server certificate for DNS names and IP addresses.
func (ca *CA) Server(names ...string) *Pair {
	t := leaf(cmp.Or(names...), x509.ExtKeyUsageServerAuth)
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return ca.pair(t)
}

// Client returns a client certificate with that common name. An edit may change
// anything in the template before it is signed.
func (ca *CA) Client(cn string, edit ...func(*x509.Certificate)) *Pair {
	t := leaf(cn, x509.ExtKeyUsageClientAuth)
	for _, e := range edit {
		e(t)
	}
	return ca.pair(t)
}

// CertPEM returns the certificate of the CA alone.
func (ca *CA) CertPEM() []byte { return PEM(ca.Cert) }

func (ca *CA) pair(t *x509.Certificate) *Pair {
	key := newKey(ca.keys)
	cert := issue(t, ca.Cert, key.Public(), ca.Key)
	return &Pair{Chain: append([]*x509.Certificate{cert}, ca.above...), Key: key}
}

// Leaf returns the certificate itself, without those above it.
func (p *Pair) Leaf() *x509.Certificate { return p.Chain[0] }

// CertPEM returns the whole chain, as a server's certificate file holds it.
func (p *Pair) CertPEM() []byte { return PEM(p.Chain...) }

// KeyPEM returns the key as unencrypted PKCS #8.
func (p *Pair) KeyPEM() []byte {
	der := must(x509.MarshalPKCS8PrivateKey(p.Key))
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TLS returns the pair as crypto/tls takes it.
func (p *Pair) TLS() tls.Certificate {
	c := tls.Certificate{PrivateKey: p.Key, Leaf: p.Leaf()}
	for _, cert := range p.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// WriteFiles writes the chain and the key, the key for the owner only. Each
// file is replaced in one step, so a reader never sees half of one.
func (p *Pair) WriteFiles(certFile, keyFile string) error {
	if err := replace(certFile, p.CertPEM(), 0o644); err != nil {
		return err
	}
	return replace(keyFile, p.KeyPEM(), 0o600)
}

// PEM encodes certificates in the order given.
func PEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func authority(name string, edit []func(*x509.Certificate)) *x509.Certificate {
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	for _, e := range edit {
		e(t)
	}
	return t
}

func leaf(cn string, usage x509.ExtKeyUsage) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}
}

func issue(t, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	der := must(x509.CreateCertificate(rand.Reader, t, parent, pub, signer))
	return must(x509.ParseCertificate(der))
}

func newKey(kind KeyKind) crypto.Signer {
	switch kind {
	case RSA:
		return must(rsa.GenerateKey(rand.Reader, 2048))
	case Ed25519:
		return must2(ed25519.GenerateKey(rand.Reader))
	default:
		return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
}

// newSerial returns 159 random bits with the highest set: the longest serial
// that RFC 5280 section 4.1.2.2 allows, always 20 octets.
func newSerial() *big.Int {
	n := must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 158)))
	return n.SetBit(n, 158, 1)
}

func replace(name string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tlstest-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // there is nothing to remove once it was renamed
	_, err = f.Write(data)
	err = cmp.Or(err, f.Chmod(mode), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic("tlstest: " + err.Error())
	}
	return v
}

func must2[A, B any](_ A, v B, err error) B { return must(v, err) }
