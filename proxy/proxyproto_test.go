package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/policy"
	"pgwicket/proxy"
)

// Peers of a gate behind a load balancer: only the first may send a header, only
// the second may come alone.
const (
	balancer = "127.0.0.1"
	direct   = "127.0.0.2"
	stranger = "127.0.0.3"
)

// newGateBehind serves clients of 192.0.2.0/24 and 2001:db8::/32, by way of a
// load balancer, and its neighbour direct. The load balancer's own address is not
// allowed.
func newGateBehind(t *testing.T, socketDir string, edit ...func(*proxy.Policy)) *gate {
	t.Helper()
	g := newGate(t, socketDir, slices.Concat([]func(*proxy.Policy){func(p *proxy.Policy) {
		p.Networks = networks([]string{"192.0.2.0/24", "2001:db8::/32", direct}, nil)
	}}, edit)...)
	g.reload(func(p *proxy.Policy) { p.Proxies = map[string]*acl.Networks{g.Addr: networks([]string{balancer}, nil)} })
	return g
}

// proxyV1 and proxyV2 write headers as the protocol's text has them; what is
// wrong with an argument is wrong with the header.
func proxyV1(line string) []byte { return []byte("PROXY " + line + "\r\n") }

func proxyV2(command, family byte, body ...byte) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// addresses is the block of a header of version 2.
func addresses(source string) []byte {
	ap := netip.MustParseAddrPort(source)
	a := ap.Addr().AsSlice()
	b := slices.Concat(a, a)
	b = binary.BigEndian.AppendUint16(b, ap.Port())
	return binary.BigEndian.AppendUint16(b, 5432)
}

// tlv is one, with the length that it claims.
func tlv(kind byte, length int, value ...byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(length)), value...)
}

const (
	cmdLocal, cmdProxy                       = 0x20, 0x21
	famUnspec, famTCP4, famUDP4, famTCP6     = 0x00, 0x11, 0x12, 0x21
	famUDP6, famUnix, famUnixgram, famUnused = 0x22, 0x31, 0x32, 0x13
)

var (
	v1Good = proxyV1("TCP4 192.0.2.7 192.0.2.1 4711 5432")
	v2Good = proxyV2(cmdProxy, famTCP4, addresses("192.0.2.7:4711")...)
)

// meet plays a dialogue from one of the addresses and returns what the log says.
func (g *gate) meet(t *testing.T, from, outcome string, steps ...step) logLine {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := d.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &client{Conn: conn, raw: conn.(*net.TCPConn), g: g}
	for _, step := range steps {
		step(t, c)
	}
	_ = c.Close()
	line := g.expect(t, outcome)
	if f := line.get("proxy"); f != "" && f != conn.LocalAddr().String() {
		t.Errorf("came by %v, and the log says %s", conn.LocalAddr(), f)
	}
	if line.get("proxy") == "" && line.get("client") != conn.LocalAddr().String() {
		t.Errorf("came from %v, and the log says %s", conn.LocalAddr(), line.get("client"))
	}
	return line
}

