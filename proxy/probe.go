package proxy

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

	"pgwicket/internal/socket"
)

// probes are the connections of Alive that no accept loop has met yet.
type probes struct {
	turn sync.Mutex // one Alive at a time
	some atomic.Bool
	mu   sync.Mutex
	from map[netip.AddrPort]time.Time // since when
}

// strayProbe is when one that is still not met has gone to another process, and
// its port may be somebody else's now.
const strayProbe = 10 * time.Second

func (p *probes) add(from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from == nil {
		p.from = make(map[netip.AddrPort]time.Time)
	}
	p.from[from] = time.Now()
	p.some.Store(true)
}

// met says that conn is one of ours. It is neither served nor counted: a source
// that is not allowed would be logged each time.
func (p *probes) met(conn *net.TCPConn) bool {
	if !p.some.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.from, func(_ netip.AddrPort, since time.Time) bool { return time.Since(since) > strayProbe })
	from := addrPort(conn.RemoteAddr())
	_, ours := p.from[from]
	delete(p.from, from)
	p.some.Store(len(p.from) > 0)
	return ours
}

func addrPort(a net.Addr) netip.AddrPort {
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

// Alive proves that the accept loop of every listener works, by connecting to
// it, and returns an error if one has not completed a round before ctx ends. A server
// that is shutting down has none any more.
func (s *Server) Alive(ctx context.Context) error {
	s.probes.turn.Lock()
	defer s.probes.turn.Unlock()
	s.mu.Lock() // that this can be had is part of the proof
	draining := s.shutdown.begun.Load()
	loops := maps.Clone(s.listeners)
	s.mu.Unlock()
	if draining {
		return nil
	}
	for ln, loop := range loops {
		if err := s.probes.waitForRound(ctx, ln, loop); err != nil && !s.shutdown.begun.Load() {
			return err
		}
	}
	return nil
}

// waitForRound connects until the loop has completed a round. That it failed to accept,
// for want of descriptors, or has accepted somebody else, proves it as well.
func (p *probes) waitForRound(ctx context.Context, ln net.Listener, loop *acceptLoop) error {
	before := loop.rounds.Load()
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
		conn, err := p.dial(one, ln.Addr())
		if last = err; err == nil {
			conns = append(conns, conn)
		}
	}
	for dial(); loop.rounds.Load() == before; {
		select {
		case <-check.C:
		case <-again.C:
			dial()
		case <-ctx.Done():
			return fmt.Errorf("the accept loop of %s does not answer (connecting to it: %v)", ln.Addr(), last) //nolint:errorlint // for the log
		}
	}
	return nil
}

// dial connects to a listener at its own address, or the loopback one, from the
// same.
func (p *probes) dial(ctx context.Context, listener net.Addr) (conn net.Conn, err error) {
	tcp, ok := listener.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("%s is not of TCP", listener)
	}
	own := addrPort(listener)
	for _, addr := range reachedAt(own.Addr()) {
		d := net.Dialer{
			KeepAlive: -1,
			Control: func(_, _ string, c syscall.RawConn) error {
				return socket.Control(c, func(fd socket.Descriptor) error { return p.bind(fd, addr, tcp.Zone) })
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
func (p *probes) bind(fd socket.Descriptor, addr netip.Addr, zone string) error {
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
