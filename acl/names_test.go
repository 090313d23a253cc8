package acl_test

import (
	"bytes"
	"crypto/x509"
	"os/exec"
	"strings"
	"testing"

	"pgwicket/internal/tlstest"
)

const (
	cn  = "2.5.4.3"
	ou  = "2.5.4.11"
	uid = "0.9.2342.19200300.100.1.1"

	tagUniversal = 28
)

type attr = tlstest.Attribute

var (
	attrOf    = tlstest.Attr
	utf8Attr  = tlstest.UTF8
	name      = tlstest.Name
	nameOf    = tlstest.NameOf
	tlv       = tlstest.TLV
	oidDER    = tlstest.OID
	bmp       = tlstest.BMP
	universal = tlstest.Universal
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// certificate returns a self-signed certificate with that subject, in DER. Nothing checks the subject before.
func certificate(t testing.TB, subject []byte, edit ...func(*x509.Certificate)) []byte {
	t.Helper()
	return tlstest.SelfSigned(subject, edit...)
}

// openssl runs the program, which reads certificates as PostgreSQL does.
func openssl(t testing.TB, stdin []byte, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, stderr.Bytes())
	}
	return strings.TrimSuffix(string(out), "\n")
}
