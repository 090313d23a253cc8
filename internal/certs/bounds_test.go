package certs_test

import (
	"errors"
	"testing"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/tlstest/chains"
)

// A client may send a thousand certificates and more. The cost of a search among
// them is bounded, which crypto/x509 was not (CVE-2018-16875, CVE-2026-32280).
func TestHostileChains(t *testing.T) {
	t.Parallel()
	hostile, err := chains.NewHostile()
	if err != nil {
		t.Fatal(err)
	}
	root := parse(t, hostile.Root)
	pool := certs.NewPool("ca_file", []*certs.Certificate{root}, false)
	for name, list := range hostile.Chains {
		var all []*certs.Certificate
		for _, der := range list {
			all = append(all, parse(t, der))
		}
		began := time.Now()
		_, err := certs.Verify(all[0], all[1:], pool, certs.Options{})
		took := time.Since(began)
		var refused *certs.Error
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
		// A signature takes about 0.1 ms to check. To check all pairs would take
		// more than a minute.
		if took > 2*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		t.Logf("%s (%d certificates): %v, %v", name, len(all), took, err)
	}
}

func parse(t testing.TB, der []byte) *certs.Certificate {
	t.Helper()
	c, err := certs.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
