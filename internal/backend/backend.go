// Package backend connects to PostgreSQL: to the first host of a list that answers, over
// TLS where the host is asked for it, and with CancelRequests.
package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
	"pgwicket/internal/socket"
)

// Backend is where admitted sessions go: to the first of its hosts that takes the
// connection.
type Backend struct {
	Hosts []Host
	// ConnectTimeout bounds the connect to each host, its TLS included.
	ConnectTimeout time.Duration
	// ClientInfo tells PostgreSQL who the client is, in the startup packet:
	// see ClientInfo.
	ClientInfo bool
}

// Host is one address at which PostgreSQL listens.
type Host struct {
	// Network and Address are net.Dial's: "unix" and the path of a socket (a
	// leading @ means one in Linux's abstract namespace, as in libpq), or "tcp".
	Network, Address string
	// TLS is what the host is asked for, and verified by; nil: nothing, it is
	// spoken to in clear. It must list the ALPN protocol "postgresql".
	TLS *tls.Config
	// SSLMode is libpq's word for what TLS verifies; it is only for descriptions of
	// the host.
	SSLMode string
	// Direct begins with TLS, which PostgreSQL understands from version 17 on,
	// and else with an SSLRequest.
	Direct bool
	// Clear goes on in clear if the host has no TLS (sslmode=prefer).
	Clear bool
	// UserTimeout is how long what was sent may stay unacknowledged before a
	// host on TCP counts as gone; 0 leaves that to the system.
	UserTimeout time.Duration
}

// alpn is the protocol name that PostgreSQL 17 registered for its own.
const alpn = "postgresql"

// The resolver is Go's own: the system's loads libraries, which a sandboxed
// gate cannot read.
var resolver = net.Resolver{PreferGo: true}

// Conn is a connection to a host. Close it, or give its parts to a relay.
type Conn struct {
	*relay.Conn
	TLS  *tls.Conn // over Conn; nil: in clear
	Host *Host
}

// Write implements net.Conn, over TLS where there is any.
func (b *Conn) Write(p []byte) (int, error) {
	if b.TLS != nil {
		return b.TLS.Write(p)
	}
	return b.Conn.Write(p)
}

// Read implements net.Conn, over TLS where there is any.
func (b *Conn) Read(p []byte) (int, error) {
	if b.TLS != nil {
		return b.TLS.Read(p)
	}
	return b.Conn.Read(p)
}

// Connect tries the hosts in their order, and says of each how that went.
func (b *Backend) Connect(ctx context.Context, tried func(*Host, error)) (*Conn, error) {
	var failures []error
	for i := range b.Hosts {
		conn, err := b.Hosts[i].Connect(ctx, b.ConnectTimeout)
		tried(&b.Hosts[i], err)
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// Connect opens a connection to the host, ready for a startup packet or a
// CancelRequest.
func (h *Host) Connect(ctx context.Context, timeout time.Duration) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := h.dial(ctx)
	if err != nil {
		return nil, err
	}
	b := &Conn{Conn: relay.NewConn(conn), Host: h}
	if h.TLS == nil {
		return b, nil
	}
	unwatch := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = b.secure()
	if !unwatch() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s: %w", h.Address, err)
	}
	return b, nil
}

// dial connects the socket. A Unix socket whose queue is full refuses at once
// with EAGAIN, which libpq reports as a failure; waiting a moment is all that
// it takes.
func (h *Host) dial(ctx context.Context) (relay.Socket, error) {
	dialer := net.Dialer{KeepAliveConfig: socket.Keepalive, Resolver: &resolver}
	if h.Network != "unix" {
		dialer.Control = func(_, _ string, c syscall.RawConn) error { return socket.SetUserTimeout(c, h.UserTimeout) }
	}
	dialer.SetMultipathTCP(false)
	delay := time.Millisecond
	for {
		conn, err := dialer.DialContext(ctx, h.Network, h.Address)
		if err == nil {
			return conn.(relay.Socket), nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(delay):
			delay = min(2*delay, 50*time.Millisecond)
		}
	}
}

// secure asks for TLS and does the handshake.
func (b *Conn) secure() error {
	if !b.Host.Direct {
		if _, err := b.Conn.Write(pgwire.RequestTLS()); err != nil {
			return err
		}
		// One byte and no more: what somebody has put behind it in clear must
		// not be taken for PostgreSQL's (CVE-2021-23222).
		var answer [1]byte
		if _, err := io.ReadFull(b.Conn, answer[:]); err != nil {
			return fmt.Errorf("no answer to the SSLRequest: %w", err)
		}
		switch {
		case answer[0] == 'S':
		case answer[0] == 'N' && b.Host.Clear:
			return nil
		case answer[0] == 'N':
			return errors.New("the server has no TLS (ssl is off), which backend.sslmode asks for")
		case answer[0] == 'E':
			return fmt.Errorf("the server answers the SSLRequest with an error: %q", b.errorText())
		default:
			return fmt.Errorf("the server answers the SSLRequest with %q, which no PostgreSQL does", answer[:])
		}
	}
	conn := tls.Client(b.Conn, b.Host.TLS)
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	if b.Host.Direct && conn.ConnectionState().NegotiatedProtocol != alpn {
		return errors.New("TLS: the server does not take the ALPN protocol postgresql, so it may be another one")
	}
	b.TLS = conn
	return nil
}

// errorText reads what an old server, or one out of processes, says in clear.
// Nobody vouches for it, so it is for the log alone (CVE-2024-10977).
func (b *Conn) errorText() string {
	text, _ := io.ReadAll(io.LimitReader(b.Conn, 1<<10))
	return strings.ToValidUTF8(strings.ReplaceAll(string(text), "\x00", " "), "?")
}
