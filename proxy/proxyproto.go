package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"

	"pgwicket/acl"
	"pgwicket/internal/relay"
)

// The PROXY protocol, with which a load balancer says for whom it speaks, as
// HAProxy's proxy-protocol.txt has it. A peer that may send a header may be any
// client, so trust has no default (caddyserver/caddy#5915, minekube/gate#936,
// netbirdio/netbird#5332, pires/go-proxyproto#11 and #131): from a listed load balancer a header
// is required, from anybody else it is refused.
//
// The header is cut out of the stream here and then understood by the library,
// whose own reading wants version 1 in one segment and keeps what it has read
// too much.
const (
	proxyV1      = "PROXY "
	proxyV2      = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV1Limit = 107     // of the whole line
	proxyV2Limit = 4 << 10 // of what stands behind the fixed part
	proxyV2Fixed = 16
	proxyAtOnce  = 536 // which the protocol promises to fit one segment
)

var (
	errNoProxyHeader   = errors.New("there is no PROXY header")
	errLongProxyHeader = errors.New("the PROXY header is too long")
	errProxyFamily     = errors.New("the PROXY header is not for TCP")
	errProxyRest       = errors.New("the PROXY header is not as long as it says")
)

// trusts reports whether an address may, and must, say for whom it speaks.
func (p *Policy) trusts(listener string, peer netip.Addr) bool {
	n := p.Proxies[listener]
	return n != nil && n.Judge(peer) == acl.Allowed
}

// readProxyHeader learns where a connection really comes from, if a load balancer has
// passed it on. What a load balancer opens for itself (LOCAL, UNKNOWN, or its own
// end of the connection, as HAProxy's checks have it in version 1) is its own:
// nearly always a health check, which ends here.
func (c *conn) readProxyHeader() error {
	if !c.policy.trusts(c.peer.request.Listener, c.peer.request.Source) {
		return nil
	}
	timeout := c.policy.StartupTimeout
	if own := c.policy.ProxyHeaderTimeout; own > 0 {
		timeout = min(timeout, own)
	}
	_ = c.socket.SetDeadline(c.peer.accepted.Add(timeout))
	source, rest, err := parseProxyStream(c.socket)
	if err != nil {
		return proxyRefusal(err)
	}
	c.socket.Unread(rest)
	if !source.IsValid() || source == c.peer.source {
		// Its address need not be in acl.allow as long as it sends nothing more
		// (kubernetes/kubernetes#57250).
		_ = c.socket.SetDeadline(c.startupDeadline())
		c.balancer = true
		_, err := c.firstByte()
		return err
	}
	c.peer.proxied(source)
	return nil
}

// judge is Policy.Judge, for the load balancer, too: what it has said counts for
// as long as it is trusted.
//
// verified says that by has just verified the certificate.
func (p *peer) judge(by *Policy, at time.Time, verified bool) (*acl.Rule, error) {
	if p.proxy.IsValid() && !by.trusts(p.request.Listener, p.proxy.Addr()) {
		return nil, &Refusal{
			Outcome: ProxyHeaderRefused,
			Public:  "the load balancer that it came by is not allowed any more",
			Detail:  "the load balancer is not in proxy_protocol_from any more",
		}
	}
	if verified {
		return by.judgeVerified(&p.request)
	}
	return by.Judge(&p.request, p.tls, at)
}

// unexpectedProxyHeader reports whether a PROXY header comes where a packet
// should: from somebody who is not trusted, or behind another. No startup packet
// begins like one.
func (c *conn) unexpectedProxyHeader(first byte) bool {
	return first == proxyV1[0] && c.socket.HasPrefix(proxyV1) || first == proxyV2[0] && c.socket.HasPrefix(proxyV2)
}

// proxyRefusal says why a header could not be read.
func proxyRefusal(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return refuse(Probe, "closed before it sent a PROXY header")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(ProxyHeaderInvalid, "no complete PROXY header in time")
	case errors.Is(err, io.ErrUnexpectedEOF), relay.IsReset(err):
		return refuse(ProxyHeaderInvalid, "closed in the middle of its PROXY header")
	}
	return refuse(ProxyHeaderInvalid, err.Error())
}

// parseProxyStream reads a header and returns the address in it, an invalid one
// if the sender speaks for itself, and what it has read behind the header. It is
// io.EOF if nothing comes at all.
func parseProxyStream(r io.Reader) (source netip.AddrPort, rest []byte, err error) {
	b := make([]byte, 0, proxyAtOnce)
	for {
		length, err := proxyHeaderLength(b)
		if err != nil {
			return source, nil, err
		}
		if length > 0 && length <= len(b) {
			source, err = parseProxyHeader(b[:length])
			return source, b[length:], err
		}
		b = slices.Grow(b, max(length-len(b), 1))
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case n > 0 || err == nil:
		case len(b) == 0 && relay.IsReset(err):
			return source, nil, io.EOF // how some health checks end
		case len(b) > 0 && errors.Is(err, io.EOF):
			return source, nil, io.ErrUnexpectedEOF
		default:
			return source, nil, err
		}
	}
}

// proxyHeaderLength returns the length of the header that begins with b, or 0 if
// b is too short to tell.
func proxyHeaderLength(b []byte) (int, error) {
	agrees := func(with string) bool {
		n := min(len(b), len(with))
		return string(b[:n]) == with[:n]
	}
	switch {
	case agrees(proxyV1):
		line := b[:min(len(b), proxyV1Limit)]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			return i + 1, nil
		}
		if len(line) == proxyV1Limit {
			return 0, errLongProxyHeader
		}
		return 0, nil
	case agrees(proxyV2):
		if len(b) < proxyV2Fixed {
			return 0, nil
		}
		length := int(binary.BigEndian.Uint16(b[proxyV2Fixed-2:]))
		if length > proxyV2Limit {
			return 0, errLongProxyHeader
		}
		return proxyV2Fixed + length, nil
	}
	return 0, errNoProxyHeader
}

// parseProxyHeader understands a whole header. What it carries besides the
// addresses is of no use here, but its lengths must add up.
func parseProxyHeader(b []byte) (source netip.AddrPort, err error) {
	all := bufio.NewReaderSize(bytes.NewReader(b), len(b))
	h, err := proxyproto.Read(all)
	switch {
	case err != nil:
		return source, err
	case all.Buffered() > 0:
		return source, errProxyRest // we have cut it in another place than the library
	case h.Command.IsLocal():
		return source, nil
	}
	if _, err := h.TLVs(); err != nil {
		return source, err
	}
	addr, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok {
		return source, errProxyFamily
	}
	ap := addr.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
