package proxy_test

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgwicket/internal/tlstest"
)

// forGo is a client certificate whose subject crypto/x509 cannot read, and OpenSSL can
// (golang/go#36044): an underscore in a PrintableString.
func forGo(t *testing.T, ca *tlstest.CA, cn string) (raw []byte, pair *tlstest.Pair) {
	t.Helper()
	pair = ca.Client(cn)
	template := *pair.Leaf()
	const printableString = 19
	template.RawSubject = tlstest.Name(tlstest.Attr("2.5.4.3", printableString, cn))
	raw, err := x509.CreateCertificate(rand.Reader, &template, ca.Cert, pair.Key.Public(), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParseCertificate(raw); err == nil {
		t.Fatal("crypto/x509 can read it")
	}
	return raw, pair
}

// psql sends a certificate that crypto/tls cannot read, its own or a surplus one behind it. The
// log names it where it has come in clear, and else the command that does.
func TestCertificateThatGoCannotRead(t *testing.T) {
	s := realPostgres(t)
	g := newGate(t, s.SocketDir)
	raw, pair := forGo(t, g.CA, "app_user")
	encode := func(raw []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}) }
	good := g.CA.Client("app")
	for _, c := range []struct {
		name, version string
		chain         []byte
		key           *tlstest.Pair
		which         string
	}{
		{"its own, TLS 1.2", "TLSv1.2", encode(raw), pair, "certificate 1 that"},
		{"a surplus one, TLS 1.2", "TLSv1.2", slices.Concat(good.CertPEM(), encode(raw)), good, "certificate 2 that"},
		{"its own, TLS 1.3", "TLSv1.3", encode(raw), pair, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			certFile, keyFile := filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")
			if err := c.key.WriteFiles(certFile, keyFile); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(certFile, c.chain, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := psql(t, libpq(t, g, "PGSSLCERT="+certFile, "PGSSLKEY="+keyFile, "PGSSLMINPROTOCOLVERSION="+c.version, "PGSSLMAXPROTOCOLVERSION="+c.version), "select 1")
			if err == nil || !strings.Contains(out, "decode error") {
				t.Errorf("psql says %q", out)
			}
			line := g.expect(t, "tls_failed")
			reason := line.get("reason")
			want := []string{"failed to parse client certificate", "pgwicket explain --cert"}
			if c.version == "TLSv1.2" {
				want = []string{
					"failed to parse client certificate", `"CN=app_user"`, fmt.Sprintf("serial %X", pair.Leaf().SerialNumber),
					fmt.Sprintf("SHA-256 %x", sha256.Sum256(raw)), "invalid PrintableString", "a limit of Go", "utf8only", c.which,
				}
			}
			for _, w := range want {
				if !strings.Contains(reason, w) {
					t.Errorf("the log does not say %s: %s", w, reason)
				}
			}
		})
	}
}
