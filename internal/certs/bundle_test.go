package certs_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest"
)

func TestReadBundle(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("Root")
	one, two := root.CertPEM(), tlstest.NewCA("Other").CertPEM()
	both := append(bytes.Clone(one), two...)
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	garbage := block("CERTIFICATE", []byte{0x30, 3, 2, 1, 5})
	var wide []byte
	for _, u := range utf16.Encode([]rune("\ufeff" + string(both))) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	for _, c := range []struct {
		name     string
		data     []byte
		want     int
		problems int
		err      string
	}{
		{"two", both, 2, 0, ""},
		{"text around", slicesJoin([]byte("Root CA\n=======\n"), one, []byte("# end\n"), two), 2, 0, ""},
		{"CRLF", bytes.ReplaceAll(both, []byte("\n"), []byte("\r\n")), 2, 0, ""},
		{"byte order mark", append([]byte("\ufeff"), both...), 2, 0, ""},
		{"UTF-16", wide, 2, 0, ""},
		{"the old type", block("X509 CERTIFICATE", root.Cert.Raw), 1, 0, ""},
		{"trust settings", block("TRUSTED CERTIFICATE", root.Cert.Raw), 1, 0, ""},
		{"a key beside", append(block("EC PRIVATE KEY", []byte{0x30, 0}), one...), 1, 0, ""},
		{"one that cannot be read", slicesJoin(one, garbage, two), 2, 1, ""},
		{"none that can be read", garbage, 0, 1, `certificate 1 of "ca.pem" (SHA-256 `},
		{"damaged", slicesJoin(one, bytes.Replace(two, []byte("MII"), []byte("M!I"), 1)), 0, 0, "only 1 of the 2"},
		{"no line break between", slicesJoin(bytes.TrimSpace(one), two), 0, 0, "a line break before it is missing"},
		{"cut short", one[:len(one)/2], 0, 0, "only 0 of the 1"},
		{"empty", []byte(" \n"), 0, 0, "it is empty"},
		{"a key alone", block("PRIVATE KEY", []byte{0x30, 0}), 0, 0, "a private key alone"},
		{"a request", block("CERTIFICATE REQUEST", []byte{0x30, 0}), 0, 0, "it holds a request"},
		{"a list", block("X509 CRL", []byte{0x30, 0}), 0, 0, "it holds a revocation list"},
		{"DER", root.Cert.Raw, 0, 0, "openssl x509 -inform DER"},
		{"a web page", []byte("<html>404</html>"), 0, 0, "write its certificates in PEM"},
		{"PKCS #7", openssl(t, one, "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin"), 0, 0, "openssl pkcs7 -print_certs"},
		{"PKCS #7 in DER", openssl(t, one, "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "DER"), 0, 0, "openssl pkcs7 -inform DER -print_certs"},
		{"PKCS #12", openssl(t, one, "pkcs12", "-export", "-nokeys", "-passout", "pass:x"), 0, 0, "openssl pkcs12 -nokeys"},
	} {
		b, err := certs.ReadBundle("ca.pem", c.data)
		if len(b.Certificates) != c.want || len(b.Problems) != c.problems || (err != nil) != (c.err != "") ||
			err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %d certificates, problems %v, error %v", c.name, len(b.Certificates), b.Problems, err)
		}
		for i, read := range b.Certificates {
			if !strings.HasPrefix(read.Origin, "certificate ") || i == 0 && read.Origin != `certificate 1 of "ca.pem"` {
				t.Errorf("%s: origin %q", c.name, read.Origin)
			}
		}
	}
}

func slicesJoin(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// openssl runs the command on some input.
func openssl(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	if args[0] == "crl2pkcs7" { // which wants a file
		args[3] = filepath.Join(t.TempDir(), "in.pem")
		if err := os.WriteFile(args[3], stdin, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %v: %v", args, err)
	}
	return out
}
