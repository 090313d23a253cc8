package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"pgwicket/internal/pgwire"
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

// Acquire waits for a slot. It fails if ctx ends: a client that has had to give way
// costs nothing more.
func (s handshakeSlots) Acquire(ctx context.Context) error {
	if ctx.Err() != nil {
		return net.ErrClosed
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return net.ErrClosed
	}
}

// Release gives it up.
func (s handshakeSlots) Release() { <-s }

// DefaultHandshakeBytes is Limits.HandshakeBytes where that is 0.
const DefaultHandshakeBytes = 32 << 10

// Bounds of what may come between the handshake and the end of the startup packet:
// bytes, and records, each of which could be a KeyUpdate that costs us a new key for
// 27 bytes (RFC 8446, section 4.6.3). A client may send a record for each byte of its
// startup packet, and startupRecords more.
const (
	startupBytes   = pgwire.MaxStartupPacket + 4<<10
	startupRecords = 48
)

var (
	errHandshakeBytes = errors.New("the client sends more than limits.max_handshake_bytes")
	errStartupRecords = errors.New("the client sends too many TLS records for one startup packet")
)

// handshakeConn is the socket under a client's tls.Conn, which bounds what an
// unproved client may make us compute and keep. During the handshake it holds a
// slot but while it waits for the client, to read or to write; then it only counts,
// until release.
type handshakeConn struct {
	*relay.Conn
	ctx     context.Context // ends when the connection is cut
	slots   handshakeSlots  // nil: no handshake is under way
	holds   bool            // a slot
	left    int             // bytes that may still come
	records int             // that may still come; 0: they are not counted yet
	rest    int             // bytes of the current record, its header included, still to come
	header  []byte          // of the next record, as far as it has come
	hello   []byte          // what the client sent first; until the handshake is done
	alert   []byte          // the last alert in clear: its level and its description
	free    bool            // nothing is counted any more
}

// release ends the counting: the relay has the connection.
func (h *handshakeConn) release() { h.free, h.header, h.alert = true, nil, nil }

func (h *handshakeConn) Read(p []byte) (n int, err error) {
	if h.free {
		return h.Conn.Read(p)
	}
	if h.left <= 0 {
		return 0, errHandshakeBytes
	}
	p = p[:min(len(p), h.left)]
	h.pause()
	n, err = h.Conn.Read(p)
	if e := h.resume(); e != nil {
		return 0, e
	}
	h.left -= n
	if h.slots != nil {
		h.hello = append(h.hello, p[:min(n, maxHello-len(h.hello))]...)
	}
	if h.count(p[:n]); h.records < 0 {
		return 0, errStartupRecords
	}
	return n, err
}

func (h *handshakeConn) Write(p []byte) (int, error) {
	h.pause()
	n, err := h.Conn.Write(p)
	if e := h.resume(); e != nil {
		return n, e
	}
	return n, err
}

// pause gives the slot up while the handshake waits for its client.
func (h *handshakeConn) pause() {
	if h.holds {
		h.holds = false
		h.slots.Release()
	}
}

// resume waits for a slot again.
func (h *handshakeConn) resume() error {
	if h.slots == nil {
		return nil
	}
	err := h.slots.Acquire(h.ctx)
	h.holds = err == nil
	return err
}

// alertLen is the length of an alert in clear (RFC 8446, section 6).
const alertLen = 2

// count follows the records (RFC 8446, section 5.1) in what was read.
func (h *handshakeConn) count(p []byte) {
	const headerLen = 5
	for len(p) > 0 {
		if h.rest > 0 {
			n := min(h.rest, len(p))
			h.rest -= n
			if h.alert != nil && len(h.alert) < alertLen {
				h.alert = append(h.alert, p[:n]...)
			}
			p = p[n:]
			continue
		}
		n := min(headerLen-len(h.header), len(p))
		h.header = append(h.header, p[:n]...)
		p = p[n:]
		if len(h.header) == headerLen {
			h.rest = int(h.header[3])<<8 | int(h.header[4])
			if h.header[0] == tlsRecordAlert && h.rest == alertLen {
				h.alert = make([]byte, 0, alertLen)
			}
			h.header = h.header[:0]
			h.records--
		}
	}
}

