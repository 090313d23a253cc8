package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
	"pgwicket/internal/tlstest"
	"pgwicket/metrics"
)

// The lines of a session in the log, which is a file. BenchmarkHandshake of package metrics is what such a
// session costs at least, to compare with.
func BenchmarkSessionLines(b *testing.B) {
	leaf := tlstest.NewCA("root").Client("alice").Leaf()
	id := acl.IdentityOf(leaf)
	source := netip.MustParseAddrPort("192.0.2.7:40000")
	client := &peer{
		accepted: time.Now(), source: source, application: "psql", version: 3 << 16, verified: true,
		tls:     tlsFacts{version: tls.VersionTLS13, complete: true, suite: tls.TLS_AES_128_GCM_SHA256, group: tls.X25519, protocol: "postgresql"},
		request: acl.Request{Session: "8a0vq2cqj8o3k-1042", Listener: "0.0.0.0:5432", Source: source.Addr(), SNI: "db.example.com", User: "alice", Database: "shop", Certificate: &id},
	}
	login := pgwire.Login{PID: 4711, Ready: true}
	file, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	log := slog.New(slog.NewJSONHandler(file, nil))
	s, err := New(Options{Policy: new(Policy), Log: log, Refusals: log, Metrics: metrics.New("v1.2.3")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Shutdown(context.Background()) }()
	one := &session{server: s, peer: client, rule: "staff", login: login, host: usedHost{Host: &Host{Address: "/run/postgresql/.s.PGSQL.5432"}}}
	b.Run("begin", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.logBegin(one)
		}
	})
	b.Run("end", func(b *testing.B) {
		ended := end{peer: client, rule: one.rule, outcome: outcome.ClientClosed, admitted: true, relayed: relay.Result{FromClient: 100, ToClient: 1000, Login: login}}
		b.ReportAllocs()
		for b.Loop() {
			s.logAndCount(ended)
		}
	})
}
