package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/certs"
)

// BenchmarkRecheck measures a recheck of ten thousand sessions, each with its own
// certificate: after a reload with the same CAs, and after one with other CAs, which
// verifies all signatures again.
func BenchmarkRecheck(b *testing.B) {
	const sessions = 10_000
	s := newSite(b)
	_, state, requests := s.clients(b, sessions)
	sent := make([][][]byte, sessions)
	for i := range state {
		sent[i] = certs.DER(state[i].PeerCertificates)
	}
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprintf("same CAs=%v", known), func(b *testing.B) {
			b.ReportAllocs()
			at := time.Now()
			cfg, _, _ := s.clients(b, 0)
			for i := range requests {
				_, _ = cfg.Policy.Judge(&requests[i], state[i], sent[i], at)
			}
			for b.Loop() {
				if !known {
					b.StopTimer()
					cfg, _, _ = s.clients(b, 0)
					b.StartTimer()
				}
				for i := range requests {
					if _, err := cfg.Policy.Judge(&requests[i], state[i], sent[i], at); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/sessions, "ns/session")
		})
	}
}

// clients returns a configuration with ten rules, and sessions that it admits.
func (s *site) clients(b *testing.B, n int) (*Config, []tls.ConnectionState, []acl.Request) {
	b.Helper()
	text := `listen: [{address: "127.0.0.1:5432"}]
tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_file: ca.crl}
backend: {host: "@postgresql"}
acl:
  allow: [10.0.0.0/8]
  rules:
`
	for i := range 9 {
		text += fmt.Sprintf("    - {action: allow, users: [service_%d], certificate: {cn: service_%d}}\n", i, i)
	}
	cfg, problems := s.load(b, "clients.yaml", text+"    - {action: allow, users: [samename]}\n")
	if cfg == nil {
		b.Fatal(problems)
	}
	states, requests := make([]tls.ConnectionState, n), make([]acl.Request, n)
	for i := range n {
		leaf := s.ca.Client(fmt.Sprintf("client_%d", i)).Leaf()
		id := acl.IdentityOf(leaf)
		states[i] = cfg.TLS.Finished()
		states[i].PeerCertificates = []*x509.Certificate{leaf}
		requests[i] = acl.Request{Source: netip.MustParseAddr("10.1.2.3"), User: id.CN, Database: id.CN, Certificate: &id}
	}
	return cfg, states, requests
}