func TestProxyHeader(t *testing.T) {
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir)
	for name, c := range map[string]struct {
		header  []byte
		client  string
		allowed bool
	}{
		"v1, IPv4":                {v1Good, "192.0.2.7:4711", true},
		"v1, IPv6":                {proxyV1("TCP6 2001:db8::7 2001:db8::1 65535 5432"), "[2001:db8::7]:65535", true},
		"v1, IPv4-mapped":         {proxyV1("TCP6 ::ffff:192.0.2.7 ::1 1 5432"), "192.0.2.7:1", true},
		"v1, longest":             {proxyV1("TCP6 2001:0db8:0000:0000:0000:0000:0000:0007 2001:0db8:0000:0000:0000:0000:0000:0001 65535 65535"), "[2001:db8::7]:65535", true},
		"v1, IPv4, not allowed":   {proxyV1("TCP4 198.51.100.7 192.0.2.1 4711 5432"), "198.51.100.7:4711", false},
		"v1, IPv6, not allowed":   {proxyV1("TCP6 2001:db9::7 2001:db8::1 4711 5432"), "[2001:db9::7]:4711", false},
		"v1, its own, disallowed": {proxyV1("TCP4 127.0.0.1 192.0.2.1 4711 5432"), "127.0.0.1:4711", false},
		"v2, IPv4":                {v2Good, "192.0.2.7:4711", true},
		"v2, IPv6":                {proxyV2(cmdProxy, famTCP6, addresses("[2001:db8::7]:4711")...), "[2001:db8::7]:4711", true},
		"v2, IPv4-mapped":         {proxyV2(cmdProxy, famTCP6, addresses("[::ffff:192.0.2.7]:4711")...), "192.0.2.7:4711", true},
		"v2, IPv4, not allowed":   {proxyV2(cmdProxy, famTCP4, addresses("198.51.100.7:4711")...), "198.51.100.7:4711", false},
		"v2, IPv6, not allowed":   {proxyV2(cmdProxy, famTCP6, addresses("[2001:db9::7]:4711")...), "[2001:db9::7]:4711", false},
		"v2, mapped, not allowed": {proxyV2(cmdProxy, famTCP6, addresses("[::ffff:198.51.100.7]:4711")...), "198.51.100.7:4711", false},
		"v2, TLVs":                {proxyV2(cmdProxy, famTCP4, slices.Concat(addresses("192.0.2.7:4711"), tlv(4, 0), tlv(1, 2, 'h', '2'), tlv(0xea, 3, 1, 2, 3))...), "192.0.2.7:4711", true},
		"v2, as long as may be":   {proxyV2(cmdProxy, famTCP4, slices.Concat(addresses("192.0.2.7:4711"), tlv(4, 4096-15, make([]byte, 4096-15)...))...), "192.0.2.7:4711", true},
	} {
		t.Run(name, func(t *testing.T) {
			var line logLine
			if c.allowed {
				line = g.meet(t, balancer, "client_closed", say(c.header), ssl(), say(alice), opened)
				if got := b.received(t); !bytes.Equal(got, alice) {
					t.Errorf("the backend got %q", got)
				}
			} else {
				line = g.meet(t, balancer, "source_not_allowed", say(c.header), eof)
			}
			if line.get("client") != c.client || line.get("proxy") == "" {
				t.Errorf("the log has client %s and proxy %s, want client %s", line.get("client"), line.get("proxy"), c.client)
			}
		})
	}
}

