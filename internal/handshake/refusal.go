package handshake

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"pgwicket/internal/outcome"
	"pgwicket/internal/relay"
)

// messageOutcomes are the beginnings of crypto/tls's errors for which it has
// no type. A test provokes each of them, so that a new Go release that words
// one differently is noticed.
var messageOutcomes = []struct {
	prefix  string
	outcome outcome.Outcome
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

// Refusal says why the TLS handshake of a connection failed, by what crypto/tls says and by what it does
// not: it hides an alert that the client sends in clear although keys are in use
// (golang/go#76767), and the name that it does not understand. It is an *outcome.Refusal.
func Refusal(c *Conn, err error) error {
	o, detail := reasonOf(err)
	alert, sent := c.Alert()
	switch {
	case o == outcome.ClientGone && c.Silent():
		return outcome.Refuse(outcome.Probe, "closed after the answer to its SSLRequest")
	case o == outcome.TLSFailed && sent:
		return outcome.Refuse(outcome.TLSRejectedByClient, "remote error, sent in clear: "+alert.Error())
	case o == outcome.TLSFailed:
		if name := c.ServerName(); strings.HasSuffix(name, ".") {
			return outcome.Refuse(outcome.TLSFailed, fmt.Sprintf("the client's server name (SNI) is %q, and TLS allows no dot at its end: remove it from the client's host (%s)", name, detail))
		}
	}
	return outcome.Refuse(o, detail)
}

// reasonOf says why a TLS handshake failed, by the error alone.
func reasonOf(err error) (o outcome.Outcome, detail string) {
	detail = err.Error() // crypto/tls quotes what is the client's; slog escapes the rest
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return outcome.TLSTimeout, "handshake not finished in time"
	case errors.Is(err, ErrTooLarge):
		return outcome.HandshakeTooLarge, detail
	case errors.As(err, &op) && op.Op == "remote error":
		return outcome.TLSRejectedByClient, detail
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), relay.IsReset(err):
		return outcome.ClientGone, "during the TLS handshake"
	}
	for _, m := range messageOutcomes {
		if strings.HasPrefix(detail, m.prefix) {
			return m.outcome, detail
		}
	}
	return outcome.TLSFailed, detail
}
