package proxy

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
)

// Backend is where admitted sessions go: the first of its hosts that opens
// its door.
type Backend struct {
	Hosts []Host
	// ConnectTimeout bounds the connect to each host, its TLS included.
	ConnectTimeout time.Duration
	// ClientInfo tells PostgreSQL who the client is, in the startup packet:
	// see clientInfo.
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
	// SSLMode is libpq's word for what TLS verifies, for whoever describes a host.
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

// The resolver is Go's own: the system's loads libraries, which a sandboxed gate
// cannot read.
var resolver = net.Resolver{PreferGo: true}

// upstream is a connection to a host.
type upstream struct {
	*wire
	tls  *tls.Conn // nil: in clear
	host *Host
	done bool // the relay has ended our side of the TLS
}

func (u *upstream) Write(p []byte) (int, error) {
	if u.tls != nil {
		return u.tls.Write(p)
	}
	return u.wire.Write(p)
}

func (u *upstream) Read(p []byte) (int, error) {
	if u.tls != nil {
		return u.tls.Read(p)
	}
	return u.wire.Read(p)
}

// CloseWrite ends our side in order.
func (u *upstream) CloseWrite() error {
	if u.tls != nil {
		_ = u.tls.CloseWrite()
	}
	return u.wire.CloseWrite()
}

// connect tries the hosts in their order, and says of each how that went.
func (b *Backend) connect(ctx context.Context, tried func(*Host, error)) (*upstream, error) {
	var failures []error
	for i := range b.Hosts {
		u, err := b.Hosts[i].connect(ctx, b.ConnectTimeout)
		tried(&b.Hosts[i], err)
		if err == nil {
			return u, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// connect opens a connection to the host, ready for a startup packet or a
// CancelRequest.
func (h *Host) connect(ctx context.Context, timeout time.Duration) (*upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := h.dial(ctx)
	if err != nil {
		return nil, err
	}
	u := &upstream{wire: &wire{socket: conn}, host: h}
	if h.TLS == nil {
		return u, nil
	}
	unwatch := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = u.secure()
	if !unwatch() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s: %w", h.Address, err)
	}
	return u, nil
}

// dial connects the socket. A Unix socket whose queue is full refuses at once
// with EAGAIN, which libpq reports as a failure; waiting a moment is all that
// it takes.
func (h *Host) dial(ctx context.Context) (socket, error) {
	dialer := net.Dialer{KeepAliveConfig: keepalive, Resolver: &resolver}
	if h.Network != "unix" {
		dialer.Control = func(_, _ string, c syscall.RawConn) error { return setUserTimeout(c, h.UserTimeout) }
	}
	delay := time.Millisecond
	for {
		conn, err := dialer.DialContext(ctx, h.Network, h.Address)
		if err == nil {
			return conn.(socket), nil
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
func (u *upstream) secure() error {
	if !u.host.Direct {
		if _, err := u.wire.Write(pgwire.RequestTLS()); err != nil {
			return err
		}
		// One byte and no more: what somebody has put behind it in clear must
		// not be taken for PostgreSQL's (CVE-2021-23222).
		var answer [1]byte
		if _, err := io.ReadFull(u.wire, answer[:]); err != nil {
			return fmt.Errorf("no answer to the SSLRequest: %w", err)
		}
		switch {
		case answer[0] == 'S':
		case answer[0] == 'N' && u.host.Clear:
			return nil
		case answer[0] == 'N':
			return errors.New("the server has no TLS (ssl is off), which backend.sslmode asks for")
		case answer[0] == 'E':
			return fmt.Errorf("the server answers the SSLRequest with an error: %q", u.complaint())
		default:
			return fmt.Errorf("the server answers the SSLRequest with %q, which no PostgreSQL does", answer[:])
		}
	}
	conn := tls.Client(u.wire, u.host.TLS)
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	if u.host.Direct && conn.ConnectionState().NegotiatedProtocol != alpn {
		return errors.New("TLS: the server does not take the ALPN protocol postgresql, so it may be another one")
	}
	u.tls = conn
	return nil
}

// complaint reads what an old server, or one out of processes, says in clear.
// Nobody vouches for it, so it is for the log alone (CVE-2024-10977).
func (u *upstream) complaint() string {
	text, _ := io.ReadAll(io.LimitReader(u.wire, 1<<10))
	return strings.ToValidUTF8(strings.ReplaceAll(string(text), "\x00", " "), "?")
}