// Segments are not headers, and what stands behind one is the client's, to the
// byte.
func TestProxyHeaderSegments(t *testing.T) {
	for name, header := range map[string][]byte{
		"v1":       v1Good,
		"v2":       v2Good,
		"v2, long": proxyV2(cmdProxy, famTCP4, slices.Concat(addresses("192.0.2.7:4711"), tlv(4, 1000, make([]byte, 1000)...))...),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t)
			g := newGateBehind(t, b.SocketDir)
			// in puts bytes in front of TLS's first, in one segment or many.
			in := func(wrap func(net.Conn) net.Conn, answer string, before ...[]byte) step {
				return func(t *testing.T, c *client) {
					t.Helper()
					conn := &answered{Conn: &prefixed{wrap(c.raw), slices.Concat(before...)}, answer: answer, t: t}
					c.Conn = shake(t, conn, c.g.clientTLS(withALPN("postgresql")))
				}
			}
			one := func(c net.Conn) net.Conn { return c }
			many := func(c net.Conn) net.Conn { return dribble{c} }
			cancel := cancelRequest(7, []byte("abcd"))
			for what, s := range map[string]struct {
				outcome string
				steps   []step
			}{
				"a segment each byte":               {"client_closed", do(spell(header), ssl(), say(alice), opened)},
				"with SSLRequest":                   {"client_closed", do(say(header, sslRequest), hear("S"), upgrade(), say(alice), opened)},
				"with both requests":                {"client_closed", do(say(header, gssencRequest, sslRequest), hear("NS"), upgrade(), say(alice), opened)},
				"with half an SSLRequest":           {"client_closed", do(say(header, sslRequest[:3]), say(sslRequest[3:]), hear("S"), upgrade(), say(alice), opened)},
				"with SSLRequest and ClientHello":   {"client_closed", do(in(one, "S", header, sslRequest), say(alice), opened)},
				"with ClientHello":                  {"client_closed", do(in(one, "", header), say(alice), opened)},
				"all that, byte by byte":            {"client_closed", do(in(many, "S", header, sslRequest), say(alice), opened)},
				"with ClientHello, byte by byte":    {"client_closed", do(in(many, "", header), say(alice), opened)},
				"with a CancelRequest":              {"forwarded", do(say(header, cancel), eof)},
				"with a startup packet":             {"plaintext", do(say(header, alice), fatal("28000", "requires TLS"))},
				"with a packet behind SSLRequest":   {"not_tls", do(say(header, sslRequest, alice), hear("S"), eof)}, // CVE-2021-23214
				"with SSLRequest twice":             {"not_tls", do(say(header, sslRequest, sslRequest), hear("S"), eof)},
				"with no more":                      {"probe", do(say(header), hangUp)},
				"with HTTP":                         {"invalid_packet", do(say(header, []byte("POST / HTTP/1.1\r\n\r\n")), eof)},
				"with a second header":              {"proxy_header_refused", do(say(header, v1Good, sslRequest), eof)},
				"with a second header, v2":          {"proxy_header_refused", do(say(header, v2Good, sslRequest), eof)},
				"with a second header, v2, spelled": {"proxy_header_refused", do(spell(header, v2Good), eof)},
			} {
				t.Run(what, func(t *testing.T) {
					if line := g.meet(t, balancer, s.outcome, s.steps...); line.get("client") != "192.0.2.7:4711" {
						t.Errorf("client %s in the log", line.get("client"))
					}
				})
			}
			for len(b.packets) > 0 {
				if got := b.received(t); !bytes.Equal(got, alice) && !bytes.Equal(got, cancel) {
					t.Errorf("the backend got %q", got)
				}
			}
		})
	}
}

