package certs_test

import (
	"path/filepath"
	"testing"

	"pgwicket/internal/tlstest/chains"
)

// TestRandomChains asks OpenSSL and Verify about chains made at random, many of them
// with more than one candidate for an issuer.
func TestRandomChains(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	random, err := chains.NewRandom(filepath.Join(dir, "keys"), 1)
	if err != nil {
		t.Fatal(err)
	}
	files := filepath.Join(dir, "case")
	admitted := 0
	for range mutations(t) {
		c := random.Next()
		if err := c.Write(files); err != nil {
			t.Fatal(err)
		}
		openssl, text := askOpenSSL(t, files, c)
		ours := judge(c)
		checkWords(t, c.Name, ours)
		switch {
		case openssl && ours != nil:
			t.Errorf("%s: OpenSSL admits it, we say %v\n%x\n%x\n%x", c.Name, ours, c.Leaf, c.Sent, c.CA)
		case openssl:
			admitted++
		case ours == nil:
			t.Errorf("%s: OpenSSL refuses it (%s), we do not\n%x\n%x\n%x", c.Name, text, c.Leaf, c.Sent, c.CA)
		}
	}
	t.Logf("%d admitted", admitted)
	if admitted < mutations(t)/50 {
		t.Errorf("%d of %d are too few to tell", admitted, mutations(t))
	}
}
