package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/certs"
	"pgwicket/internal/outcome"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// handshaken is the state of a finished handshake.
func handshaken(peer ...*x509.Certificate) tls.ConnectionState {
	return tls.ConnectionState{
		HandshakeComplete: true, Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, PeerCertificates: peer,
	}
}

// errorOf drops the chain that a Verify returns.
func errorOf(verify func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error)) func(tls.ConnectionState, time.Time) error {
	return func(state tls.ConnectionState, at time.Time) error {
		_, err := verify(state, certs.DER(state.PeerCertificates), at)
		return err
	}
}

func TestVerifyOutcomes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	alice, bob := s.ca.Client("alice"), s.ca.Client("bob")
	s.write(t, "ca.crl", s.ca.CRL(func(l *tlstest.CRL) { l.Revoke(bob.Leaf()) }), 0o644)
	verify := errorOf(loadFile(t, s, "defaults.good.yaml").Policy.Verify)
	day := 24 * time.Hour

	seen := map[proxy.Outcome]bool{}
	for _, c := range []struct {
		want  proxy.Outcome
		after time.Duration
		peer  []*x509.Certificate
	}{
		{outcome.CertMissing, 0, nil},
		{outcome.CertExpired, 400 * day, alice.Chain},
		{outcome.CertNotYetValid, -day, alice.Chain},
		{outcome.CertRevoked, 0, bob.Chain},
		{outcome.CertUnknownCA, 0, tlstest.NewCA("root").Client("alice").Chain},
		{outcome.CertWrongPurpose, 0, s.ca.Server("alice").Chain},
		{outcome.CertWeakKey, 0, s.ca.Client("alice", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }).Chain},
		{outcome.CertNameConstraint, 0, s.ca.Intermediate("constrained", func(c *x509.Certificate) {
			c.PermittedDNSDomains = []string{"example.org"}
		}).Client("alice.example.com").Chain},
		{outcome.CertInvalid, 0, append(slices.Clone(alice.Chain), slices.Repeat(alice.Chain, 300)...)},
		{outcome.CRLMissing, 0, s.ca.Intermediate("intermediate").Client("alice").Chain},
		{outcome.CRLStale, 31 * day, alice.Chain},
	} {
		refusal := refusalOf(t, verify(handshaken(c.peer...), time.Now().Add(c.after)))
		_, public := refusal.Message()
		if refusal.Outcome != c.want || public == "" || refusal.Detail == "" || strings.Contains(public, s.dir) {
			t.Errorf("%v: got %+v, told %q", c.want, refusal, public)
		}
		seen[refusal.Outcome] = true
	}
	if err := verify(handshaken(alice.Chain...), time.Now()); err != nil {
		t.Errorf("a good certificate: %v", err)
	}

	oldVersion, noSuite, group := handshaken(alice.Chain...), handshaken(alice.Chain...), handshaken(alice.Chain...)
	oldVersion.Version, noSuite.CipherSuite, group.CurveID = tls.VersionTLS10, 0, 21 // secp224r1
	for _, state := range []tls.ConnectionState{oldVersion, noSuite, group} {
		seen[refusalOf(t, verify(state, time.Now())).Outcome] = true
	}

	// Each reason has its own outcome, and each has been seen.
	reasons := reasonsOf(t)
	if got := slices.Sorted(maps.Keys(outcomes)); !slices.Equal(got, reasons) {
		t.Errorf("outcomes are known for %q, and tlsconfig has %q", got, reasons)
	}
	if len(seen) != len(reasons) {
		t.Errorf("%d outcomes seen for %d reasons", len(seen), len(reasons))
	}
	for _, r := range reasons {
		if o := outcomeOf(r); !seen[o] || !strings.HasSuffix(o.String(), string(r)) {
			t.Errorf("reason %s has outcome %s", r, o)
		}
	}
	if o := outcomeOf("of a later tlsconfig"); o != outcome.CertInvalid {
		t.Errorf("an unknown reason has outcome %v", o)
	}
}

// What crypto/tls would have to get wrong is refused too.
func TestVerifyPolicy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	verify := errorOf(loadFile(t, s, "all-keys.good.yaml").Policy.Verify)
	alice := s.ca.Client("alice")
	for _, c := range []struct {
		want proxy.Outcome
		edit func(*tls.ConnectionState)
	}{
		{outcome.TLSVersion, func(s *tls.ConnectionState) { s.Version = tls.VersionTLS11 }},
		{outcome.TLSVersion, func(s *tls.ConnectionState) { s.Version = 0x0305 }},
		{outcome.TLSCipher, func(s *tls.ConnectionState) { s.CipherSuite = tls.TLS_CHACHA20_POLY1305_SHA256 }},
		{outcome.TLSCipher, func(s *tls.ConnectionState) { s.CipherSuite = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 }},
		{outcome.TLSCipher, func(s *tls.ConnectionState) { s.HandshakeComplete = false }},
	} {
		state := handshaken(alice.Chain...)
		state.CipherSuite = tls.TLS_AES_256_GCM_SHA384
		if err := verify(state, time.Now()); err != nil {
			t.Fatal(err)
		}
		c.edit(&state)
		if r := refusalOf(t, verify(state, time.Now())); r.Outcome != c.want || r.Detail == "" {
			t.Errorf("got %+v, want %v", r, c.want)
		}
	}
}

func refusalOf(t *testing.T, err error) *proxy.Refusal {
	t.Helper()
	var r *proxy.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("not a refusal: %v", err)
	}
	return r
}

// reasonsOf reads the constants of type Reason out of tlsconfig's source, so that one that is added there is missed
// here.
func reasonsOf(t *testing.T) (reasons []tlsconfig.Reason) {
	t.Helper()
	files, err := filepath.Glob("../tlsconfig/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			kind, _ := spec.Type.(*ast.Ident)
			value, _ := spec.Values[0].(*ast.BasicLit)
			if kind != nil && kind.Name == "Reason" && value != nil {
				r, err := strconv.Unquote(value.Value)
				if err != nil {
					t.Fatal(err)
				}
				reasons = append(reasons, tlsconfig.Reason(r))
			}
			return true
		})
	}
	slices.Sort(reasons)
	return reasons
}
