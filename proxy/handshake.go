package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"pgwicket/internal/relay"
)

// handshakeSlots bounds how many handshakes are computed at a time, so that many
// new connections share some of the processors while live sessions have the rest.
// A handshake that waits for its client releases its slot: however slow, a client
// holds up nobody else.
type handshakeSlots chan struct{}

// newHandshakeSlots leaves half of the processors to the sessions. On two that is
// one for handshakes, which served a flood of 2,000 a second and cost the sessions
// less than two did (make faults).
func newHandshakeSlots() handshakeSlots {
	return make(handshakeSlots, max(1, runtime.GOMAXPROCS(0)/2))
}

// Acquire waits for a slot.
func (s handshakeSlots) Acquire() { s <- struct{}{} }

// Release gives it up.
func (s handshakeSlots) Release() { <-s }

// handshakeConn is the socket under a client's tls.Conn. During the handshake it
// holds a slot but while it waits for the client; then it only passes on.
type handshakeConn struct {
	*relay.Conn
	slots handshakeSlots // nil: no handshake is under way
}

func (h *handshakeConn) Read(p []byte) (int, error) {
	if h.slots != nil {
		h.slots.Release()
		defer h.slots.Acquire()
	}
	return h.Conn.Read(p)
}

// handshake does TLS. The certificate that the client may have sent is not
// judged here: a refusal inside TLS reaches psql in words, a failed handshake
// sends libpq's sslmode=prefer looking for a way without TLS.
func (c *conn) handshake(direct bool) error {
	c.canSendError = false // until it is done, only TLS may answer
	began := time.Now()
	under := &handshakeConn{Conn: c.socket}
	tlsConn := tls.Server(under, c.policy.TLS)
	if err := c.server.handshakes.run(under, tlsConn.Handshake); err != nil {
		return handshakeRefusal(err)
	}
	c.tls = tlsConn
	c.peer.recordTLS(tlsConn.ConnectionState())
	c.server.metrics.Handshake(c.peer.id, c.peer.tls, time.Since(began))
	if direct && c.peer.tls.NegotiatedProtocol != alpn {
		// As PostgreSQL: without ALPN this may be another protocol's client,
		// tricked into talking to us.
		return refuse(TLSALPN, "direct TLS without ALPN "+alpn)
	}
	c.canSendError = true
	return nil
}

// run runs a handshake over conn when there is a slot for it.
func (s handshakeSlots) run(conn *handshakeConn, handshake func() error) error {
	s.Acquire()
	conn.slots = s
	defer func() {
		conn.slots = nil
		s.Release()
	}()
	return handshake()
}

// handshakeMessages are the beginnings of crypto/tls's errors for which it has
// no type. A test provokes each of them, so that a new Go release that words
// one differently is noticed.
var handshakeMessages = []struct {
	prefix  string
	outcome Outcome
}{
	{"tls: client offered only unsupported versions", TLSVersion},
	{"tls: client using inappropriate protocol fallback", TLSVersion},
	// A client of TLS 1.2 alone that is offered less answers in its own version.
	{"tls: received record with version", TLSVersion},
	{"tls: unsupported SSLv2 handshake received", TLSVersion},
	{"tls: no cipher suite supported by both client and server", TLSCipher},
	{"tls: no key exchanges supported by both client and server", TLSGroup},
	{"tls: client requested unsupported application protocols", TLSALPN},
	{"tls: first record does not look like a TLS handshake", NotTLS},
}

// handshakeRefusal says why a TLS handshake failed.
func handshakeRefusal(err error) error {
	detail := err.Error() // crypto/tls quotes what is the client's; slog escapes the rest
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(TLSTimeout, "handshake not finished in time")
	case errors.As(err, &op) && op.Op == "remote error":
		return refuse(TLSRejectedByClient, detail)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), relay.IsReset(err):
		return refuse(ClientGone, "during the TLS handshake")
	}
	for _, m := range handshakeMessages {
		if strings.HasPrefix(detail, m.prefix) {
			return refuse(m.outcome, detail)
		}
	}
	return refuse(TLSFailed, detail)
}
