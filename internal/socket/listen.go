// Package socket opens, inherits and configures the TCP sockets that clients connect to, with the options that each
// system has.
package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Keepalive is for every TCP connection of the gate. A client that vanishes without a word is noticed by keepalive probes when it
// is idle, and by TCP_USER_TIMEOUT when data for it is under way.
var Keepalive = net.KeepAliveConfig{
	Enable:   true,
	Idle:     time.Minute,
	Interval: 15 * time.Second,
	Count:    4,
}

// Listen opens a TCP listener whose connections end when their client has not
// been heard of for userTimeout; 0 leaves that to the system.
func Listen(ctx context.Context, address string, userTimeout time.Duration) (net.Listener, error) {
	return listen(ctx, address, userTimeout, func(syscall.RawConn) error { return nil })
}

// ListenShared is Listen with SO_REUSEPORT: other processes of the same account
// may listen on the address, too, and each gets a share of the connections.
func ListenShared(ctx context.Context, address string, userTimeout time.Duration) (net.Listener, error) {
	return listen(ctx, address, userTimeout, SharePort)
}

func listen(ctx context.Context, address string, userTimeout time.Duration, prepare func(syscall.RawConn) error) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAliveConfig: Keepalive,
		// Accepted connections inherit the option from their listener.
		Control: func(_, _ string, c syscall.RawConn) error {
			return errors.Join(prepare(c), SetUserTimeout(c, userTimeout))
		},
	}
	// A subflow of MPTCP may come from a network that is not allowed, and the
	// listener would not see it. Go listens with MPTCP by default.
	lc.SetMultipathTCP(false)
	network := "tcp"
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr() == netip.IPv4Unspecified() {
		network = "tcp4" // or it would be [::], which takes IPv6, too, and has another name in rules and logs
	}
	return lc.Listen(ctx, network, address)
}

// inherited is a listener that another process has opened and keeps open, and
// that is left as it is: what others get from their listener, its connections
// get one by one.
type inherited struct {
	*net.TCPListener
	userTimeout time.Duration
}

func (l *inherited) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	// As in net, no failure to set an option is a reason to refuse a client.
	_ = conn.SetKeepAliveConfig(Keepalive)
	if c, err := conn.SyscallConn(); err == nil {
		_ = SetUserTimeout(c, l.userTimeout)
	}
	return conn, nil
}

// adopted is a listener of the process before this one, which is gone soon: as inherited, but nobody else
// keeps it open.
type adopted struct{ inherited }

// Activated reports whether a listener is one that the service manager keeps open.
func Activated(ln net.Listener) bool {
	_, ok := ln.(*inherited)
	return ok
}

// Inherit is Listen on a socket that the service manager has passed to this process, and keeps open. It closes
// f.
func Inherit(f *os.File, userTimeout time.Duration) (net.Listener, error) {
	l, err := listenerOf(f)
	if err != nil {
		return nil, err
	}
	return &inherited{l, userTimeout}, nil
}

// Adopt is Listen on a socket of the process before this one. It closes f.
func Adopt(f *os.File, userTimeout time.Duration) (net.Listener, error) {
	l, err := listenerOf(f)
	if err != nil {
		return nil, err
	}
	return &adopted{inherited{l, userTimeout}}, nil
}

func listenerOf(f *os.File) (*net.TCPListener, error) {
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", f.Name(), err)
	}
	l, ok := ln.(*net.TCPListener)
	if !ok {
		_ = ln.Close()
		return nil, fmt.Errorf("socket %s: %s %s is not of TCP", f.Name(), ln.Addr().Network(), ln.Addr())
	}
	if err := listens(l); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("socket %s: %w", f.Name(), err)
	}
	return l, nil
}

func listens(l *net.TCPListener) error {
	c, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return Control(c, func(fd Descriptor) error {
		listens, err := acceptsConnections(fd)
		if err == nil && !listens {
			err = errors.New("does not listen (a socket unit must not have Accept=yes)")
		}
		return err
	})
}

// Control calls f with the descriptor of c.
func Control(c syscall.RawConn, f func(fd Descriptor) error) (err error) {
	if e := c.Control(func(fd uintptr) { err = f(Descriptor(fd)) }); e != nil {
		return e
	}
	return err
}
