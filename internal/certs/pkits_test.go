package certs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest/chains"
)

// TestPKITS asks OpenSSL and Verify about the paths of NIST's Public Key
// Interoperability Test Suite, without its revocation lists, which a test of
// tlsconfig asks about. PKITS_DIR is its directory, with certs and smime below it;
// testdata/pkits.txt has the results.
func TestPKITS(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("PKITS_DIR")
	if dir == "" {
		t.Skip("PKITS_DIR is not set")
	}
	cases, err := chains.PKITS(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	var table strings.Builder
	for _, c := range cases {
		if err := c.Write(files); err != nil {
			t.Fatal(err)
		}
		openssl, text := askOpenSSL(t, files, c)
		ours := judge(c)
		if openssl != (ours == nil) {
			t.Errorf("%s: OpenSSL admits: %v (%s), we say %v", c.Name, openssl, text, ours)
		}
		fmt.Fprintf(&table, "%s\t%s\n", c.Name, outcome(ours))
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
