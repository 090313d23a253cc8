// Package backend connects to PostgreSQL: to the first host of a list that answers, over
// TLS where the host is asked for it, and with CancelRequests.
package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"pgwicket/internal/relay"
	"pgwicket/internal/tlsrecord"
)

// Backend is where admitted sessions go: to the first of its hosts that takes the
// connection.
type Backend struct {
	Hosts []Host
	// ConnectTimeout bounds the connect to each address of a host, its TLS included. The
	// look-up of a name may take as long.
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
	// Lookup finds the addresses of a name; nil: Resolve.
	Lookup Lookup
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

// Conn is a connection to a host. Close it, or give its parts to a relay.
type Conn struct {
	*relay.Conn
	TLS  tlsrecord.Secure // over Conn; nil: in clear
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

// Connect tries the hosts in their order, and each host's addresses, those last that
// have failed lately. tried is told how each attempt at a host went.
func (b *Backend) Connect(ctx context.Context, failures *Failures, tried func(*Host, error)) (*Conn, error) {
	var errs []error
	for i := range b.Hosts {
		host := &b.Hosts[i]
		all, err := host.Addresses(ctx, failures, b.ConnectTimeout)
		if err != nil {
			tried(host, err)
			errs = append(errs, err)
		}
		for _, one := range all {
			conn, err := one.Connect(ctx, b.ConnectTimeout)
			tried(host, err)
			if !errors.Is(ctx.Err(), context.Canceled) { // else nobody has waited for the address
				failures.Note(one.Address, err != nil)
			}
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, errors.Join(errs...)
}

// Addresses returns the host once for each of its addresses, those last that have failed
// lately.
func (h *Host) Addresses(ctx context.Context, failures *Failures, timeout time.Duration) (all []*Host, err error) {
	lookup := h.Lookup
	if lookup == nil {
		lookup = Resolve
	}
	found, err := resolve(ctx, timeout, lookup, h.Network, h.Address)
	failures.Sort(found)
	for _, address := range found {
		if address == h.Address { // its sessions share it
			all = append(all, h)
			continue
		}
		one := *h
		one.Address = address
		all = append(all, &one)
	}
	return all, err
}

// Connect opens a connection to the host, whose Address has no name in it, ready for a
// startup packet or a CancelRequest.
func (h *Host) Connect(ctx context.Context, timeout time.Duration) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dial(ctx, h.Network, h.Address, h.UserTimeout)
	if err != nil {
		return nil, err
	}
	b := &Conn{Conn: relay.NewConn(conn.(relay.Socket)), Host: h}
	if h.TLS == nil {
		return b, nil
	}
	unwatch := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	b.TLS, err = h.secure(b.Conn)
	if !unwatch() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s: %w", h.Address, err)
	}
	return b, nil
}
