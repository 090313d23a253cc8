package tlstest_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"pgwicket/internal/tlstest"
)

func TestPairsVerify(t *testing.T) {
	root := tlstest.NewCA("root")
	for _, kind := range []tlstest.KeyKind{tlstest.ECDSA, tlstest.RSA, tlstest.Ed25519} {
		ca := root.WithKey(kind).Intermediate("intermediate").WithKey(kind)
		roots, above := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(root.Cert)
		above.AddCert(ca.Cert)

		server := ca.Server("db.example", "::1")
		for _, name := range []string{"db.example", "::1"} {
			opts := x509.VerifyOptions{Roots: roots, Intermediates: above, DNSName: name}
			if _, err := server.Leaf().Verify(opts); err != nil {
				t.Errorf("kind %d, %s: %v", kind, name, err)
			}
		}
		opts := x509.VerifyOptions{
			Roots: roots, Intermediates: above, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		if _, err := ca.Client("alice").Leaf().Verify(opts); err != nil {
			t.Errorf("kind %d, client: %v", kind, err)
		}
		if _, err := tls.X509KeyPair(server.CertPEM(), server.KeyPEM()); err != nil {
			t.Errorf("kind %d, PEM: %v", kind, err)
		}
	}
}

func TestWriteFiles(t *testing.T) {
	pair := tlstest.NewCA("root").Intermediate("intermediate").Server("localhost")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "s.crt"), filepath.Join(dir, "s.key")
	// A key written over a file that everybody may read must not inherit its mode.
	if err := os.WriteFile(keyFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := pair.WriteFiles(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	c, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil || len(c.Certificate) != 2 {
		t.Errorf("got %d certificates, %v; want leaf and intermediate", len(c.Certificate), err)
	}
	info, err := os.Stat(keyFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestCRL(t *testing.T) {
	root := tlstest.NewCA("root")
	for name, ca := range map[string]*tlstest.CA{
		"ECDSA":   root,
		"RSA":     root.WithKey(tlstest.RSA).Intermediate("RSA"),
		"Ed25519": root.WithKey(tlstest.Ed25519).Intermediate("Ed25519"),
	} {
		alice := ca.Client("alice").Leaf()
		block, _ := pem.Decode(ca.CRL(func(l *tlstest.CRL) { l.Revoke(alice) }))
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := list.CheckSignatureFrom(ca.Cert); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if e := list.RevokedCertificateEntries; len(e) != 1 || e[0].SerialNumber.Cmp(alice.SerialNumber) != 0 {
			t.Errorf("%s: got entries %v", name, e)
		}
	}
}

func TestCRLSchemes(t *testing.T) {
	root := tlstest.NewCA("root")
	rsa := root.WithKey(tlstest.RSA).Intermediate("RSA")
	for _, c := range []struct {
		ca *tlstest.CA
		as x509.SignatureAlgorithm
	}{
		{rsa, x509.SHA256WithRSA},
		{rsa, x509.SHA384WithRSA},
		{rsa, x509.SHA512WithRSA},
		{rsa, x509.SHA256WithRSAPSS},
		{rsa, x509.SHA384WithRSAPSS},
		{rsa, x509.SHA512WithRSAPSS},
		{root, x509.ECDSAWithSHA256},
		{root, x509.ECDSAWithSHA384},
		{root, x509.ECDSAWithSHA512},
	} {
		block, _ := pem.Decode(c.ca.CRL(func(l *tlstest.CRL) { l.Algorithm = c.as }))
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Errorf("%v: %v", c.as, err)
			continue
		}
		if err := list.CheckSignatureFrom(c.ca.Cert); err != nil || list.SignatureAlgorithm != c.as {
			t.Errorf("%v: read as %v, %v", c.as, list.SignatureAlgorithm, err)
		}
	}
}
