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

// ordinarySession is a session of a psql with a certificate, and its end.
func ordinarySession(s *Server) (*session, end) {
	leaf := tlstest.NewCA("root").Client("alice").Leaf()
	id := acl.IdentityOf(leaf)
	source := netip.MustParseAddrPort("192.0.2.7:40000")
	client := &peer{
		accepted: time.Now(), source: source, application: "psql", version: 3 << 16, verified: true,
		tls:     tlsFacts{version: tls.VersionTLS13, complete: true, suite: tls.TLS_AES_128_GCM_SHA256, group: tls.X25519, protocol: "postgresql"},
		request: acl.Request{Session: "8a0vq2cqj8o3k-1042", Listener: "0.0.0.0:5432", Source: source.Addr(), SNI: "db.example.com", User: "alice", Database: "shop", Certificate: &id},
	}
	login := pgwire.Login{PID: 4711, Ready: true}
	one := &session{server: s, peer: client, rule: "staff", login: login, host: usedHost{Host: &Host{Address: "/run/postgresql/.s.PGSQL.5432"}}}
	return one, end{peer: client, rule: one.rule, outcome: outcome.ClientClosed, admitted: true, relayed: relay.Result{FromClient: 100, ToClient: 1000, Login: login}}
}

// Lines below the level of the log cost a session nothing where there is no audit trail.
func TestLinesNobodyReads(t *testing.T) {
	log := slog.New(slog.NewJSONHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := New(Options{Policy: new(Policy), Log: log, Refusals: log, Metrics: metrics.New("v1.2.3")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(context.Background()) }()
	one, ended := ordinarySession(s)
	if n := testing.AllocsPerRun(100, func() { s.logBegin(one) }); n > 0 {
		t.Errorf("the line of a session that begins: %v allocations", n)
	}
	counted := testing.AllocsPerRun(100, func() { s.metrics.Ended(ended.peer.request.Session, ended.outcome.Meaning().Label) })
	if n := testing.AllocsPerRun(100, func() { s.logAndCount(ended) }); n > counted {
		t.Errorf("the line of a session that ends: %v allocations, %v of them for the metrics", n, counted)
	}
}

// The lines of a session in the log, which is a file. BenchmarkHandshake of package metrics is what such a
// session costs at least, to compare with.
func BenchmarkSessionLines(b *testing.B) {
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
	one, ended := ordinarySession(s)
	b.Run("begin", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.logBegin(one)
		}
	})
	b.Run("end", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.logAndCount(ended)
		}
	})
}