// caddy#5915, gate#936, netbird#5332, go-proxyproto#11, go-proxyproto#131: a load
// balancer that is listed must send a header, for without one its own address would
// be judged in place of the client's. A header without an address of TCP names
// nobody, as that of a Unix socket (ghostunnel#751).
func TestProxyHeaderInvalid(t *testing.T) {
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir, func(p *proxy.Policy) {
		p.Networks = networks([]string{"0.0.0.0/0", "::/0"}, nil) // it is not the address that is wrong
	})
	tcp4 := addresses("192.0.2.7:4711")
	with := func(tlvs ...byte) []byte { return proxyV2(cmdProxy, famTCP4, slices.Concat(tcp4, tlvs)...) }
	claims := func(header []byte, length uint16) []byte {
		header = bytes.Clone(header)
		binary.BigEndian.PutUint16(header[14:], length)
		return header
	}
	for name, said := range map[string][]byte{
		"SSLRequest first":             slices.Concat(sslRequest, v1Good),
		"a CancelRequest":              cancelRequest(7, []byte("abcd")),
		"a startup packet":             alice,
		"a ClientHello":                {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"HTTP":                         []byte("GET / HTTP/1.1\r\n\r\n"),
		"nearly v1":                    []byte("PROXYTCP4 192.0.2.7 192.0.2.1 4711 5432\r\n"),
		"v1, in small letters":         []byte("proxy TCP4 192.0.2.7 192.0.2.1 4711 5432\r\n"),
		"v1, no CR":                    []byte("PROXY TCP4 192.0.2.7 192.0.2.1 4711 5432\n"),
		"v1, no line end":              append([]byte("PROXY TCP4 "), bytes.Repeat([]byte("1"), 200)...),
		"v1, 108 bytes":                proxyV1("UNKNOWN " + strings.Repeat("x", 108-16)),
		"v1, UDP":                      proxyV1("UDP4 192.0.2.7 192.0.2.1 4711 5432"),
		"v1, UNIX":                     proxyV1("UNIX /a /b"),
		"v1, no family":                proxyV1(""),
		"v1, no addresses":             proxyV1("TCP4"),
		"v1, one more":                 proxyV1("TCP4 192.0.2.7 192.0.2.1 4711 5432 1"),
		"v1, two spaces":               proxyV1("TCP4  192.0.2.7 192.0.2.1 4711 5432"),
		"v1, IPv6 as IPv4":             proxyV1("TCP4 2001:db8::7 2001:db8::1 4711 5432"),
		"v1, IPv4 as IPv6":             proxyV1("TCP6 192.0.2.7 192.0.2.1 4711 5432"),
		"v1, zone":                     proxyV1("TCP6 fe80::1%lo ::1 4711 5432"),
		"v1, a name":                   proxyV1("TCP4 localhost 192.0.2.1 4711 5432"),
		"v1, a control":                proxyV1("TCP4 192.0.2.7\x1b[2J\u009b 192.0.2.1 4711 5432"),
		"v1, octal":                    proxyV1("TCP4 192.0.2.07 192.0.2.1 4711 5432"),
		"v1, port too large":           proxyV1("TCP4 192.0.2.7 192.0.2.1 65536 5432"),
		"v1, port with a sign":         proxyV1("TCP4 192.0.2.7 192.0.2.1 -1 5432"),
		"v1, port 080":                 proxyV1("TCP4 192.0.2.7 192.0.2.1 080 5432"),
		"v2, version 1":                proxyV2(0x11, famTCP4, tcp4...),
		"v2, version 3":                proxyV2(0x31, famTCP4, tcp4...),
		"v2, unknown command":          proxyV2(0x22, famTCP4, tcp4...),
		"v2, no family":                proxyV2(cmdProxy, famUnspec),
		"v2, no family, an address":    proxyV2(cmdProxy, famUnspec, tcp4...),
		"v2, unused family":            proxyV2(cmdProxy, famUnused, tcp4...),
		"v2, UDP over IPv4":            proxyV2(cmdProxy, famUDP4, tcp4...),
		"v2, UDP over IPv6":            proxyV2(cmdProxy, famUDP6, addresses("[2001:db8::7]:1")...),
		"v2, UNIX":                     proxyV2(cmdProxy, famUnix, make([]byte, 216)...),
		"v2, UNIX datagrams":           proxyV2(cmdProxy, famUnixgram, make([]byte, 216)...),
		"v2, nothing for IPv4":         proxyV2(cmdProxy, famTCP4),
		"v2, 11 bytes for IPv4":        claims(v2Good, 11),
		"v2, IPv4 for IPv6":            proxyV2(cmdProxy, famTCP6, tcp4...),
		"v2, TLV of one byte":          with(4),
		"v2, TLV of two bytes":         with(4, 0),
		"v2, TLV longer than all":      with(tlv(4, 2, 1)...),
		"v2, TLV longest of all":       with(tlv(4, 65535, 1, 2, 3)...),
		"v2, second TLV longer":        with(slices.Concat(tlv(4, 1, 1), tlv(4, 1))...),
		"v2, TLV ends in the next":     slices.Concat(with(tlv(4, 8)...), sslRequest),
		"v2, longer than is taken":     claims(v2Good, 4097),
		"v2, longest":                  claims(v2Good, 65535),
		"v2, LOCAL longer than taken":  claims(proxyV2(cmdLocal, famUnspec), 4097),
		"v2, LOCAL, no such family":    proxyV2(cmdLocal, 0x44),
		"v2, its signature's end gone": v2Good[:11:11],
		"v2, another signature":        append(bytes.Clone(v2Good[:11]), 'X'),
	} {
		t.Run(name, func(t *testing.T) {
			steps := do(say(said), eof)
			if bytes.HasPrefix(v2Good, said) {
				steps = do(say(said), hangUp)
			}
			line := g.meet(t, balancer, "proxy_header_invalid", steps...)
			if line.get("level") != "WARN" || line.get("reason") == "" {
				t.Errorf("the log says %v", line)
			}
		})
	}
	for _, whole := range [][]byte{v1Good, v2Good} {
		for n := 1; n < len(whole); n++ {
			g.meet(t, balancer, "proxy_header_invalid", say(whole[:n]), hangUp)
		}
	}
	b.expectUntouched(t)
}

