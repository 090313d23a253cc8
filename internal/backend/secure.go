package backend

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
	"pgwicket/internal/tlsrecord"
)

// ALPN is the protocol name that PostgreSQL 17 registered for its own.
const ALPN = "postgresql"

// secure asks the host for TLS and does the handshake; nil: it goes on in clear.
// The caller bounds it with the deadline of the connection.
func (h *Host) secure(conn *relay.Conn) (tlsrecord.Secure, error) {
	if !h.Direct {
		if yes, err := h.ask(conn); !yes || err != nil {
			return nil, err
		}
	}
	secure := tlsrecord.Client(conn, h.TLS)
	if err := secure.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	if h.Direct && secure.ConnectionState().NegotiatedProtocol != ALPN {
		return nil, errors.New("TLS: the server does not take the ALPN protocol postgresql, so it may be another one")
	}
	return secure.Conn(), nil
}

// ask sends an SSLRequest, and returns whether TLS begins.
func (h *Host) ask(conn net.Conn) (bool, error) {
	if _, err := conn.Write(pgwire.RequestTLS()); err != nil {
		return false, err
	}
	// One byte and no more: what somebody has put behind it in clear must
	// not be taken for PostgreSQL's (CVE-2021-23222).
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return false, fmt.Errorf("no answer to the SSLRequest: %w", err)
	}
	switch {
	case answer[0] == 'S':
		return true, nil
	case answer[0] == 'N' && h.Clear:
		return false, nil
	case answer[0] == 'N':
		return false, errors.New("the server has no TLS (ssl is off), which backend.sslmode asks for")
	case answer[0] == 'E':
		return false, fmt.Errorf("the server answers the SSLRequest with an error: %q", errorText(conn))
	default:
		return false, fmt.Errorf("the server answers the SSLRequest with %q, which no PostgreSQL does", answer[:])
	}
}

// errorText reads what an old server, or one out of processes, says in clear.
// Nobody vouches for it, so it is for the log alone (CVE-2024-10977).
func errorText(conn net.Conn) string {
	text, _ := io.ReadAll(io.LimitReader(conn, 1<<10))
	return strings.ToValidUTF8(strings.ReplaceAll(string(text), "\x00", " "), "?")
}
