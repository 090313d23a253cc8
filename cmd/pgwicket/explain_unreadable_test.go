//go:build unix

package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/tlstest"
)

// unreadable is a certificate with an underscore in a PrintableString, which OpenSSL reads
// and crypto/x509 does not (golang/go#36044).
func unreadable(t *testing.T, template *x509.Certificate, ca *tlstest.CA, name string) []byte {
	t.Helper()
	edited := *template
	const printableString = 19
	edited.RawSubject = tlstest.Name(tlstest.Attr("2.5.4.3", printableString, name))
	raw, err := x509.CreateCertificate(rand.Reader, &edited, ca.Cert, template.PublicKey, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func encodePEM(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

// A certificate that crypto/tls cannot read is no wrong usage: the answer names it, says whose
// limit it is and what to do, and gives the verdict that another encoding of it would get.
func TestExplainCertificateThatGoCannotRead(t *testing.T) {
	ca, alice := stageExplain(t)
	rules := "acl: {allow: [10.0.0.0/8], rules: [{name: own, action: allow, users: [samename]}]}\n"
	raw := unreadable(t, alice.Leaf(), ca, "app_user")
	damaged := slices.Clone(alice.Leaf().Raw)
	damaged[4] ^= 0x10 // the signed part is no SEQUENCE any more
	for name, data := range map[string][]byte{
		"pgwicket.yaml": []byte(rules + documents),
		"own.crt":       encodePEM(raw),
		"surplus.crt":   slices.Concat(alice.CertPEM(), encodePEM(raw)),
		"damaged.crt":   encodePEM(damaged),
		"bom.crt":       slices.Concat([]byte("\xef\xbb\xbf"), alice.CertPEM()),
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	limit := func(which string) []string {
		return []string{
			"refused: tls_failed\n", "the TLS alert decode_error", which, fmt.Sprintf("serial %X", alice.Leaf().SerialNumber), `"CN=app_user"`,
			fmt.Sprintf("SHA-256 %x", sha256.Sum256(raw)), "invalid PrintableString", "a limit of Go that OpenSSL and PostgreSQL do not have",
			"string_mask = utf8only", "With certificates that Go can read it would be", `admitted by rule "own"`,
		}
	}
	for _, c := range []struct {
		file, user string
		status     int
		says       []string
	}{
		{"own.crt", "app_user", cli.Failed, append(limit(`certificate 1 of "own.crt"`), "cn      app_user", "not revoked")},
		{"own.crt", "other", cli.Failed, []string{"refused: tls_failed", "refused: no_rule"}},
		{"surplus.crt", "alice", cli.Failed, limit(`certificate 2 of "surplus.crt"`)},
		{"damaged.crt", "alice", cli.Failed, []string{"refused: tls_failed", `certificate 1 of "damaged.crt" (SHA-256`, "signed part that cannot be read"}},
		{"bom.crt", "alice", cli.OK, []string{`admitted by rule "own"`}},
	} {
		status, out := explained(t, "--config", "pgwicket.yaml", "--source", "10.1.2.3", "--user", c.user, "--cert", c.file)
		if status != c.status {
			t.Errorf("%s: status %d, want %d", c.file, status, c.status)
		}
		for _, s := range c.says {
			if !strings.Contains(out, s) {
				t.Errorf("%s: does not say %q:\n%s", c.file, s, out)
			}
		}
		if strings.Contains(out, "--help") {
			t.Errorf("%s: it is said to be wrong usage:\n%s", c.file, out)
		}
	}
}

// check names a certificate of ca_file or cert_file that Go cannot read.
func TestCheckCertificateThatGoCannotRead(t *testing.T) {
	ca, _ := stageExplain(t)
	server := ca.Server("db.example.com")
	raw := unreadable(t, server.Leaf(), ca, "db_1")
	root := tlstest.NewCA("other")
	rawRoot := unreadable(t, root.Cert, root, "other_ca")
	files := map[string][]byte{
		"pgwicket.yaml": []byte("acl: {allow: [10.0.0.0/8]}\n" + documents),
		"ca.crt":        slices.Concat(ca.CertPEM(), encodePEM(rawRoot)),
		"server.crt":    slices.Concat(encodePEM(raw), ca.CertPEM()),
		"server.key":    server.KeyPEM(),
	}
	for name, data := range files {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	if status := run([]string{"check", "--config", "pgwicket.yaml"}, cli.Streams{In: os.Stdin, Out: &stdout, Err: &stderr}); status != cli.BadConfig {
		t.Errorf("status %d", status)
	}
	out := stdout.String() + stderr.String()
	for _, s := range []string{
		`tls.cert_file: certificate 1 of "server.crt"`, `"CN=db_1"`, `warning: tls.ca_file: certificate 2 of "ca.crt"`, `"CN=other_ca"`,
		fmt.Sprintf("SHA-256 %x", sha256.Sum256(raw)), "it is trusted all the same", "a limit of Go",
	} {
		if !strings.Contains(out, s) {
			t.Errorf("check does not say %q:\n%s", s, out)
		}
	}
}