// caddy#5915, gate#936, netbird#5332, go-proxyproto#11, go-proxyproto#131: a client that
// may send a header may say he is another, so nobody may who is not listed. To
// trust everybody is what the libraries do by default.
func TestProxyHeaderRefused(t *testing.T) {
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir)
	local := proxyV2(cmdLocal, famUnspec)
	for name, said := range map[string][]byte{
		"v1": slices.Concat(v1Good, sslRequest), "v2": slices.Concat(v2Good, sslRequest),
		"v1, no more than the word": []byte("PROXY "), "v2, no more than the signature": v2Good[:12],
		"LOCAL": local, "UNKNOWN": proxyV1("UNKNOWN"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, how := range []step{say(said), spell(said)} {
				line := g.meet(t, direct, "proxy_header_refused", how, eof)
				if line.get("level") != "WARN" {
					t.Errorf("the log says %v", line)
				}
			}
			// Not a byte of it is read from an address that is not allowed.
			g.meet(t, stranger, "source_not_allowed", say(said))
		})
	}
	for name, said := range map[string]string{
		"another word": "PROXYTCP4", "POST": "POST / HTTP/1.1\r\n", "two lines": "\r\n\r\n\r\n\r\n\r\n\r\n", "nearly v2": "\r\n\r\n\x00\r\nQUIT\r",
	} {
		t.Run(name, func(t *testing.T) { g.meet(t, direct, "invalid_packet", say([]byte(said)), eof) })
	}
	g.meet(t, direct, "client_gone", say([]byte("PRO")), hangUp)
	g.meet(t, direct, "client_gone", say(v2Good[:3]), hangUp)
	b.expectUntouched(t)

	// Inside a dialogue it is what it would be without all this.
	g.meet(t, direct, "invalid_packet", say(gssencRequest), hear("N"), say(v1Good), eof)
	g.meet(t, direct, "not_tls", say(sslRequest), hear("S"), say(v2Good), eof)
	b.expectUntouched(t)
	// And a client that sends none is served.
	g.meet(t, direct, "client_closed", ssl(), say(alice), opened)
	g.meet(t, direct, "client_closed", directTLS(), say(alice), opened)

	// In words to others does not mean that they may claim to be somebody.
	g.reload(func(p *proxy.Policy) { p.SourceRefusal = policy.Explain })
	g.meet(t, stranger, "proxy_header_refused", say(v1Good, sslRequest), eof)
	g.meet(t, balancer, "source_not_allowed", say(proxyV1("TCP4 198.51.100.7 192.0.2.1 4711 5432")), ssl(), say(alice), fatal("28000", ""))

	// What is said of one listener is not said of another.
	g.reload(func(p *proxy.Policy) {
		p.Networks = networks([]string{"0.0.0.0/0"}, nil)
		p.Proxies = map[string]*acl.Networks{"127.0.0.1:1": networks([]string{balancer}, nil)}
	})
	g.meet(t, balancer, "proxy_header_refused", say(v2Good, sslRequest), eof)
	g.meet(t, balancer, "client_closed", ssl(), say(alice), opened)
}

