package proxy_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// A client that is revoked while the gate connects to PostgreSQL for it has no byte forwarded there:
// with trust or peer its startup packet alone would begin a session, and run a login trigger.
func TestRevokedWhileTheGateConnects(t *testing.T) {
	t.Parallel()
	came := make(chan []byte, 16)
	fake, err := pgtest.StartFakeTCP(func(conn net.Conn) {
		all, _ := io.ReadAll(conn)
		came <- all
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	_, port, _ := net.SplitHostPort(fake.Address)
	looking, found := make(chan struct{}, 1), make(chan struct{})
	g := newGate(t, "", func(p *proxy.Policy) {
		p.Backend = &proxy.Backend{ConnectTimeout: patience, Hosts: []proxy.Host{{
			Network: "tcp", Address: net.JoinHostPort("db.example", port),
			Lookup: func(context.Context, string) ([]netip.Addr, error) {
				looking <- struct{}{}
				<-found
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			},
		}}}
	})
	bob := g.secure(t, withCert(g.CA.Client("bob")))
	send(t, bob, startup(protocol3, "user", "app", "database", "shop"))
	<-looking
	before := g.metric(t, "pgwicket_rechecks_total")
	g.reload(func(p *proxy.Policy) { p.Verify = refuses("bob") })
	g.rechecked(t, before)
	close(found)
	expectFatal(t, bob, "28000", "client certificate was revoked on 2026-11-23")
	g.expect(t, "certificate_revoked")
	for range fake.Accepted.Load() {
		if all := <-came; len(all) > 0 {
			t.Errorf("PostgreSQL has got %d bytes of a client that was revoked before: %q", len(all), all)
		}
	}
}

// One that is revoked while it waits for other attempts of its user is not even connected.
func TestRevokedWhileItWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	b := rawBackend(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	var judged atomic.Int64 // the one that waits, which is the only one to ask for a name
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.Limits.AuthFailures, p.Limits.AuthRefusal, p.RecheckInterval = 3, patience, 5*time.Millisecond
		p.Verify = verifying(func(s tls.ConnectionState, _ time.Time) error {
			if s.ServerName != "" {
				judged.Add(1)
			}
			return nil
		})
	})
	pair := g.CA.Client("bob")
	begin := func(serverName string) {
		bob := g.secure(t, withCert(pair), func(c *tls.Config) { c.ServerName = serverName })
		send(t, bob, startup(protocol3, "user", "app", "database", "shop"))
	}
	const inFlight = 3
	for i := range inFlight {
		begin("127.0.0.1")
		eventually(t, "PostgreSQL is asked", func() bool { return b.Accepted.Load() == int64(i+1) })
	}
	begin("localhost")
	eventually(t, "it is judged after its handshake, too", func() bool { return judged.Load() > 1 })
	g.reload(func(p *proxy.Policy) { p.Verify = refuses("bob") })
	for range inFlight + 1 {
		g.expect(t, "certificate_revoked")
	}
	if n := b.Accepted.Load(); n != inFlight {
		t.Errorf("%d connections to PostgreSQL, want the %d from before", n, inFlight)
	}
}
