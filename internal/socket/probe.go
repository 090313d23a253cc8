package socket

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Probes are connections to listeners of this process that no accept loop has met yet. The
// zero value has none. Its methods may be called concurrently.
type Probes struct {
	turn sync.Mutex // one Probe at a time
	some atomic.Bool
	mu   sync.Mutex
	from map[netip.AddrPort]time.Time // since when
}

// strayProbe is when one that is still not met has gone to another process, and
// its port may be somebody else's now.
const strayProbe = 10 * time.Second

func (p *Probes) add(from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from == nil {
		p.from = make(map[netip.AddrPort]time.Time)
	}
	p.from[from] = time.Now()
	p.some.Store(true)
}

// Met reports whether conn is one of them. Such a connection is neither to be served nor counted: a source
// that is not allowed would be logged each time.
func (p *Probes) Met(conn *net.TCPConn) bool {
	if !p.some.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.from, func(_ netip.AddrPort, since time.Time) bool { return time.Since(since) > strayProbe })
	from := AddrPort(conn.RemoteAddr())
	_, ours := p.from[from]
	delete(p.from, from)
	p.some.Store(len(p.from) > 0)
	return ours
}

// AddrPort returns the address of a TCP connection, an IPv4 one as such and without a zone.
// Of another kind of address it is the zero value.
func AddrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

const (
	// Where another process listens on the same address or socket, it may get
	// the connection, and so there must be more than one.
	probeEvery = 100 * time.Millisecond
	probeCheck = 5 * time.Millisecond
)

// Probe connects to a listener until its accept loop has completed a round, or fails when ctx
// ends. rounds returns how many rounds there have been. That the loop failed to accept,
// for want of descriptors, or has accepted somebody else, proves it as well.
func (p *Probes) Probe(ctx context.Context, listener net.Addr, rounds func() uint64) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	before := rounds()
	again := time.NewTicker(probeEvery)
	defer again.Stop()
	check := time.NewTicker(probeCheck)
	defer check.Stop()
	var last error
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	dial := func() {
		one, cancel := context.WithTimeout(ctx, probeEvery)
		defer cancel()
		conn, err := p.dial(one, listener)
		if last = err; err == nil {
			conns = append(conns, conn)
		}
	}
	for dial(); rounds() == before; {
		select {
		case <-check.C:
		case <-again.C:
			dial()
		case <-ctx.Done():
			return fmt.Errorf("the accept loop of %s does not answer (connecting to it: %v)", listener, last) //nolint:errorlint // for the log
		}
	}
	return nil
}

// dial connects to a listener at its own address, or the loopback one, from the
// same.
func (p *Probes) dial(ctx context.Context, listener net.Addr) (conn net.Conn, err error) {
	tcp, ok := listener.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("%s is not of TCP", listener)
	}
	own := AddrPort(listener)
	for _, addr := range reachedAt(own.Addr()) {
		d := net.Dialer{
			KeepAlive: -1,
			Control: func(_, _ string, c syscall.RawConn) error {
				return Control(c, func(fd Descriptor) error { return p.bind(fd, addr, tcp.Zone) })
			},
		}
		to := netip.AddrPortFrom(addr.WithZone(tcp.Zone), own.Port())
		if conn, err = d.DialContext(ctx, "tcp", to.String()); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// reachedAt names addresses of this machine that lead to a listener. One on [::]
// also has those of IPv4, and IPv6 may be switched off.
func reachedAt(addr netip.Addr) []netip.Addr {
	loopback4 := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	switch addr {
	case netip.IPv4Unspecified():
		return []netip.Addr{loopback4}
	case netip.IPv6Unspecified():
		return []netip.Addr{netip.IPv6Loopback(), loopback4}
	}
	return []netip.Addr{addr}
}

// bind gives the socket its port before it connects: the accept loop may be
// faster than the connect returns.
func (p *Probes) bind(fd Descriptor, addr netip.Addr, zone string) error {
	var local syscall.Sockaddr
	if addr.Is4() {
		local = &syscall.SockaddrInet4{Addr: addr.As4()}
	} else {
		in6 := &syscall.SockaddrInet6{Addr: addr.As16()}
		if i, err := net.InterfaceByName(zone); err == nil {
			in6.ZoneId = uint32(i.Index)
		}
		local = in6
	}
	if err := syscall.Bind(fd, local); err != nil {
		return fmt.Errorf("bind to %s: %w", addr, err)
	}
	local, err := syscall.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	port := 0
	switch l := local.(type) {
	case *syscall.SockaddrInet4:
		port = l.Port
	case *syscall.SockaddrInet6:
		port = l.Port
	}
	p.add(netip.AddrPortFrom(addr, uint16(port)))
	return nil
}