// kubernetes#57250: a load balancer asks whether we are
// there, each in its own way, and that is no attack.
func TestProxyHealthChecks(t *testing.T) {
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir)
	for name, header := range map[string][]byte{
		"nothing":                       nil,
		"LOCAL":                         proxyV2(cmdLocal, famUnspec),
		"LOCAL with addresses":          proxyV2(cmdLocal, famTCP4, addresses("192.0.2.7:4711")...),
		"LOCAL with nothing for IPv4":   proxyV2(cmdLocal, famTCP4),
		"LOCAL with zeros":              proxyV2(cmdLocal, famUnspec, make([]byte, 24)...),
		"LOCAL with what is no TLV":     proxyV2(cmdLocal, famUnspec, 1, 0xff, 0xff),
		"LOCAL over UDP":                proxyV2(cmdLocal, famUDP4, addresses("192.0.2.7:4711")...),
		"UNKNOWN":                       proxyV1("UNKNOWN"),
		"UNKNOWN with addresses":        proxyV1("UNKNOWN 2001:db8::7 2001:db8::1 4711 5432"),
		"UNKNOWN with whatever":         proxyV1("UNKNOWN \x00\xff"),
		"UNKNOWN, as long as it may be": proxyV1("UNKNOWN " + strings.Repeat("x", 107-16)),
	} {
		t.Run(name, func(t *testing.T) {
			g.reload(func(p *proxy.Policy) { p.Networks = networks([]string{"192.0.2.0/24"}, nil) })
			g.meet(t, balancer, "probe", say(header), hangUp)
			g.meet(t, balancer, "probe", spell(header), hangUp)
			g.meet(t, balancer, "probe", say(header), dies)
			if header == nil {
				return
			}
			// As soon as it asks for something, it is a client like others.
			g.meet(t, balancer, "source_not_allowed", say(header, alice))
			g.meet(t, balancer, "source_not_allowed", say(header), say(sslRequest, alice))
			b.expectUntouched(t)
			g.reload(func(p *proxy.Policy) { p.Networks = networks([]string{balancer}, nil) })
			if line := g.meet(t, balancer, "client_closed", say(header), ssl(), say(alice), opened); line.get("proxy") != "" {
				t.Errorf("came by %s in the log, for itself", line.get("proxy"))
			}
			b.Accepted.Store(0)
			g.meet(t, balancer, "client_closed", say(header, sslRequest), hear("S"), upgrade(), say(alice), opened)
			b.Accepted.Store(0)
			g.meet(t, balancer, "proxy_header_refused", say(header, v2Good), eof)
		})
	}
}

// HAProxy's checks in version 1 name their own end of the connection.
func TestProxyHealthCheckOfItself(t *testing.T) {
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir)
	itself := func(t *testing.T, c *client) {
		t.Helper()
		_, port, _ := net.SplitHostPort(c.raw.LocalAddr().String())
		say(proxyV1("TCP4 "+balancer+" 127.0.0.1 "+port+" 5432"))(t, c)
	}
	g.meet(t, balancer, "probe", itself, hangUp)
	g.meet(t, balancer, "probe", itself, say(sslRequest), hear("S"), hangUp)
	g.meet(t, balancer, "source_not_allowed", itself, say(alice))
	b.expectUntouched(t)
}

