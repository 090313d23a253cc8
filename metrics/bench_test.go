package metrics

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// What the series cost one session that is let in, with the exemplars and (without a session) without. docs/performance.md
// has the finding.
func BenchmarkSession(b *testing.B) {
	for name, session := range map[string]string{"exemplars": "8a0vq2cqj8o3k-1042", "plain": ""} {
		b.Run(name, func(b *testing.B) {
			s := New("v1.2.3")
			host := Host{Backend: "default", Address: "/run/postgresql/.s.PGSQL.5432"}
			s.InForce(10_000, 1000, []Host{host})
			accepted := s.Accepted("127.0.0.1:5432")
			shown := state(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, tls.X25519)
			b.ReportAllocs()
			for b.Loop() {
				accepted()
				s.Started()
				s.Handshake(session, shown, 3*time.Millisecond)
				s.BackendTried(host, nil)
				s.BackendConnected(session, 100*time.Microsecond)
				s.SessionOpened()
				s.Relayed(100, 1000)
				s.Ended(session, "client_closed")
			}
		})
	}
}

// The handshake that each such session costs at least, both sides of it, to compare with.
func BenchmarkHandshake(b *testing.B) {
	ca := tlstest.NewCA("root")
	server := &tls.Config{Certificates: []tls.Certificate{ca.Server("localhost").TLS()}, SessionTicketsDisabled: true}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	client := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	b.ReportAllocs()
	for b.Loop() {
		near, far := net.Pipe()
		go func() {
			_ = tls.Client(far, client).Handshake()
			_, _ = io.Copy(io.Discard, far)
		}()
		if err := tls.Server(near, server).Handshake(); err != nil {
			b.Fatal(err)
		}
		_ = near.Close()
	}
}
