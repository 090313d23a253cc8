package backend

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"pgwicket/internal/socket"
)

// Lookup returns the addresses of a host name, the preferred ones first.
type Lookup func(ctx context.Context, name string) ([]netip.Addr, error)

// Resolve is the Lookup of the system's configuration (hosts file and DNS). It is Go's
// own: the system's loads libraries, which a sandboxed gate cannot read.
func Resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	return (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", name)
}

// resolve returns every address, as net.Dial takes it, that a host name stands for.
// What has no name to look up is returned as it is. timeout is for the look-up.
func resolve(ctx context.Context, timeout time.Duration, lookup Lookup, network, address string) ([]string, error) {
	if network == "unix" {
		return []string{address}, nil
	}
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return []string{address}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	found, err := lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, a := range found {
		all = append(all, net.JoinHostPort(a.Unmap().String(), port))
	}
	if len(all) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return all, nil
}

// dial connects to one address. userTimeout is TCP_USER_TIMEOUT; 0: the system's.
//
// A Unix socket whose queue is full refuses at once with EAGAIN, which libpq reports as
// a failure; waiting a moment is all that it takes.
func dial(ctx context.Context, network, address string, userTimeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: socket.Keepalive}
	if network != "unix" {
		dialer.Control = func(_, _ string, c syscall.RawConn) error { return socket.SetUserTimeout(c, userTimeout) }
	}
	dialer.SetMultipathTCP(false)
	delay := time.Millisecond
	for {
		conn, err := dialer.DialContext(ctx, network, address)
		if err == nil || !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(delay):
			delay = min(2*delay, 50*time.Millisecond)
		}
	}
}
