package proxy

import (
	"context"
	"crypto/tls"
	"time"

	"pgwicket/internal/clientcert"
	"pgwicket/internal/handshake"
	"pgwicket/internal/outcome"
	"pgwicket/internal/tlsrecord"
)

// DefaultHandshakeBytes is Limits.HandshakeBytes where that is 0. Five certificates of Active Directory with RSA keys of
// 4096 bits need 14.6 KiB with the rest of the handshake. crypto/tls parses what a client sends before anybody can refuse it:
// 18 KiB would cost more than twice the processor time of an ordinary handshake, and 32 KiB up to three times.
const DefaultHandshakeBytes = 16 << 10

// handshake does TLS. The certificate that the client may have sent is not
// judged in it: a refusal inside TLS reaches psql in words, a failed handshake
// sends libpq's sslmode=prefer looking for a way without TLS.
func (c *conn) handshake(ctx context.Context, direct bool) error {
	c.canSendError = false // until it is done, only TLS may answer
	began := time.Now()
	most := c.policy.Limits.HandshakeBytes
	if most <= 0 {
		most = DefaultHandshakeBytes
	}
	c.under = handshake.NewConn(ctx, c.socket, c.server.handshakes, most)
	secured := tlsrecord.Server(c.under, c.policy.TLS)
	if err := c.under.Run(func() error { return clientcert.NameUnreadable(secured.Handshake(), c.under.Certificates) }); err != nil {
		return handshake.Refusal(c.under, err)
	}
	c.under.ExpectStartup()
	state := secured.ConnectionState()
	c.tls, c.state = secured.Conn(), &state
	c.server.metrics.Handshake(c.peer.request.Session, state, time.Since(began))
	if direct && state.NegotiatedProtocol != alpn {
		// As PostgreSQL: without ALPN this may be another protocol's client,
		// tricked into talking to us.
		c.peer.recordTLS(state)
		return refuse(outcome.TLSALPN, "direct TLS without ALPN "+alpn)
	}
	c.canSendError = true
	return nil
}

// verify has a policy verify a client's certificate when there is a slot for it:
// there is one budget of CPU for all that unproved clients cost.
func (c *conn) verify(ctx context.Context, by *Policy, state tls.ConnectionState, sent [][]byte) ([][]byte, error) {
	if err := c.server.handshakes.Acquire(ctx); err != nil {
		return nil, refuse(outcome.ClientGone, "cut before its certificate was verified")
	}
	defer c.server.handshakes.Release()
	return by.VerifyCertificate(state, sent, c.server.now())
}
