package certs_test

import (
	"slices"
	"testing"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest/chains"
)

// FuzzParse holds Parse and Verify to their bounds: no panic, and what was read
// comes from the input.
func FuzzParse(f *testing.F) {
	forge, err := chains.NewForge()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range slices.Concat(forge.Leaves, forge.CAs, forge.Roots) {
		f.Add(forge.Sign(seed))
	}
	f.Add([]byte{0x30, 0x80, 0x00, 0x00})
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	root, err := certs.Parse(forge.Root)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		if trusted, err := certs.ParseTrusted(der); err == nil && len(trusted.Raw) > len(der) {
			t.Fatal("more was read than there is")
		}
		c, err := certs.Parse(der)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		if len(c.Raw) != len(der) || c.Key == nil || c.Algorithm == nil {
			t.Fatalf("%d of %d bytes were read", len(c.Raw), len(der))
		}
		for _, p := range c.DistributionPoints() {
			if !p.Name.Matches(p.Name) && len(p.Name.Full) > 0 {
				t.Fatal("a distribution point is not itself")
			}
		}
		for _, g := range c.AltNames() {
			_ = g.String() + g.Key()
		}
		pool := certs.NewPool("ca_file", []*certs.Certificate{c, root}, true)
		for _, purpose := range []certs.Purpose{certs.Client, certs.Server} {
			chain, err := certs.Verify(c, []*certs.Certificate{c, root}, pool, certs.Options{Purpose: purpose, Time: time.Unix(1_800_000_000, 0)})
			if err == nil && len(chain) == 0 || err != nil && err.Error() == "" {
				t.Fatalf("chain %v, error %v", chain, err)
			}
		}
	})
}