// go-proxyproto#65: a client that never finishes a header is refused, and
// sooner than the start-up would let it.
func TestProxyHeaderDeadline(t *testing.T) {
	b := newBackend(t)
	const timeout = 50 * time.Millisecond
	g := newGateBehind(t, b.SocketDir, func(p *proxy.Policy) { p.ProxyHeaderTimeout = timeout })
	for name, said := range map[string][]byte{
		"nothing": nil, "v1": v1Good[:20], "v2": v2Good[:20], "v2, all but a byte": v2Good[:len(v2Good)-1],
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			line := g.meet(t, balancer, "proxy_header_invalid", say(said), eof)
			if took := time.Since(began); took < timeout || took > patience/2 {
				t.Errorf("it took %v", took)
			}
			if !strings.Contains(line.get("reason"), "in time") {
				t.Errorf("reason %q", line.get("reason"))
			}
		})
	}
	t.Run("a byte now and then", func(t *testing.T) {
		g.meet(t, balancer, "proxy_header_invalid", func(_ *testing.T, c *client) {
			for _, one := range v2Good {
				if _, err := c.Write([]byte{one}); err != nil {
					return
				}
				time.Sleep(timeout / 10)
			}
		})
	})
	b.expectUntouched(t)

	// The start-up's own deadline is not put off.
	g.reload(func(p *proxy.Policy) { p.ProxyHeaderTimeout, p.StartupTimeout = patience, timeout })
	g.meet(t, balancer, "proxy_header_invalid", say(v2Good[:20]), eof)
	const long = 500 * time.Millisecond
	g.reload(func(p *proxy.Policy) { p.ProxyHeaderTimeout, p.StartupTimeout = patience, long })
	g.meet(t, balancer, "startup_timeout", say(proxyV2(cmdLocal, famUnspec)), eof)

	// traefik#10675: nor does the header's stay on the session, or on its start-up.
	g.reload(func(p *proxy.Policy) { p.ProxyHeaderTimeout, p.StartupTimeout = long, patience })
	pause := func(*testing.T, *client) { time.Sleep(2 * long) }
	g.meet(t, balancer, "client_closed", say(v2Good), pause, ssl(), say(alice), opened, pause, say([]byte("S\x00\x00\x00\x04")))
	g.meet(t, balancer, "source_not_allowed", say(proxyV2(cmdLocal, famUnspec)), pause, say(alice))
}

// A reload may take a load balancer off the list: what it has said of those who
// are in counts no more. One that is added must send headers from then on.
func TestProxiesReloaded(t *testing.T) {
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir, func(p *proxy.Policy) {
		p.Networks = networks([]string{"0.0.0.0/0"}, nil)
	})
	behind := g.policy.Proxies
	stop := func(*testing.T, *client) { g.reload(func(p *proxy.Policy) { p.Proxies = nil }) }
	line := g.meet(t, balancer, "proxy_header_refused", say(v1Good), ssl(), say(alice), opened, stop, fatal("57P01", "load balancer"))
	if line.get("msg") != "session ended" {
		t.Errorf("the log says %v", line)
	}
	g.meet(t, balancer, "proxy_header_refused", say(v1Good), eof)
	start := func(*testing.T, *client) { g.reload(func(p *proxy.Policy) { p.Proxies = behind }) }
	// Who is in came by its own address, and that has not changed.
	g.meet(t, balancer, "client_closed", ssl(), say(alice), opened, start, func(t *testing.T, c *client) {
		eventually(t, "a recheck", func() bool { return g.metric(t, "pgwicket_rechecks_total") >= 3 })
	})
	g.meet(t, balancer, "proxy_header_invalid", say(sslRequest), eof)
	// Nor does a reload slip past a client that is on its way in.
	g.meet(t, balancer, "proxy_header_refused", say(v1Good), ssl(), stop, say(alice), eof)
}

// Behind a load balancer the clients have different sources, and rules see whom they
// are about.
func TestProxiedClientsAreThemselves(t *testing.T) {
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir, func(p *proxy.Policy) {
		p.Limits.PerSource = 1
		p.Rules = rules(t, acl.RuleOptions{Name: "one", Action: "allow", Sources: []string{"192.0.2.7", "192.0.2.8"}})
	})
	inside := func(source, outcome string, steps ...step) step {
		return func(t *testing.T, _ *client) {
			t.Helper()
			header := proxyV2(cmdProxy, famTCP4, addresses(source)...)
			g.meet(t, balancer, outcome, slices.Concat(do(say(header)), steps)...)
		}
	}
	g.meet(t, balancer, "client_closed", say(v1Good), ssl(), say(alice), opened,
		inside("192.0.2.8:1", "client_closed", ssl(), say(alice), opened),
		inside("192.0.2.7:1", "source_limit", ssl(), say(alice), fatal("53300", "too many connections from this address")),
		inside("192.0.2.9:1", "no_rule", ssl(), say(alice), fatal("28000", `host "192.0.2.9"`)))
	inside("192.0.2.7:1", "client_closed", ssl(), say(alice), opened)(t, nil)
}

