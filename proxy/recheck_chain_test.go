package proxy_test

import (
	"crypto/x509"
	"testing"

	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
)

// The verifier returns the certificates as they were sent, and what was sent is dropped after the
// handshake. A session is judged again by what is kept of its chain, whatever its client has
// sent; a CancelRequest is judged by its own.
func TestRecheckOfWhatTheClientHasSent(t *testing.T) {
	f := newFiles(t)
	alice, other := f.root.Client("alice"), f.two.Client("other", func(c *x509.Certificate) {
		for range 200 {
			c.DNSNames = append(c.DNSNames, "a-name-that-makes-the-certificate-long.example")
		}
	})
	chain := func(more ...*x509.Certificate) *tlstest.Pair {
		return &tlstest.Pair{Chain: append([]*x509.Certificate{alice.Leaf()}, more...), Key: alice.Key}
	}
	for name, sent := range map[string]*tlstest.Pair{
		"leaf":                 chain(),
		"leaf and root":        chain(f.root.Cert),
		"leaf and another":     chain(f.two.Cert),
		"leaf and a large one": chain(other.Leaf()),
		"with an intermediate": f.one.Client("alice"),
	} {
		t.Run(name, func(t *testing.T) {
			fake, cancels := cancelBackend(t, func() string { return loggedIn })
			g := newGate(t, fake.SocketDir, func(p *proxy.Policy) { f.load(t, p) })
			conn := g.session(t, "app", withCert(sent))
			for range 2 {
				before := g.metric(t, "pgwicket_rechecks_total")
				g.reload(func(p *proxy.Policy) { f.load(t, p) })
				g.rechecked(t, before)
				cancel := g.secure(t, withCert(sent))
				send(t, cancel, cancelRequest(7, []byte("key!")))
				expectEOF(t, cancel)
				_ = cancel.Close()
				g.expect(t, "forwarded")
			}
			eventually(t, "the CancelRequests are forwarded", func() bool { return cancels.Load() == 2 })
			eventually(t, "the session alone is left", func() bool { return g.Server.Sessions() == 1 })
			f.revoke(t, sent.Leaf())
			defer f.revoke(t)
			g.reload(func(p *proxy.Policy) { f.load(t, p) })
			expectFatal(t, conn, "57P01", "terminating connection: client certificate was revoked on ")
			_ = conn.Close()
			g.expect(t, "certificate_revoked")
		})
	}
}
