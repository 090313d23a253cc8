package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
)

// turns bounds how many handshakes are computed at a time, so that a crowd of
// newcomers takes turns at some of the processors while live sessions have the
// rest. A handshake that waits for its client gives its turn up: however slow,
// a client holds up nobody but itself.
type turns chan struct{}

// newTurns leaves half of the processors to the sessions. On two that is one for
// newcomers, which served a flood of 2,000 a second and cost the sessions less than
// two did (make faults).
func newTurns() turns { return make(turns, max(1, runtime.GOMAXPROCS(0)/2)) }

func (t turns) take() { t <- struct{}{} }
func (t turns) give() { <-t }

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
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isReset(err):
		return refuse(ClientGone, "during the TLS handshake")
	}
	for _, m := range handshakeMessages {
		if strings.HasPrefix(detail, m.prefix) {
			return refuse(m.outcome, detail)
		}
	}
	return refuse(TLSFailed, detail)
}
