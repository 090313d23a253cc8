package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"pgwicket/internal/clientcert"
	"pgwicket/internal/handshake"
	"pgwicket/internal/outcome"
	"pgwicket/internal/relay"
	"pgwicket/internal/tlsrecord"
)

// DefaultHandshakeBytes is Limits.HandshakeBytes where that is 0. A leaf with 100 DNS names below three intermediates, all
// with RSA keys of 4096 bits, needs 13 KiB with the rest of the handshake. crypto/tls parses what a client sends before
// anybody can refuse it, and twice as much would cost up to three times the processor time of an ordinary handshake.
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
		return failedHandshake(c.under, err)
	}
	c.under.ExpectStartup()
	state := secured.ConnectionState()
	c.tls, c.state = secured.Conn(), &state
	c.server.metrics.Handshake(c.peer.id, state, time.Since(began))
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
func (c *conn) verify(ctx context.Context, by *Policy, state tls.ConnectionState) ([]*x509.Certificate, error) {
	if err := c.server.handshakes.Acquire(ctx); err != nil {
		return nil, refuse(outcome.ClientGone, "cut before its certificate was verified")
	}
	defer c.server.handshakes.Release()
	return by.verify(state, c.server.now())
}

// handshakeMessages are the beginnings of crypto/tls's errors for which it has
// no type. A test provokes each of them, so that a new Go release that words
// one differently is noticed.
var handshakeMessages = []struct {
	prefix  string
	outcome Outcome
}{
	{"tls: client offered only unsupported versions", outcome.TLSVersion},
	{"tls: client using inappropriate protocol fallback", outcome.TLSVersion},
	// A client of TLS 1.2 alone that is offered less answers in its own version.
	{"tls: received record with version", outcome.TLSVersion},
	{"tls: unsupported SSLv2 handshake received", outcome.TLSVersion},
	{"tls: no cipher suite supported by both client and server", outcome.TLSCipher},
	{"tls: no key exchanges supported by both client and server", outcome.TLSGroup},
	{"tls: client requested unsupported application protocols", outcome.TLSALPN},
	{"tls: first record does not look like a TLS handshake", outcome.NotTLS},
}

// failedHandshake says why a TLS handshake failed, by what crypto/tls says and by what it does
// not: it hides an alert that the client sends in clear although keys are in use
// (golang/go#76767), and the name that it does not understand.
func failedHandshake(under *handshake.Conn, err error) error {
	r := asRefusal(handshakeRefusal(err))
	alert, sent := under.Alert()
	switch {
	case r.Outcome == outcome.ClientGone && under.Silent():
		return refuse(outcome.Probe, "closed after the answer to its SSLRequest")
	case r.Outcome == outcome.TLSFailed && sent:
		return refuse(outcome.TLSRejectedByClient, "remote error, sent in clear: "+alert.Error())
	case r.Outcome == outcome.TLSFailed:
		if name := under.ServerName(); strings.HasSuffix(name, ".") {
			return refuse(outcome.TLSFailed, fmt.Sprintf("the client's server name (SNI) is %q, and TLS allows no dot at its end: remove it from the client's host (%s)", name, r.Detail))
		}
	}
	return r
}

// handshakeRefusal says why a TLS handshake failed.
func handshakeRefusal(err error) error {
	detail := err.Error() // crypto/tls quotes what is the client's; slog escapes the rest
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(outcome.TLSTimeout, "handshake not finished in time")
	case errors.Is(err, handshake.ErrTooLarge):
		return refuse(outcome.HandshakeTooLarge, detail)
	case errors.As(err, &op) && op.Op == "remote error":
		return refuse(outcome.TLSRejectedByClient, detail)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), relay.IsReset(err):
		return refuse(outcome.ClientGone, "during the TLS handshake")
	}
	for _, m := range handshakeMessages {
		if strings.HasPrefix(detail, m.prefix) {
			return refuse(m.outcome, detail)
		}
	}
	return refuse(outcome.TLSFailed, detail)
}