// A real HAProxy, its health checks included, with psql before it and PostgreSQL
// behind.
func TestHAProxy(t *testing.T) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		if path = "/usr/sbin/haproxy"; func() error { _, err := os.Stat(path); return err }() != nil {
			t.Skip("there is no haproxy")
		}
	}
	const asksForTLS = "option tcp-check\n    tcp-check send-binary 0000000804d2162f\n    tcp-check expect string S"
	for _, c := range []struct{ version, check string }{
		{"send-proxy", ""},
		{"send-proxy-v2", ""},
		{"send-proxy-v2 proxy-v2-options crc32c,unique-id", ""},
		{"send-proxy-v2 check-send-proxy", asksForTLS}, // haproxy#2305
		{"send-proxy check-send-proxy", asksForTLS},
	} {
		t.Run(c.version, func(t *testing.T) {
			// HAProxy comes from an address that is not allowed.
			const from = "127.0.0.9"
			g := newGate(t, realPostgres(t).SocketDir, certificateOf(testCA()), func(p *proxy.Policy) {
				p.Networks = networks([]string{"127.0.0.1"}, nil)
			})
			g.reload(func(p *proxy.Policy) { p.Proxies = map[string]*acl.Networks{g.Addr: networks([]string{from}, nil)} })
			front, err := pgtest.FreeAddress()
			if err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(t.TempDir(), "haproxy.cfg")
			if err := os.WriteFile(config, fmt.Appendf(nil, `
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen postgresql
    bind %s
    unique-id-format %%ci
    source %s
    %s
    server gate %s %s check inter 100ms
`, front, from, c.check, g.Addr, c.version), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var said bytes.Buffer
			cmd := exec.CommandContext(ctx, path, "-db", "-f", config)
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stop := func() { cancel(); _ = cmd.Wait() }
			defer stop()
			eventually(t, "HAProxy listens", func() bool {
				conn, err := net.DialTimeout("tcp", front, time.Second)
				if err == nil {
					conn.Close()
				}
				return err == nil
			})

			_, port, _ := net.SplitHostPort(front)
			out, err := psql(t, libpq(t, g, "PGPORT="+port), "select current_user, repeat('x', 100000) = repeat('x', 100000)")
			if err != nil || out != "app|t" {
				stop()
				t.Fatalf("psql: %v: %s; HAProxy: %s", err, out, &said)
			}
			eventually(t, "health checks", func() bool {
				return g.metric(t, "pgwicket_connections_refused_total", "outcome", "probe") >= 5
			})
			eventually(t, "the session's end", func() bool { return g.metric(t, "pgwicket_sessions_ended_total", "outcome", "client_closed") == 1 })
			stop()
			found := false
			for {
				line, ok := g.Log.next()
				if !ok {
					break
				}
				client, _ := netip.ParseAddrPort(line.get("client"))
				by, _ := netip.ParseAddrPort(line.get("proxy"))
				switch line.get("outcome") {
				case "probe", "":
				case "client_closed":
					found = client.Addr().String() == "127.0.0.1" && strconv.Itoa(int(client.Port())) != port && by.Addr().String() == from
				default:
					t.Errorf("the log has %v", line)
				}
			}
			if !found {
				t.Errorf("no session of 127.0.0.1 by %s in the log:\n%s", from, g.Log)
			}
		})
	}
}
