package certs_test

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest/chains"
)

// TestPKITS asks OpenSSL and Verify about the paths of NIST's Public Key
// Interoperability Test Suite, without its revocation lists. PKITS_DIR is its
// directory, with certs and smime below it; testdata/pkits.txt has the results.
func TestPKITS(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("PKITS_DIR")
	if dir == "" {
		t.Skip("PKITS_DIR is not set")
	}
	messages, err := filepath.Glob(filepath.Join(dir, "smime", "*.eml"))
	if err != nil || len(messages) < 220 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	files := t.TempDir()
	var table strings.Builder
	for _, message := range messages {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(message), "Signed"), ".eml")
		c := pkitsCase(t, dir, message, name)
		if err := c.Write(files); err != nil {
			t.Fatal(err)
		}
		openssl, text := askOpenSSL(t, files, c)
		ours := judge(c)
		if openssl != (ours == nil) {
			t.Errorf("%s: OpenSSL admits: %v (%s), we say %v", name, openssl, text, ours)
		}
		fmt.Fprintf(&table, "%s\t%s\n", name, outcome(ours))
	}
	golden := filepath.Join("testdata", "pkits.txt")
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != table.String() {
		t.Errorf("%s is not the table of this run (%v); it is in %s", golden, err, filepath.Join(os.TempDir(), "pkits.txt"))
		if err := os.WriteFile(filepath.Join(os.TempDir(), "pkits.txt"), []byte(table.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
}

func outcome(err error) string {
	if e, ok := err.(*certs.Error); ok {
		return string(e.Reason)
	}
	if err != nil {
		return "unreadable"
	}
	return "admitted"
}

// pkitsCase takes a path out of a signed message: the signer's certificate, and
// what was sent with it.
func pkitsCase(t *testing.T, dir, message, name string) chains.Case {
	t.Helper()
	root, err := os.ReadFile(filepath.Join(dir, "certs", "TrustAnchorRootCertificate.crt"))
	if err != nil {
		t.Fatal(err)
	}
	c := chains.Case{Name: name, Level: 2, CA: [][]byte{root}}
	list, signer := readMessage(t, message)
	for _, der := range list {
		parsed, err := certs.Parse(der)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(parsed.Issuer.Raw, signer.Issuer.FullBytes) && bytes.Equal(parsed.RawSerial, signer.Serial.Bytes) {
			c.Leaf = der
		} else {
			c.Sent = append(c.Sent, der)
		}
	}
	if c.Leaf == nil {
		t.Fatalf("%s has no leaf", name)
	}
	return c
}

// signerID is IssuerAndSerialNumber (RFC 5652 section 10.2.4).
type signerID struct {
	Issuer, Serial asn1.RawValue
}

// readMessage reads the certificates of a signature (RFC 5652 section 5.1) and who
// has signed.
func readMessage(t *testing.T, message string) (list [][]byte, signer signerID) {
	t.Helper()
	data, err := os.ReadFile(message)
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := bytes.Cut(bytes.ReplaceAll(data, []byte("\r"), nil), []byte("filename=\"smime.p7s\"\n\n"))
	if !ok {
		t.Fatalf("%s has no signature", message)
	}
	body, _, _ = bytes.Cut(body, []byte("\n\n"))
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(body), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Type    asn1.ObjectIdentifier
		Content struct {
			Version      int
			Digests      asn1.RawValue `asn1:"set"`
			Encapsulated asn1.RawValue
			Certificates asn1.RawValue `asn1:"optional,tag:0"`
			Lists        asn1.RawValue `asn1:"optional,tag:1"`
			Signers      []struct {
				Version int
				ID      signerID
				Rest    []asn1.RawValue `asn1:"-"`
			} `asn1:"set"`
		} `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		t.Fatalf("%s: %v", message, err)
	}
	for rest := info.Content.Certificates.Bytes; len(rest) > 0; {
		var raw asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &raw); err != nil {
			t.Fatal(err)
		}
		list = append(list, raw.FullBytes)
	}
	return list, info.Content.Signers[0].ID
}