// startupReader reads what a client sends inside TLS before its session. A record
// that brings a byte is none of those that only cost something.
type startupReader struct {
	tls   *tls.Conn
	under *handshakeConn
}

func (r startupReader) Read(p []byte) (int, error) {
	n, err := r.tls.Read(p)
	r.under.records += n
	return n, err
}

// handshake does TLS. The certificate that the client may have sent is not
// judged in it: a refusal inside TLS reaches psql in words, a failed handshake
// sends libpq's sslmode=prefer looking for a way without TLS.
func (c *conn) handshake(ctx context.Context, direct bool) error {
	c.canSendError = false // until it is done, only TLS may answer
	began := time.Now()
	c.under = &handshakeConn{Conn: c.socket, ctx: ctx, left: c.policy.Limits.HandshakeBytes, records: math.MaxInt}
	if c.under.left <= 0 {
		c.under.left = DefaultHandshakeBytes
	}
	tlsConn := tls.Server(c.under, c.policy.TLS)
	if err := c.server.handshakes.run(c.under, tlsConn.Handshake); err != nil {
		return c.under.refusal(err)
	}
	c.under.hello = nil
	c.tls = tlsConn
	c.under.left, c.under.records = startupBytes, startupRecords
	state := tlsConn.ConnectionState()
	c.server.metrics.Handshake(c.peer.id, state, time.Since(began))
	if direct && state.NegotiatedProtocol != alpn {
		// As PostgreSQL: without ALPN this may be another protocol's client,
		// tricked into talking to us.
		c.peer.recordTLS(state)
		return refuse(TLSALPN, "direct TLS without ALPN "+alpn)
	}
	c.canSendError = true
	return nil
}

// verify has a policy verify a client's certificate when there is a slot for it:
// there is one budget of CPU for all that unproved clients cost.
func (s handshakeSlots) verify(ctx context.Context, by *Policy, state tls.ConnectionState) ([]*x509.Certificate, error) {
	if err := s.Acquire(ctx); err != nil {
		return nil, refuse(ClientGone, "cut before its certificate was verified")
	}
	defer s.Release()
	return by.verify(state, time.Now())
}

// run runs a handshake over conn when there is a slot for it.
func (s handshakeSlots) run(conn *handshakeConn, handshake func() error) error {
	conn.slots = s
	defer func() {
		conn.pause()
		conn.slots = nil
	}()
	if err := conn.resume(); err != nil {
		return err
	}
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

// refusal says why a TLS handshake failed, by what crypto/tls says and by what it does
// not: it hides an alert that the client sends in clear although keys are in use
// (golang/go#76767), and the name that it does not understand.
func (h *handshakeConn) refusal(err error) error {
	r := asRefusal(handshakeRefusal(err))
	switch {
	case r.Outcome == ClientGone && len(h.hello) == 0:
		return refuse(Probe, "closed after the answer to its SSLRequest")
	case r.Outcome == TLSFailed && len(h.alert) == alertLen:
		return refuse(TLSRejectedByClient, "remote error, sent in clear: "+tls.AlertError(h.alert[1]).Error())
	case r.Outcome == TLSFailed:
		if name := serverNameOf(h.hello); strings.HasSuffix(name, ".") {
			return refuse(TLSFailed, fmt.Sprintf("the client's server name (SNI) is %q, and TLS allows no dot at its end: remove it from the client's host (%s)", name, r.Detail))
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
		return refuse(TLSTimeout, "handshake not finished in time")
	case errors.Is(err, errHandshakeBytes):
		return refuse(HandshakeTooLarge, detail)
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
