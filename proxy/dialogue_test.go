package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/internal/outcome"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/policy"
	"pgwicket/internal/socket"
	"pgwicket/internal/tlstest"
	"pgwicket/proxy"
)

// client is one end of a dialogue: the socket at first, TLS over it later.
type client struct {
	net.Conn
	raw *net.TCPConn
	g   *gate
}

// step is one thing that a client does or hears.
type step func(t *testing.T, c *client)

// scene is a dialogue and what the gate makes of it.
type scene struct {
	name    string
	outcome string
	steps   []step
}

func do(steps ...step) []step { return steps }

// say sends packets in one segment.
func say(packets ...[]byte) step {
	return func(t *testing.T, c *client) {
		t.Helper()
		send(t, c, slices.Concat(packets...))
	}
}

// spell sends packets with a segment for each byte; inside TLS it is a record.
func spell(packets ...[]byte) step {
	return func(t *testing.T, c *client) {
		t.Helper()
		for _, b := range slices.Concat(packets...) {
			send(t, c, []byte{b})
		}
	}
}

// hear checks that the gate says exactly this.
func hear(text string) step {
	return func(t *testing.T, c *client) {
		t.Helper()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v; want %q", got, err, text)
		}
	}
}

// upgrade shakes hands.
func upgrade(edit ...func(*tls.Config)) step {
	return func(t *testing.T, c *client) {
		t.Helper()
		c.Conn = shake(t, c.raw, c.g.clientTLS(edit...))
	}
}

// upgradeFails shakes hands in vain; crypto/tls's client then has these words.
func upgradeFails(text string, edit ...func(*tls.Config)) step {
	return func(t *testing.T, c *client) {
		t.Helper()
		if err := tls.Client(c.raw, c.g.clientTLS(edit...)).Handshake(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("handshake: %v, want %q", err, text)
		}
	}
}

// ssl is how libpq asks for TLS, directTLS how libpq 17 can.
func ssl(edit ...func(*tls.Config)) step {
	return func(t *testing.T, c *client) {
		t.Helper()
		say(sslRequest)(t, c)
		hear("S")(t, c)
		upgrade(edit...)(t, c)
	}
}

func directTLS(edit ...func(*tls.Config)) step {
	return upgrade(append([]func(*tls.Config){withALPN("postgresql")}, edit...)...)
}

func fatal(sqlstate, text string) step {
	return func(t *testing.T, c *client) {
		t.Helper()
		expectFatal(t, c, sqlstate, text)
	}
}

// eof checks that the gate ends in order and without a word.
func eof(t *testing.T, c *client) {
	t.Helper()
	expectEOF(t, c)
}

// session checks that the session is open.
func opened(t *testing.T, c *client) {
	t.Helper()
	readReady(t, c)
}

func hangUp(_ *testing.T, c *client) { _ = c.Close() }

// dies ends as a killed process does that has not read everything, and as some
// load balancers do on purpose.
func dies(_ *testing.T, c *client) {
	_ = c.raw.SetLinger(0)
	_ = c.raw.Close()
}

// play plays one dialogue and hangs up.
func (g *gate) play(t *testing.T, s scene) {
	t.Helper()
	t.Run(s.name, func(t *testing.T) {
		raw := g.dial(t)
		c := &client{Conn: raw, raw: raw, g: g}
		for _, step := range s.steps {
			step(t, c)
		}
		_ = c.Close()
		g.check(t, g.outcomeOf(t, raw.LocalAddr()), s.outcome)
	})
}

// playRefused plays dialogues none of which may reach the backend. kviklet#537:
// neither a stranger nor a port scan may cost it a connection.
func playRefused(t *testing.T, edit func(*proxy.Policy), scenes ...scene) {
	t.Helper()
	b := newBackend(t)
	if edit == nil {
		edit = func(*proxy.Policy) {}
	}
	g := newGate(t, b.SocketDir, edit)
	for _, s := range scenes {
		g.play(t, s)
	}
	g.balance(t)
	b.expectUntouched(t)
}

// alice is an ordinary startup message.
var alice = startup(protocol3, "user", "alice", "database", "sales")

// CVE-2021-23214, CVE-2021-3935, odyssey#359, multigres#659: bytes
// behind the SSLRequest that are not TLS are an attacker's, put in front of what
// the client will say inside TLS. They must kill the connection, and the one
// byte of the answer must be all that is said in clear (CVE-2021-23222).
func TestPlaintextBehindSSLRequest(t *testing.T) {
	query := []byte("Q\x00\x00\x00\x0dselect 1\x00")
	playRefused(
		t, nil,
		scene{"startup packet", "not_tls", do(say(sslRequest, alice), hear("S"), eof)},
		scene{"startup packet and query", "not_tls", do(say(sslRequest, alice, query), hear("S"), eof)},
		scene{"in a segment of its own", "not_tls", do(say(sslRequest), say(alice), hear("S"), eof)},
		scene{"byte by byte", "not_tls", do(spell(sslRequest, alice), hear("S"), eof)},
		scene{"after GSSENCRequest", "not_tls", do(say(gssencRequest, sslRequest, alice), hear("NS"), eof)},
		scene{"SSLRequest again", "not_tls", do(say(sslRequest, sslRequest), hear("S"), eof)},
		scene{"GSSENCRequest", "not_tls", do(say(sslRequest, gssencRequest), hear("S"), eof)},
		scene{"CancelRequest", "not_tls", do(say(sslRequest, cancelRequest(1, []byte("abcd"))), hear("S"), eof)},
		scene{"startup packet, then a ClientHello", "not_tls", do(say(sslRequest, alice), hear("S"), upgradeFails(""))},
		scene{"an SSLRequest with more inside", "invalid_packet", do(say(packet(80877103, alice)), eof)},
	)
}

// prefixed puts bytes in front of the first that are written.
type prefixed struct {
	net.Conn
	prefix []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	prefix := p.prefix
	p.prefix = nil
	if _, err := p.Conn.Write(slices.Concat(prefix, b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Since PostgreSQL 17 a client may save a round trip: TLS right behind the
// SSLRequest. What was read ahead must reach the handshake (multigres#659).
func TestClientHelloBehindSSLRequest(t *testing.T) {
	for name, before := range map[string]struct {
		packets []byte
		answer  string
	}{
		"SSLRequest":               {sslRequest, "S"},
		"GSSENC and SSLRequest":    {slices.Concat(gssencRequest, sslRequest), "NS"},
		"nothing, so it is direct": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t)
			g := newGate(t, b.SocketDir)
			raw := g.dial(t)
			conn := tls.Client(&answered{Conn: &prefixed{raw, before.packets}, answer: before.answer, t: t}, g.clientTLS(withALPN("postgresql")))
			send(t, conn, alice)
			readReady(t, conn)
			if got := b.received(t); !bytes.Equal(got, alice) {
				t.Errorf("the backend got %q", got)
			}
		})
	}
}

// answered takes the answer to the requests off before TLS sees it.
type answered struct {
	net.Conn
	answer string
	t      *testing.T
}

func (a *answered) Read(p []byte) (int, error) {
	for ; a.answer != ""; a.answer = a.answer[1:] {
		expectByte(a.t, a.Conn, a.answer[0])
	}
	return a.Conn.Read(p)
}

// CVE-2026-6664, duckgres#727, crate#17059: lengths that no packet
// has, wherever one may be read. As PostgreSQL: closed without a word, and the
// body is not waited for.
func TestImpossibleLengths(t *testing.T) {
	for name, reach := range map[string][]step{
		"in clear":                   {},
		"after GSSENCRequest":        {say(gssencRequest), hear("N")},
		"inside TLS":                 {ssl()},
		"inside direct TLS":          {directTLS()},
		"inside direct TLS, after N": {directTLS(), say(sslRequest), hear("N")},
	} {
		t.Run(name, func(t *testing.T) {
			var scenes []scene
			for _, length := range []uint32{0, 1, 3, 4, 7, 10_005, 10_008, 1 << 16, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32} {
				head := binary.BigEndian.AppendUint32(nil, length)
				scenes = append(scenes, scene{fmt.Sprint(length), "invalid_packet", append(slices.Clone(reach), say(head, alice[4:]), eof)})
			}
			for what, p := range map[string][]byte{
				"9 bytes of SSLRequest":    packet(80877103, []byte{0}),
				"9 bytes of GSSENCRequest": packet(80877104, []byte{0}),
				"CancelRequest, no key":    cancelRequest(7, nil),
				"CancelRequest, key of 3":  cancelRequest(7, []byte("abc")),
				"key of 257":               cancelRequest(7, make([]byte, 257)),
				"CancelRequest of 8":       packet(80877102, nil),
			} {
				scenes = append(scenes, scene{what, "invalid_packet", append(slices.Clone(reach), say(p), eof)})
			}
			playRefused(t, nil, scenes...)
		})
	}
}

// dribble writes each byte in a segment of its own: Go sets TCP_NODELAY.
type dribble struct{ net.Conn }

func (d dribble) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := d.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// corked writes into queue, if there is one.
type corked struct {
	net.Conn
	queue *bytes.Buffer
}

func (c *corked) Write(b []byte) (int, error) {
	if c.queue != nil {
		return c.queue.Write(b)
	}
	return c.Conn.Write(b)
}

// records splits the handshake records of TLS's first flight into records of n
// bytes, which RFC 8446 section 5.1 allows and some middleboxes do.
type records struct {
	net.Conn
	n    int
	done bool
}

func (r *records) Write(b []byte) (int, error) {
	var out []byte
	for rest := b; !r.done && len(rest) > 5 && rest[0] == 0x16; {
		length := int(binary.BigEndian.Uint16(rest[3:]))
		head, body := rest[:3], rest[5:5+length]
		for part := range slices.Chunk(body, r.n) {
			out = append(out, head...)
			out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
			out = append(out, part...)
		}
		rest = rest[5+length:]
	}
	if r.done {
		out = b
	}
	r.done = true
	if _, err := r.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// pgbouncer#1058, supavisor, traefik: segments are not packets.
// traefik#12866, haproxy#3148, golang/go#80573: nor is a ClientHello
// one segment or one record, above all not with a post-quantum key share.
func TestSegmentsAreNotPackets(t *testing.T) {
	long := func(c *tls.Config) { // a hello of more than 2 KB
		c.NextProtos = []string{"postgresql"}
		for len(c.NextProtos) < 8 {
			c.NextProtos = append(c.NextProtos, strings.Repeat("x", 200))
		}
		c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	}
	plain := func(c net.Conn) net.Conn { return c }
	slowly := func(c net.Conn) net.Conn { return dribble{c} }
	inRecordsOf := func(n int) func(net.Conn) net.Conn {
		return func(c net.Conn) net.Conn { return &records{Conn: c, n: n} }
	}
	for _, c := range []struct {
		name string
		wire func(net.Conn) net.Conn
		tls  []func(*tls.Config)
	}{
		{"long hello", plain, []func(*tls.Config){long}},
		{"byte by byte", slowly, nil},
		{"byte by byte, 1.2", slowly, []func(*tls.Config){withVersion(tls.VersionTLS12)}},
		{"long, byte by byte", slowly, []func(*tls.Config){long}},
		{"records of 1 byte", inRecordsOf(1), nil},
		{"records of 1 byte, byte by byte", func(c net.Conn) net.Conn { return &records{Conn: dribble{c}, n: 1} }, nil},
		{"long, records of 100 bytes", inRecordsOf(100), []func(*tls.Config){long}},
		{"long, records of 1460 bytes", inRecordsOf(1460), []func(*tls.Config){long}},
	} {
		for _, direct := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, direct %v", c.name, direct), func(t *testing.T) {
				b := newBackend(t)
				g := newGate(t, b.SocketDir)
				raw := g.dial(t)
				config := g.clientTLS(append([]func(*tls.Config){withALPN("postgresql")}, c.tls...)...)
				if !direct {
					send(t, dribble{raw}, gssencRequest)
					expectByte(t, raw, 'N')
					send(t, dribble{raw}, sslRequest)
					expectByte(t, raw, 'S')
				}
				conn := shake(t, c.wire(raw), config)
				send(t, dribble{conn}, alice) // a TLS record for each byte
				readReady(t, conn)
				if got := b.received(t); !bytes.Equal(got, alice) {
					t.Errorf("the backend got %q", got)
				}
				conn.Close()
				line := g.expect(t, "client_closed")
				if len(c.tls) == 0 && line.get("tls_group") != "X25519MLKEM768" {
					t.Errorf("group %s, so the hello was small", line.get("tls_group"))
				}
			})
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run("many records in a segment, "+tls.VersionName(version), func(t *testing.T) {
			b := newBackend(t)
			g := newGate(t, b.SocketDir)
			raw := g.dial(t)
			var segment bytes.Buffer
			wire := &corked{Conn: raw}
			conn := shake(t, wire, g.clientTLS(withALPN("postgresql"), withVersion(version)))
			wire.queue = &segment
			long := startup(protocol3, "user", "alice", "database", "sales", "application_name", strings.Repeat("x", 200))
			send(t, dribble{conn}, long) // a TLS record for each byte
			send(t, raw, segment.Bytes())
			wire.queue = nil
			readReady(t, conn)
			if got := b.received(t); !bytes.Equal(got, long) {
				t.Errorf("the backend got %q", got)
			}
		})
	}
	t.Run("cancel request", func(t *testing.T) {
		b := newBackend(t)
		g := newGate(t, b.SocketDir)
		request := cancelRequest(7, []byte("abcd"))
		g.play(t, scene{"byte by byte", "forwarded", do(spell(request), eof)})
		if got := b.received(t); !bytes.Equal(got, request) {
			t.Errorf("the backend got %q", got)
		}
	})
}

// teleport#6284, electric#630, encore#637, CVE-2026-6479: a client
// with a Kerberos ticket asks for GSSAPI first. Each may be asked for once, and
// neither inside TLS, where only direct TLS gets another 'N', as from PostgreSQL
// (CVE-2026-14681).
func TestRequestsInEveryOrder(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	ssl, gss, once := say(sslRequest), say(gssencRequest), fatal("0A000", "once each")
	yes, no := hear("S"), hear("N")
	for _, s := range []scene{
		{"SSL", "client_closed", do(ssl, yes, upgrade(), say(alice), opened)},
		{"GSS SSL", "client_closed", do(gss, no, ssl, yes, upgrade(), say(alice), opened)},
		{"direct", "client_closed", do(directTLS(), say(alice), opened)},
		{"direct SSL", "client_closed", do(directTLS(), ssl, no, say(alice), opened)},
		{"direct GSS", "client_closed", do(directTLS(), gss, no, say(alice), opened)},
		{"direct SSL GSS", "client_closed", do(directTLS(), ssl, no, gss, no, say(alice), opened)},
		{"direct GSS SSL", "client_closed", do(directTLS(), gss, no, ssl, no, say(alice), opened)},
		{"direct GSS SSL at once", "client_closed", do(directTLS(), say(gssencRequest, sslRequest, alice), hear("NN"), opened)},
	} {
		g.play(t, s)
		if got := b.received(t); !bytes.Equal(got, alice) {
			t.Errorf("%s: the backend got %q", s.name, got)
		}
	}
	playRefused(
		t, nil,
		scene{"GSS GSS", "repeated_request", do(gss, no, gss, once)},
		scene{"GSS GSS at once", "repeated_request", do(say(gssencRequest, gssencRequest, gssencRequest), no, once)},
		scene{"SSL in clear after SSL", "not_tls", do(ssl, yes, ssl, eof)},
		scene{"GSS in clear after SSL", "not_tls", do(ssl, yes, gss, eof)},
		scene{"SSL inside TLS", "repeated_request", do(ssl, yes, upgrade(), ssl, once)},
		scene{"GSS inside TLS", "repeated_request", do(ssl, yes, upgrade(), gss, once)},
		scene{"GSS SSL, GSS inside TLS", "repeated_request", do(gss, no, ssl, yes, upgrade(), gss, once)},
		scene{"SSL inside TLS, with ALPN", "repeated_request", do(ssl, yes, upgrade(withALPN("postgresql")), ssl, once)},
		scene{"direct SSL SSL", "repeated_request", do(directTLS(), ssl, no, ssl, once)},
		scene{"direct GSS GSS", "repeated_request", do(directTLS(), gss, no, gss, once)},
		scene{"direct SSL GSS SSL", "repeated_request", do(directTLS(), ssl, no, gss, no, ssl, once)},
		scene{"direct GSS SSL GSS", "repeated_request", do(directTLS(), gss, no, ssl, no, gss, once)},
		scene{"TLS inside direct TLS", "invalid_packet", do(directTLS(), ssl, no, say([]byte{0x16, 3, 1, 0, 200}), eof)},
	)
}

// encore#544: after 'N' the client goes on in clear, and must not be
// led on into a TLS handshake, nor into a session. sslmode=allow and prefer need
// an ErrorResponse to their startup packet, or they do not try again with TLS.
func TestPlaintextStartup(t *testing.T) {
	needsTLS := fatal("28000", "connection requires TLS")
	hello := say([]byte{0x16, 3, 1, 0, 200, 1, 0, 0, 196})
	playRefused(
		t, nil,
		scene{"at once", "plaintext", do(say(alice), needsTLS)},
		scene{"byte by byte", "plaintext", do(spell(alice), needsTLS)},
		scene{"after N", "plaintext", do(say(gssencRequest), hear("N"), say(alice), needsTLS)},
		scene{"with the GSSENCRequest", "plaintext", do(say(gssencRequest, alice), hear("N"), needsTLS)},
		scene{"then a ClientHello", "plaintext", do(say(alice), hello, needsTLS)},
		scene{"after N, then a ClientHello", "plaintext", do(say(gssencRequest, alice), hear("N"), hello, needsTLS)},
		scene{"ClientHello after N", "invalid_packet", do(say(gssencRequest), hear("N"), hello, eof)},
		scene{"then an SSLRequest", "plaintext", do(say(alice, sslRequest), needsTLS)},
		scene{"protocol 3.2", "plaintext", do(say(startup(protocol3|2, "user", "alice")), needsTLS)},
		scene{"protocol 4.0", "plaintext", do(say(startup(4<<16, "user", "alice")), needsTLS)},
		scene{"no user", "plaintext", do(say(startup(protocol3)), needsTLS)},
		scene{"broken", "plaintext", do(say(packet(protocol3, []byte("user"))), needsTLS)},
		scene{"of 8 bytes", "plaintext", do(say(packet(protocol3, nil)), needsTLS)},
		// Protocol 2 knows no fields, so its clients get a string.
		scene{"protocol 2.0", "plaintext", do(say(packet(2<<16, make([]byte, 288))), hear("EFATAL:  connection requires TLS\n\x00"), eof)},
	)
}

// encore#544, caddy-l4#256: libpq in all its modes. sslmode=allow begins in clear and
// goes on with TLS only because it is told FATAL.
func TestPsqlInEverySSLMode(t *testing.T) {
	g := newGate(t, realPostgres(t).SocketDir)
	for mode, works := range map[string]bool{
		"disable": false, "allow": true, "prefer": true, "require": true, "verify-ca": true, "verify-full": true,
	} {
		out, err := psql(t, libpq(t, g, "PGSSLMODE="+mode), "select 'through the gate'")
		switch {
		case works && (err != nil || out != "through the gate"),
			!works && (err == nil || !strings.Contains(out, "FATAL:  connection requires TLS")):
			t.Errorf("sslmode=%s: %v: %s", mode, err, out)
		}
		if mode == "disable" || mode == "allow" {
			g.expect(t, "plaintext")
		}
		if works {
			g.expect(t, "client_closed")
		}
	}
}

// pgbouncer#104: whatever its mode and its TLS, psql
// shows why the certificate was refused, and its way round in clear, which prefer
// takes and allow begins with, ends at the gate.
func TestPsqlShowsTheRefusal(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.Verify = verifying(func(tls.ConnectionState, time.Time) error {
			return &proxy.Refusal{Outcome: outcome.CertRevoked, Public: "client certificate was revoked on 2026-01-02"}
		})
	})
	for _, mode := range []string{"allow", "prefer", "require", "verify-full"} {
		for _, version := range []string{"TLSv1.2", "TLSv1.3"} {
			out, err := psql(t, libpq(t, g, "PGSSLMODE="+mode, "PGSSLMAXPROTOCOLVERSION="+version), "select 1")
			if err == nil || !strings.Contains(out, "FATAL:  client certificate was revoked on 2026-01-02") {
				t.Errorf("sslmode=%s, %s: %v: %s", mode, version, err, out)
			}
		}
	}
	eventually(t, "eight certificates are refused", func() bool {
		return g.metric(t, "pgwicket_connections_refused_total", "outcome", "certificate_revoked") == 8
	})
	b.expectUntouched(t)
}

// pgbouncer#104: libpq goes on in clear when TLS fails (prefer), or comes with TLS
// when it was refused in clear (allow), and psql shows what it was told last. So it
// is told in clear that TLS is required, and why TLS has failed stands in the log
// and is counted.
func TestPsqlFallsBackWhenTLSFails(t *testing.T) {
	for mode, outcomes := range map[string][]string{"prefer": {"tls_version", "plaintext"}, "allow": {"tls_version", "plaintext"}, "require": {"tls_version"}} {
		b := newBackend(t)
		g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.TLS.MinVersion = tls.VersionTLS13 })
		out, err := psql(t, libpq(t, g, "PGSSLMODE="+mode, "PGSSLMAXPROTOCOLVERSION=TLSv1.2"), "select 1")
		if err == nil || mode != "require" && !strings.Contains(out, "FATAL:  connection requires TLS") {
			t.Errorf("sslmode=%s: %v: %s", mode, err, out)
		}
		lines := make(map[string]logLine) // the second connection may be logged first
		for range outcomes {
			line := g.outcome(t)
			lines[line.get("outcome")] = line
		}
		for _, outcome := range outcomes {
			g.check(t, lines[outcome], outcome)
		}
		if line := lines["tls_version"]; !strings.Contains(line.get("reason"), "303") {
			t.Errorf("sslmode=%s: the log does not say which version was offered: %v", mode, line)
		}
		if n := g.metric(t, "pgwicket_tls_handshake_failures_total", "reason", "tls_version"); n != 1 {
			t.Errorf("sslmode=%s: %v handshakes are counted as failed for their version, want 1", mode, n)
		}
		b.expectUntouched(t)
	}
}

// neon#12783, lib/pq#1354: direct TLS must bring ALPN, or another
// protocol's client can be tricked into talking to PostgreSQL. PostgreSQL
// finishes the handshake and closes without a word. caddy-l4#256,
// databasus#722: after an SSLRequest libpq 16 sends no ALPN and libpq 17 does.
// Wrong names get alert 120 either way.
func TestALPN(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	pg, h2 := withALPN("postgresql"), withALPN("h2", "http/1.1")
	both := withALPN("h2", "postgresql")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		name, v := tls.VersionName(version), withVersion(version)
		for _, s := range []scene{
			{"SSLRequest, none, " + name, "client_closed", do(ssl(v), say(alice), opened)},
			{"SSLRequest, right, " + name, "client_closed", do(ssl(v, pg), say(alice), opened)},
			{"SSLRequest, among others, " + name, "client_closed", do(ssl(v, both), say(alice), opened)},
			{"direct, right, " + name, "client_closed", do(upgrade(v, pg), say(alice), opened)},
			{"direct, among others, " + name, "client_closed", do(upgrade(v, both), say(alice), opened)},
		} {
			g.play(t, s)
			b.received(t)
		}
		alert120 := "no application protocol"
		playRefused(
			t, nil,
			scene{"SSLRequest, wrong, " + name, "tls_alpn", do(say(sslRequest), hear("S"), upgradeFails(alert120, v, h2))},
			scene{"direct, wrong, " + name, "tls_alpn", do(upgradeFails(alert120, v, h2))},
			scene{"direct, none, " + name, "tls_alpn", do(upgrade(v), eof)},
			scene{"direct, none, startup packet, " + name, "tls_alpn", do(upgrade(v), say(alice), eof)},
			scene{"direct, none, SSLRequest, " + name, "tls_alpn", do(upgrade(v), say(sslRequest), eof)},
		)
	}
}

// What fails in the handshake is told by TLS alone: to a client that waits for a
// record, an ErrorResponse in clear is garbage, or an attack.
func TestFailedHandshakeSaysNothingInClear(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.TLS = p.TLS.Clone()
		p.TLS.MinVersion = tls.VersionTLS13
	})
	for name, before := range map[string][]byte{"SSLRequest": sslRequest, "GSSENCRequest": slices.Concat(gssencRequest, sslRequest), "direct": nil} {
		t.Run(name, func(t *testing.T) {
			raw := g.dial(t)
			send(t, raw, before)
			answer := strings.Repeat("N", max(len(before)/8-1, 0)) + strings.Repeat("S", min(len(before), 1))
			hear(answer)(t, &client{Conn: raw})
			heard := new(bytes.Buffer)
			conn := tls.Client(&overheard{raw, heard}, g.clientTLS(withVersion(tls.VersionTLS12), withALPN("postgresql")))
			if err := conn.Handshake(); err == nil || !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("handshake: %v", err)
			}
			if rest, err := io.ReadAll(raw); err != nil || heard.Len()+len(rest) != 7 {
				t.Errorf("heard %q and %q, %v; want one alert record", heard, rest, err)
			}
			raw.Close()
			line := g.expect(t, "tls_version")
			if reason := line.get("reason"); !strings.Contains(reason, "303") {
				t.Errorf("reason %q does not say what the client offered", reason)
			}
		})
	}
	if n := g.metric(t, "pgwicket_tls_handshake_failures_total", "reason", "tls_version"); n != 3 {
		t.Errorf("%v failed handshakes are counted, want 3", n)
	}
	b.expectUntouched(t)
}

type overheard struct {
	net.Conn
	heard io.Writer
}

func (o *overheard) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	_, _ = o.heard.Write(p[:n])
	return n, err
}

// What breaks TLS between the handshake and the startup packet is TLS's to
// answer, too: an alert, and no FATAL.
func TestBrokenTLSBeforeStartup(t *testing.T) {
	inClear := func(b []byte) step {
		return func(t *testing.T, c *client) {
			t.Helper()
			send(t, c.raw, b)
		}
	}
	alert := func(text string) step {
		return func(t *testing.T, c *client) {
			t.Helper()
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%d bytes, %v; want the alert %q", n, err, text)
			}
		}
	}
	garbage := inClear(append([]byte{23, 3, 3, 0, 64}, make([]byte, 64)...))
	v12 := withVersion(tls.VersionTLS12)
	playRefused(
		t, nil,
		scene{"garbage", "tls_failed", do(ssl(), garbage, alert("bad record MAC"))},
		scene{"garbage, 1.2", "tls_failed", do(ssl(v12), garbage, alert("bad record MAC"))},
		scene{"garbage, direct", "tls_failed", do(directTLS(), garbage, alert("bad record MAC"))},
		scene{"garbage in the middle of the packet", "tls_failed", do(ssl(), say(alice[:9]), garbage, alert("bad record MAC"))},
		// CVE-2021-23214 the other way round: the packet in clear, after TLS.
		scene{"the packet in clear", "tls_failed", do(ssl(), inClear(alice), alert("protocol version"))},
		scene{"an oversized record", "tls_failed", do(ssl(), inClear([]byte{23, 3, 3, 0xff, 0xff}), alert("record overflow"))},
	)
}

// gate#936, pgdog, go-proxyproto#65: a client that says nothing, or
// not enough, or goes on saying it too slowly, ends at the deadline that was set
// at accept, wherever it has got to. traefik#10675: a session that
// is open does not.
func TestStartupTimeout(t *testing.T) {
	// Long enough to get there on a busy machine.
	const timeout = 2 * time.Second
	whole := t
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.StartupTimeout = timeout })
	old := g.secure(t)
	send(t, old, alice)
	readReady(t, old)

	long := say([]byte{0, 0, 0x20, 0, 0, 3, 0, 0}) // and 8 KB to come
	hello := say([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3})
	scenes := []scene{
		{"silent", "startup_timeout", nil},
		{"half an SSLRequest", "startup_timeout", do(say(sslRequest[:5]))},
		{"half a cancel request", "startup_timeout", do(say(cancelRequest(7, []byte("abcd"))[:12]))},
		{"silent after N", "startup_timeout", do(say(gssencRequest), hear("N"))},
		{"half a startup packet in clear", "startup_timeout", do(long)},
		{"drips in clear", "startup_timeout", do(long)},
		{"silent after S", "tls_timeout", do(say(sslRequest), hear("S"))},
		{"half a ClientHello", "tls_timeout", do(say(sslRequest), hear("S"), hello)},
		{"half a ClientHello, direct", "tls_timeout", do(hello)},
		{"one byte of direct TLS", "tls_timeout", do(say([]byte{0x16}))},
		{"drips a ClientHello", "tls_timeout", do(hello)},
		{"silent inside TLS", "startup_timeout", do(ssl())},
		{"silent inside TLS 1.2", "startup_timeout", do(ssl(withVersion(tls.VersionTLS12)))},
		{"silent inside direct TLS", "startup_timeout", do(directTLS())},
		{"silent inside direct TLS after N", "startup_timeout", do(directTLS(), say(sslRequest), hear("N"))},
		{"half a startup packet", "startup_timeout", do(ssl(), say(alice[:9]))},
		{"drips a startup packet", "startup_timeout", do(ssl(), long)},
	}
	// All of them wait at the same time.
	var clients []*client
	var dripping sync.WaitGroup
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			raw := g.dial(whole) // not of this subtest, which ends before the connection
			c := &client{Conn: raw, raw: raw, g: g}
			clients = append(clients, c)
			for _, step := range s.steps {
				step(t, c)
			}
			if strings.HasPrefix(s.name, "drips") {
				dripping.Go(c.drip)
			}
		})
	}
	dripping.Wait()
	for i, s := range scenes {
		t.Run(s.name+", ends", func(t *testing.T) {
			c := clients[i]
			switch {
			case strings.HasPrefix(s.name, "drips"):
			case strings.Contains(s.name, "TLS") && s.outcome == "startup_timeout", s.name == "half a startup packet":
				expectFatal(t, c, "57014", "canceling startup due to timeout")
			default:
				expectEOF(t, c)
			}
			c.Close()
			line := g.outcomeOf(t, c.raw.LocalAddr())
			g.check(t, line, s.outcome)
			if took, _ := line["duration_seconds"].(float64); took < timeout.Seconds() {
				t.Errorf("ended after %v, before its time", time.Duration(took))
			}
		})
	}
	// By now the old session is older than the timeout.
	send(t, old, []byte("X\x00\x00\x00\x04"))
	old.Close()
	g.check(t, g.outcomeOf(t, old.LocalAddr()), "client_closed")
	if n := b.Accepted.Load(); n != 1 {
		t.Errorf("%d connections to the backend, want the old session's", n)
	}
	if n := g.metric(t, "pgwicket_tls_handshake_failures_total", "reason", "tls_timeout"); n != 5 {
		t.Errorf("%v handshakes failed for their time, want 5", n)
	}
}

// gate#936, go-proxyproto#65 and pgdog's listener: many clients that stop wherever
// the gate has to wait for it keeps nobody out, and is gone at its deadline.
func TestSilentClients(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.StartupTimeout = 2 * time.Second })
	hello := clientHello(t, g)
	stops := [][]byte{nil, sslRequest[:5], sslRequest, slices.Concat(sslRequest, hello[:len(hello)/2]), hello[:1], alice[:9]}
	var silent []net.Conn
	for i := range 400 {
		raw := g.dial(t)
		send(t, raw, stops[i%len(stops)])
		silent = append(silent, raw)
	}
	for range 20 { // these have done their handshake
		silent = append(silent, g.secure(t))
	}
	// A client that connects now has more time than they.
	g.reload(func(p *proxy.Policy) { p.StartupTimeout = patience })
	for range 3 {
		g.session(t, "app")
	}
	eventually(t, "the silent clients are gone", func() bool { return g.Server.Sessions() == 3 })
	timeouts := g.metric(t, "pgwicket_connections_refused_total", "outcome", "startup_timeout") +
		g.metric(t, "pgwicket_connections_refused_total", "outcome", "tls_timeout")
	if timeouts != float64(len(silent)) {
		t.Errorf("%v of %d have ended for their time", timeouts, len(silent))
	}
	if n := b.Accepted.Load(); n != 3 {
		t.Errorf("%d connections to the backend for 3 sessions", n)
	}
}

// drip sends a byte every few milliseconds until the gate has closed.
func (c *client) drip() {
	for {
		if _, err := c.Write([]byte{0}); err != nil {
			return
		}
		_ = c.raw.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.raw.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// What is admitted reaches the backend byte for byte: a startup packet has no one
// length; versions and _pq_. are the backend's to negotiate (pgwire#455,
// pgagroal#971, psql-wire#147, pgcat#706), and so is the spelling of replication;
// application_name is not ours to cut, above all not a standby's (multigres#689).
func TestStartupPassesUntouched(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	n63 := strings.Repeat("n", 63)
	for name, message := range map[string][]byte{
		"user":            startup(protocol3, "user", "u"),
		"user last":       startup(protocol3, "database", "d", "options", "-c search_path=x", "user", "u"),
		"libpq 15":        startup(protocol3, "user", "alice", "database", "sales", "application_name", "psql", "client_encoding", "UTF8"),
		"3.1":             startup(protocol3|1, "user", "alice"),
		"3.2":             startup(protocol3|2, "user", "alice", "database", "sales"),
		"grease":          startup(protocol3|9999, "user", "alice", "_pq_.test_protocol_negotiation", ""),
		"3.65535":         startup(protocol3|65535, "user", "alice"),
		"names of 63":     startup(protocol3, "user", n63, "database", n63),
		"replication":     startup(protocol3, "user", "a", "replication", "tr"),
		"logical":         startup(protocol3, "user", "a", "replication", "database", "database", "d"),
		"application":     startup(protocol3, "user", "a", "application_name", strings.Repeat("x", 100)),
		"standby":         startup(protocol3, "user", "a", "replication", "true", "application_name", strings.Repeat("x", 64)),
		"subscriber":      startup(protocol3, "user", "a", "replication", "database", "database", "d", "application_name", strings.Repeat("é", 500)),
		"empty values":    startup(protocol3, "user", "a", "database", "", "options", ""),
		"not UTF-8":       startup(protocol3, "user", "\xff\xfe\x80"),
		"quotes":          startup(protocol3, "user", "a'b\"c", "database", `d\n`),
		"upper case":      startup(protocol3, "user", "a", "TimeZone", "UTC", "USER1", "b"),
		"10,004 bytes":    startup(protocol3, "user", "a", "options", strings.Repeat("x", 10_004-8-5-2-8-2)),
		"200 parameters":  startup(protocol3, append([]string{"user", "a"}, many(200)...)...),
		"GUC of a client": startup(protocol3, "user", "a", "shop.user", "postgres"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, how := range []func(*testing.T, *client){ssl(), directTLS(), ssl(withVersion(tls.VersionTLS12))} {
				raw := g.dial(t)
				c := &client{Conn: raw, raw: raw, g: g}
				how(t, c)
				send(t, c, message)
				readReady(t, c)
				if got := b.received(t); !bytes.Equal(got, message) {
					t.Errorf("the backend got %q, want %q", got, message)
				}
				c.Close()
				g.check(t, g.outcomeOf(t, raw.LocalAddr()), "client_closed")
			}
		})
	}
}

// envoy#27808, envoy#30194, envoy#31762: with a negotiation on either leg, the
// answer of one was sent on the other, or taken for the other's. The backend leg
// has none: what the backend says first is the client's, inside TLS, even if it
// looks like an answer to an SSLRequest; and the client hears one 'S', which is
// ours.
func TestTheBackendsFirstWordsAreTheClients(t *testing.T) {
	for _, words := range []string{"S", "N", "G", "SN", "ESSL is not supported\n\x00"} {
		got := make(chan []byte, 1)
		b := rawBackend(t, func(c net.Conn) {
			packet := make([]byte, len(alice))
			_, _ = io.ReadFull(c, packet)
			_, _ = io.WriteString(c, words)
			_ = c.(*net.UnixConn).CloseWrite()
			rest, _ := io.ReadAll(c)
			got <- append(packet, rest...)
		})
		g := newGate(t, b.SocketDir)
		for _, how := range []step{ssl(), directTLS()} {
			g.play(t, scene{words, "backend_closed", do(how, say(alice), hear(words), eof)})
			if g := <-got; !bytes.Equal(g, alice) {
				t.Errorf("the backend got %q", g)
			}
		}
	}
}

func many(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("x.n%d", i), "v")
	}
	return out
}

// pgwire#455, psql-wire#147, with a real backend: NegotiateProtocolVersion is its
// answer, and it comes through.
func TestProtocolNegotiationIsTheBackends(t *testing.T) {
	pg := realPostgres(t)
	g := newGate(t, pg.SocketDir)
	conn := g.secure(t)
	send(t, conn, startup(protocol3|9999, "user", "app", "database", "postgres", "_pq_.test_protocol_negotiation", ""))
	kind, body := readMessage(t, conn)
	if kind != 'v' || !bytes.Contains(body, []byte("_pq_.test_protocol_negotiation\x00")) {
		t.Fatalf("got %q %q, want a NegotiateProtocolVersion", kind, body)
	}
	readReady(t, conn)
	conn.Close()
	g.expect(t, "client_closed")
}

// pgwire#455, pgagroal#971, psql-wire#147, pgcat#706: a client that speaks a later minor
// version, or greases it as libpq 19 does, and is refused, is told this in the
// same words as everybody else, and is neither answered nor refused for the
// version.
func TestRefusalOfALaterVersion(t *testing.T) {
	revoked := fatal("28000", "client certificate was revoked")
	playRefused(
		t, func(p *proxy.Policy) {
			p.Verify = func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) {
				return nil, &proxy.Refusal{Outcome: outcome.CertRevoked}
			}
		},
		scene{"3.2", "certificate_revoked", do(ssl(), say(startup(protocol3|2, "user", "alice")), revoked)},
		scene{"3.0 with _pq_", "certificate_revoked", do(ssl(), say(startup(protocol3, "user", "alice", "_pq_.x", "1")), revoked)},
		scene{"grease", "certificate_revoked", do(ssl(), say(startup(protocol3|9999, "user", "alice", "_pq_.test_protocol_negotiation", "")), revoked)},
		scene{"grease, direct", "certificate_revoked", do(directTLS(), say(startup(protocol3|9999, "user", "alice", "_pq_.test_protocol_negotiation", "")), revoked)},
	)
}

// With a real backend: requests inside direct TLS are the gate's to
// answer, so that the backend sees a startup message first.
func TestDirectTLSWithRealBackend(t *testing.T) {
	pg := realPostgres(t)
	g := newGate(t, pg.SocketDir)
	for _, s := range []scene{
		{"direct", "client_closed", do(directTLS(), say(startup(protocol3, "user", "app", "database", "postgres")), opened)},
		{"with requests", "client_closed", do(directTLS(), say(sslRequest), hear("N"), say(gssencRequest), hear("N"), say(startup(protocol3, "user", "app", "database", "postgres")), opened)},
	} {
		g.play(t, s)
	}
}

// materialize#38442, and tried with PostgreSQL 15: whatever
// PostgreSQL would read in its own way is refused, inside TLS and in words.
func TestStartupRefused(t *testing.T) {
	n64 := strings.Repeat("n", 64)
	broken := func(body string) []byte { return packet(protocol3, []byte(body)) }
	scenes := []scene{}
	for _, c := range []struct {
		name, outcome, sqlstate, text string
		message                       []byte
	}{
		{"user twice", "protocol_violation", "08P01", `"user" more than once`, startup(protocol3, "user", "alice", "user", "postgres")},
		{"USER", "protocol_violation", "08P01", `"user" more than once`, startup(protocol3, "user", "alice", "USER", "postgres")},
		{"database twice", "protocol_violation", "08P01", `"database" more than once`, startup(protocol3, "user", "a", "database", "b", "database", "c")},
		{"setting twice", "protocol_violation", "08P01", `"timezone" more than once`, startup(protocol3, "user", "a", "TimeZone", "UTC", "timezone", "CET")},
		{"user of 64 bytes", "protocol_violation", "08P01", "64 bytes long", startup(protocol3, "user", n64)},
		{"database of 64 bytes", "protocol_violation", "08P01", "64 bytes long", startup(protocol3, "user", "a", "database", n64)},
		{"no terminator", "protocol_violation", "08P01", "expected terminator", broken("user\x00alice\x00")},
		{"no value", "protocol_violation", "08P01", "without a value", broken("user\x00alice\x00options\x00")},
		{"behind the end", "protocol_violation", "08P01", "expected terminator", broken("user\x00alice\x00\x00user\x00postgres\x00\x00")},
		{"empty", "protocol_violation", "08P01", "expected terminator", broken("")},
		{"no user", "no_user", "28000", "no PostgreSQL user name", startup(protocol3, "database", "sales")},
		{"empty user", "no_user", "28000", "no PostgreSQL user name", startup(protocol3, "user", "")},
		{"nothing", "no_user", "28000", "no PostgreSQL user name", startup(protocol3)},
		{"4.0", "unsupported_protocol", "0A000", "unsupported frontend protocol 4.0", startup(4<<16, "user", "alice")},
		{"0.0", "unsupported_protocol", "0A000", "unsupported frontend protocol 0.0", startup(0, "user", "alice")},
		{"another request", "unsupported_protocol", "0A000", "unsupported frontend protocol 1234.5681", packet(80877105, nil)},
		{"control characters", "protocol_violation", "08P01", `"x\x1b[2j\ny" more than once`, startup(protocol3, "user", "a", "x\x1b[2J\ny", "1", "x\x1b[2J\ny", "2")},
	} {
		scenes = append(
			scenes,
			scene{c.name, c.outcome, do(ssl(), say(c.message), fatal(c.sqlstate, c.text))},
			scene{c.name + ", direct", c.outcome, do(directTLS(), say(c.message), fatal(c.sqlstate, c.text))},
		)
	}
	// Protocol 2 has 288 bytes after its length and version, and no fields.
	old := "EFATAL:  unsupported frontend protocol %d.0: server supports 3.0 and later\n\x00"
	scenes = append(
		scenes,
		scene{"2.0", "unsupported_protocol", do(ssl(), say(packet(2<<16, make([]byte, 288))), hear(fmt.Sprintf(old, 2)), eof)},
		scene{"1.0", "unsupported_protocol", do(ssl(), say(packet(1<<16, make([]byte, 288))), hear(fmt.Sprintf(old, 1)), eof)},
	)
	playRefused(t, nil, scenes...)
}

// OpenSSL 3 calls an end without close_notify an error, and libpq shows that in
// place of the refusal. crypto/tls lets it pass, so the records are looked at; in
// TLS 1.2 the type of one is in clear.
func TestRefusalEndsWithCloseNotify(t *testing.T) {
	g := newGate(t, newBackend(t).SocketDir)
	for name, c := range map[string]struct {
		packet []byte
		answer bool
	}{
		"refused in words":  {startup(protocol3), true},
		"refused without":   {packet(80877103, []byte{0}), false},
		"a cancel request":  {cancelRequest(7, []byte("abcd")), false},
		"a half-close, too": {nil, false},
	} {
		raw := g.dial(t)
		send(t, raw, sslRequest)
		expectByte(t, raw, 'S')
		heard := new(bytes.Buffer)
		conn := shake(t, &overheard{raw, heard}, g.clientTLS(withVersion(tls.VersionTLS12)))
		heard.Reset()
		if c.packet == nil {
			_ = conn.CloseWrite()
		} else {
			send(t, conn, c.packet)
		}
		if said, err := io.ReadAll(conn); err != nil || len(said) > 0 != c.answer {
			t.Errorf("%s: got %q, %v", name, said, err)
		}
		var types []byte
		for rest := heard.Bytes(); len(rest) >= 5; {
			types = append(types, rest[0])
			rest = rest[5+int(binary.BigEndian.Uint16(rest[3:])):]
		}
		want := []byte{21} // alert
		if c.answer {
			want = []byte{23, 21} // data, alert
		}
		if !bytes.Equal(types, want) {
			t.Errorf("%s: records of the types %v, want %v", name, types, want)
		}
		raw.Close()
		g.outcome(t)
	}
}

// supabase#20478: a dual-stack socket reports an IPv4 client as ::ffff:127.0.0.1.
func TestIPv4OnADualStackListener(t *testing.T) {
	if ln, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here: ", err)
	} else {
		ln.Close()
	}
	for _, c := range []struct {
		name        string
		allow, deny []string
		from        string
		outcome     string
	}{
		{"IPv4 allowed", []string{"127.0.0.0/8"}, nil, "127.0.0.1", "client_closed"},
		{"mapped network", []string{"::ffff:127.0.0.0/104"}, nil, "127.0.0.1", "client_closed"},
		{"all of IPv6 is not IPv4", []string{"::/0"}, nil, "127.0.0.1", "source_not_allowed"},
		{"all of IPv4 is not IPv6", []string{"0.0.0.0/0"}, nil, "::1", "source_not_allowed"},
		{"IPv4 denied", []string{"0.0.0.0/0", "::/0"}, []string{"127.0.0.1"}, "127.0.0.1", "source_denied"},
		{"IPv6 allowed", []string{"::1"}, nil, "::1", "client_closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t)
			g := newGateOn(t, "[::]:0", b.SocketDir, func(p *proxy.Policy) { p.Networks = networks(c.allow, c.deny) })
			_, port, _ := net.SplitHostPort(g.Addr)
			g.Addr = net.JoinHostPort(c.from, port)
			if c.outcome == "client_closed" {
				conn := g.secure(t)
				send(t, conn, alice)
				readReady(t, conn)
				conn.Close()
			} else {
				expectEOF(t, g.dial(t))
			}
			line := g.expect(t, c.outcome)
			if !strings.HasPrefix(line.get("client"), net.JoinHostPort(c.from, "")) {
				t.Errorf("the log calls the client %s, want %s", line.get("client"), c.from)
			}
		})
	}
}

// cockroach#98279, warpgate#2379, traefik#9663, traefik#11270, pgbouncer#1420,
// neon#12438: health checks and port scans come every second. They are counted for
// themselves and kept out of the log.
func TestProbes(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	for _, s := range []scene{
		{"connect and close", "probe", do(hangUp)},
		{"connect and half-close", "probe", do(func(_ *testing.T, c *client) { _ = c.raw.CloseWrite() }, eof)},
		// As HAProxy's and nmap's do.
		{"connect and reset", "probe", do(dies)},
		{"leaves after S", "probe", do(say(sslRequest), hear("S"), hangUp)},
		{"resets after S", "probe", do(say(sslRequest), hear("S"), dies)},
		{"TLS without a startup packet", "probe", do(ssl(), hangUp)},
		{"direct TLS without a startup packet", "probe", do(directTLS(), hangUp)},
		{"TLS, closed without close_notify", "probe", do(ssl(), func(_ *testing.T, c *client) { _ = c.raw.Close() })},
	} {
		g.play(t, s)
	}
	for _, line := range g.Log.all() {
		if !strings.Contains(line, `"level":"DEBUG"`) {
			t.Errorf("a probe is logged as %s", line)
		}
	}
	if n := g.metric(t, "pgwicket_tls_handshake_failures_total"); n != 0 {
		t.Errorf("%v failed handshakes are counted", n)
	}
	playRefused(
		t, nil,
		scene{"HTTP", "invalid_packet", do(say([]byte("GET / HTTP/1.1\r\nHost: db\r\n\r\n")), eof)},
		scene{"SSH", "invalid_packet", do(say([]byte("SSH-2.0-OpenSSH_9.2\r\n")), eof)},
		scene{"PROXY header", "proxy_header_refused", do(say([]byte("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"), sslRequest), eof)},
		scene{"HTTP inside TLS", "invalid_packet", do(ssl(), say([]byte("GET / HTTP/1.1\r\nHost: db\r\n\r\n")), eof)},
		scene{"HTTPS", "tls_alpn", do(upgradeFails("no application protocol", withALPN("h2", "http/1.1")))},
		scene{"dies in a packet", "client_gone", do(say(alice[:9]), dies)},
		scene{"leaves in a packet", "client_gone", do(say(alice[:9]), hangUp)},
		scene{"leaves in a packet inside TLS", "client_gone", do(ssl(), say(alice[:9]), hangUp)},
		scene{"leaves after N", "probe", do(say(gssencRequest), hear("N"), hangUp)},
	)
	b.expectUntouched(t)
}

// Which address is turned away, and how, is the operator's choice; that it is
// turned away before a byte is read or sent is not.
func TestForbiddenSource(t *testing.T) {
	const text = "no pgwicket allowlist entry for this address"
	for outcome, list := range map[string][2][]string{
		"source_not_allowed": {{"192.0.2.0/24"}, nil},
		"source_denied":      {{"127.0.0.0/8"}, {"127.0.0.0/8"}},
	} {
		for how, scenes := range map[policy.SourceRefusal][]scene{
			policy.Close: {{"close", outcome, do(eof)}},
			policy.Explain: {
				{"explain", outcome, do(ssl(), say(alice), fatal("28000", text))},
				{"explain, direct", outcome, do(directTLS(), say(alice), fatal("28000", text))},
				{"explain, in clear", "plaintext", do(say(alice), fatal("28000", "requires TLS"))},
				{"explain, broken packet", "protocol_violation", do(ssl(), say(startup(protocol3, "user", "a", "user", "b")), fatal("08P01", "more than once"))},
				// Nobody hears the answer to a cancel request.
				{"explain, cancel", outcome, do(say(cancelRequest(7, []byte("abcd"))), eof)},
				{"explain, cancel inside TLS", outcome, do(ssl(), say(cancelRequest(7, []byte("abcd"))), eof)},
			},
		} {
			playRefused(t, func(p *proxy.Policy) { p.Networks, p.SourceRefusal = networks(list[0], list[1]), how }, scenes...)
		}
	}
	// A reset may come before the connect is through.
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.Networks, p.SourceRefusal = networks(nil, nil), policy.Reset })
	conn, err := net.Dial("tcp", g.Addr)
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	g.expect(t, "source_not_allowed")
	b.expectUntouched(t)
	// No network at all admits nobody.
	playRefused(t, func(p *proxy.Policy) { p.Networks = networks(nil, nil) }, scene{"no networks", "source_not_allowed", do(eof)})
}

// cockroach#66412: a denial without an end was taken for one that has ended. Ours
// have none, and hold whatever the clock says.
func TestDenialHasNoEnd(t *testing.T) {
	p := &proxy.Policy{
		Networks: networks([]string{"192.0.2.0/24"}, []string{"192.0.2.7"}),
		Verify:   func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) { return nil, nil },
		Rules:    rules(t, acl.RuleOptions{Action: "reject", Users: []string{"mallory"}}, acl.RuleOptions{Action: "allow"}),
	}
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Now(), time.Now().AddDate(200, 0, 0)} {
		for _, c := range []struct {
			source, user string
			outcome      proxy.Outcome
		}{
			{"192.0.2.7", "alice", outcome.SourceDenied},
			{"192.0.2.8", "mallory", outcome.RuleRejected},
			{"192.0.2.8", "alice", 0}, // nothing against her
		} {
			_, err := p.Judge(&acl.Request{Source: netip.MustParseAddr(c.source), User: c.user, Database: "shop"}, tls.ConnectionState{}, nil, at)
			var r *proxy.Refusal
			if errors.As(err, &r) != (c.outcome != 0) || r != nil && r.Outcome != c.outcome {
				t.Errorf("at %v %s from %s is judged %v", at, c.user, c.source, err)
			}
		}
	}
}

// cockroach#123602: the rules of one listener were asked about the clients of
// another. Every listener is tried with the rule of each.
func TestRulesAreTheirListeners(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	listeners := []string{g.Addr}
	for _, address := range []string{"127.0.0.1:0", "127.0.0.2:0"} {
		ln, err := socket.Listen(context.Background(), address, 0)
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, ln.Addr().String())
		go func() { _ = g.Server.Serve(ln) }() // until gate.stop
	}
	for _, own := range listeners {
		for action, other := range map[string]string{"allow": "reject", "reject": "allow"} {
			list, problems := acl.NewRules([]acl.RuleOptions{{Action: action, Listeners: []string{own}}, {Action: other}}, listeners, nil)
			if list == nil {
				t.Fatal(problems)
			}
			g.reload(func(p *proxy.Policy) { p.Rules = list })
			for _, g.Addr = range listeners {
				s := scene{fmt.Sprintf("%s at %s, came to %s", action, own, g.Addr), "rule_rejected", do(ssl(), say(alice), fatal("28000", "pgwicket rejects"))}
				if (g.Addr == own) == (action == "allow") {
					s.outcome, s.steps = "client_closed", do(ssl(), say(alice), opened)
				}
				g.play(t, s)
			}
		}
	}
}

// cockroach#93425, cockroach#93631, pgx#2340, and of keys teleport#68711, pgx#2489:
// in clear, as psql up to libpq 18 always sends it, or inside TLS; with a key of any
// legal length. The backend gets it verbatim, the client gets no byte, and an
// orderly end, because a reset is a failure to libpq 17.
func TestCancelRequest(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		// A client certificate is asked for, but cannot be: the key is the
		// authorisation.
		p.Verify = func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) {
			return nil, &proxy.Refusal{Outcome: outcome.CertMissing}
		}
	})
	for _, length := range []int{4, 5, 32, 255, 256} {
		key := make([]byte, length)
		for i := range key {
			key[i] = byte(0xff - i)
		}
		request := cancelRequest(0xfffffffe, key)
		for _, s := range []scene{
			{"in clear", "forwarded", do(say(request), eof)},
			{"after N", "forwarded", do(say(gssencRequest), hear("N"), say(request), eof)},
			{"with the GSSENCRequest", "forwarded", do(say(gssencRequest, request), hear("N"), eof)},
			{"inside TLS", "forwarded", do(ssl(), say(request), eof)},
			{"inside TLS 1.2", "forwarded", do(ssl(withVersion(tls.VersionTLS12)), say(request), eof)},
			{"inside direct TLS", "forwarded", do(directTLS(), say(request), eof)},
			{"inside direct TLS after N", "forwarded", do(directTLS(), say(sslRequest), hear("N"), say(request), eof)},
			{"with something behind", "forwarded", do(say(request, alice), eof)},
			{"half-closed", "forwarded", do(say(request), func(_ *testing.T, c *client) { _ = c.raw.CloseWrite() }, eof)},
		} {
			s.name = fmt.Sprintf("%d bytes, %s", length, s.name)
			g.play(t, s)
			if got := b.received(t); !bytes.Equal(got, request) {
				t.Errorf("%s: the backend got %q", s.name, got)
			}
		}
	}
	if n := g.metric(t, "pgwicket_connections_refused_total"); n != 0 {
		t.Errorf("%v cancel requests are counted as refused connections", n)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.rest) > 0 {
		t.Errorf("behind the requests the backend got %q", b.rest)
	}
}

// slowCancel is a backend that takes its time over a cancel request.
type slowCancel struct {
	*pgtest.Fake
	got     chan []byte
	release chan struct{}
}

func newSlowCancel(t *testing.T, last func(net.Conn)) *slowCancel {
	t.Helper()
	b := &slowCancel{got: make(chan []byte, 100), release: make(chan struct{})}
	fake, err := pgtest.StartFake(func(c net.Conn) {
		request := make([]byte, 16)
		if _, err := io.ReadFull(c, request); err != nil {
			return
		}
		b.got <- request
		if request[4] == 0 { // a session: 3.0, and all of it in these 16 bytes
			_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"))
			_, _ = io.Copy(io.Discard, c)
			return
		}
		<-b.release
		last(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Fake = fake
	t.Cleanup(fake.Stop)
	return b
}

// pgbouncer#833, pgbouncer#786, pgx#2340: the end of the connection tells libpq that the
// backend is done, so it must not come before the backend's. How the backend ends does not
// matter, and what it says stays here.
func TestCancelEndsWhenTheBackendHasEnded(t *testing.T) {
	for name, last := range map[string]func(net.Conn){
		"closes":     func(net.Conn) {},
		"answers":    func(c net.Conn) { _, _ = c.Write([]byte("E\x00\x00\x00\x05\x00")) },
		"half-ends":  func(c net.Conn) { _ = c.(*net.UnixConn).CloseWrite(); _, _ = io.Copy(io.Discard, c) },
		"says a lot": func(c net.Conn) { _, _ = c.Write(make([]byte, 1<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newSlowCancel(t, last)
			g := newGate(t, b.SocketDir)
			conn := g.dial(t)
			send(t, conn, cancelRequest(7, []byte("abcd")))
			<-b.got
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes, %v before the backend had ended", n, err)
			}
			close(b.release)
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			expectEOF(t, conn)
			conn.Close()
			g.expect(t, "forwarded")
		})
	}
}

// pgbouncer#833, pgbouncer#786: psql waits for the end of its cancel request before
// it shows anything else. A backend that never ends one must not keep psql for
// ever, nor a place among the requests.
func TestCancelIsNotWaitedForForEver(t *testing.T) {
	t.Parallel() // it takes as long as a request may
	b := newSlowCancel(t, func(net.Conn) {})
	release := sync.OnceFunc(func() { close(b.release) })
	defer release()
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.MaxCancelRequests = 1 })
	stuck := g.dial(t)
	send(t, stuck, cancelRequest(7, []byte("abcd")))
	<-b.got
	expectEOF(t, stuck)
	stuck.Close()
	g.expect(t, "forwarded")
	next := g.dial(t)
	send(t, next, cancelRequest(8, []byte("abcd")))
	eventually(t, "the next is under way", func() bool { return len(b.got) == 1 })
	release()
	expectEOF(t, next)
	next.Close()
	g.expect(t, "forwarded")
}

// pgbouncer#392, pgbouncer#140, pgbouncer#833: cancel requests have a budget of
// their own. Beyond it they end at once, cost the backend nothing, and sessions
// never notice.
func TestCancelFlood(t *testing.T) {
	const limit = 4 // for keys that this gate does not know, from one source
	b := newSlowCancel(t, func(net.Conn) {})
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.MaxCancelRequests = 4 * limit })
	request := cancelRequest(7, []byte("abcd"))
	var held []net.Conn
	for range limit {
		conn := g.dial(t)
		send(t, conn, request)
		held = append(held, conn)
		<-b.got
	}
	for range 50 {
		conn := g.dial(t)
		send(t, conn, request)
		expectEOF(t, conn)
		conn.Close()
		g.expect(t, "over_limit")
		if t.Failed() {
			close(b.release)
			return
		}
	}
	if n := b.Accepted.Load(); n != limit {
		t.Errorf("%d cancel requests reached the backend, want %d", n, limit)
	}
	session := g.secure(t)
	send(t, session, packet(protocol3, []byte("user\x00a\x00\x00")))
	readReady(t, session)

	close(b.release)
	for _, conn := range held {
		expectEOF(t, conn)
		conn.Close()
		g.expect(t, "forwarded")
	}
	// The budget is free again.
	g.play(t, scene{"afterwards", "forwarded", do(say(request), eof)})
}

// pgx#2340: what a cancel request must still bring. pgbouncer#275:
// a certificate that is shown is judged, even where none is needed.
func TestCancelRefused(t *testing.T) {
	request := cancelRequest(7, []byte("abcd"))
	revoked := func(state tls.ConnectionState, _ time.Time) error {
		if len(state.PeerCertificates) > 0 {
			return &proxy.Refusal{Outcome: outcome.CertRevoked, Detail: "serial 7"}
		}
		return nil
	}
	bad := withCert(testCA().Client("mallory"))
	playRefused(
		t, func(p *proxy.Policy) { p.Verify = verifying(revoked) },
		scene{"bad certificate", "certificate_revoked", do(ssl(bad), say(request), eof)},
		scene{"bad certificate, 1.2", "certificate_revoked", do(ssl(bad, withVersion(tls.VersionTLS12)), say(request), eof)},
		scene{"bad certificate, direct", "certificate_revoked", do(directTLS(bad), say(request), eof)},
	)
	none := newGate(t, t.TempDir())
	none.play(t, scene{"no backend", "failed", do(say(request), eof)})
	none.play(t, scene{"no backend, inside TLS", "failed", do(ssl(), say(request), eof)})
}

// cockroach#123602: the network that a cancel request must come from is the newest,
// as for everybody else.
func TestCancelMeetsTheNewestNetworks(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	conn := g.secure(t)
	g.reload(func(p *proxy.Policy) { p.Networks = networks([]string{"192.0.2.0/24"}, nil) })
	send(t, conn, cancelRequest(7, []byte("abcd")))
	expectEOF(t, conn)
	conn.Close()
	g.expect(t, "source_not_allowed")
	b.expectUntouched(t)
}

// A real query of a real backend, cancelled by what the backend itself has given
// the client.
func TestCancelStopsARealQuery(t *testing.T) {
	pg := realPostgres(t)
	g := newGate(t, pg.SocketDir)
	conn := g.secure(t)
	send(t, conn, startup(protocol3, "user", "app", "database", "postgres", "application_name", t.Name()))
	var key []byte
	for kind := byte(0); kind != 'Z'; {
		var body []byte
		if kind, body = readMessage(t, conn); kind == 'K' {
			key = body
		}
	}
	send(t, conn, append([]byte("Q\x00\x00\x00\x19"), "select pg_sleep(600)\x00"...))
	eventually(t, "the query runs", func() bool {
		n, err := pg.SQL("select count(*) from pg_stat_activity where state = 'active' and application_name = '" + t.Name() + "'")
		return err == nil && n == "1"
	})
	g.play(t, scene{"Ctrl-C", "forwarded", do(say(packet(80877102, key)), eof)})
	for {
		kind, body := readMessage(t, conn)
		if kind == 'E' {
			if !bytes.Contains(body, []byte("C57014\x00")) {
				t.Errorf("the query ended with %q", body)
			}
			return
		}
	}
}

// A refused certificate is told in words, inside TLS,
// and the words arrive although the client is still sending: an early close
// would reset the connection and eat them. The verdicts are those of tlsconfig
// with real files.
func TestRefusedCertificates(t *testing.T) {
	ca, other := tlstest.NewCA("client CA"), tlstest.NewCA("somebody's CA")
	now := time.Now()
	good, revoked := ca.Client("alice"), ca.Client("bob")
	crl := ca.CRL(func(l *tlstest.CRL) { l.Revoke(revoked.Leaf()) })
	stale := ca.CRL(func(l *tlstest.CRL) { l.NextUpdate = now.Add(-time.Minute) })
	old := ca.Client("carol", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	early := ca.Client("dave", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })
	machine := ca.Client("erin", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	strange := ca.Client("frank", func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, tlstest.Extension([]int{1, 2, 3, 4}, true, big.NewInt(1)))
	})
	for _, c := range []struct {
		name, outcome, text string
		crl                 []byte
		pair                *tlstest.Pair
	}{
		{"good", "", "", crl, good},
		{"missing", "certificate_missing", "requires a valid client certificate", crl, nil},
		{"expired", "certificate_expired", "expired on", crl, old},
		{"not yet valid", "certificate_not_yet_valid", "not valid before", crl, early},
		{"revoked", "certificate_revoked", "revoked", crl, revoked},
		{"another CA's", "certificate_unknown_ca", "unknown authority", crl, other.Client("alice")},
		{"a server's", "certificate_wrong_purpose", "not meant for", crl, machine},
		{"a critical extension", "certificate_invalid", "not valid", crl, strange},
		{"stale list", "crl_stale", "could not be checked", stale, good},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(c.name+", "+tls.VersionName(version), func(t *testing.T) {
				b := newBackend(t)
				g := newConfiguredGate(t, b.SocketDir, ca, c.crl)
				edit := []func(*tls.Config){withVersion(version)}
				if c.pair != nil {
					edit = append(edit, withCert(c.pair))
				}
				conn := g.secure(t, edit...)
				send(t, conn, alice)
				if c.outcome == "" {
					readReady(t, conn)
					conn.Close()
					line := g.expect(t, "client_closed")
					if line.get("cert_subject") != "CN=alice" || line.get("user") != "alice" || line.get("database") != "sales" {
						t.Errorf("the log has %v", line)
					}
					return
				}
				var talking sync.WaitGroup
				talking.Go(func() {
					for range 48 {
						if _, err := conn.Write(make([]byte, 1<<10)); err != nil {
							t.Error("cut off while talking: ", err)
							return
						}
					}
				})
				talking.Wait()
				expectFatal(t, conn, "28000", c.text)
				conn.Close()
				line := g.expect(t, c.outcome)
				if c.pair != nil && line.get("cert_serial") == "" {
					t.Errorf("the log does not say whose certificate: %v", line)
				}
				if line.get("reason") == "" {
					t.Errorf("the log says no reason: %v", line)
				}
				if n := g.metric(t, "pgwicket_tls_handshake_failures_total", "reason", c.outcome); n != 1 {
					t.Errorf("counted %v times among the failed handshakes", n)
				}
				b.expectUntouched(t)
			})
		}
	}
}

// newConfiguredGate is a gate with the policy of a configuration file, as the
// command has it: certificates, CA and revocation list are files.
func newConfiguredGate(t *testing.T, socketDir string, clients *tlstest.CA, crl []byte) *gate {
	t.Helper()
	dir := t.TempDir()
	if err := testCA().Server("localhost").WriteFiles(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"ca.crt": clients.CertPEM(),
		"ca.crl": crl,
		"pgwicket.yaml": []byte(`
listen: [{address: "127.0.0.1:1"}]
tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_file: ca.crl}
acl: {allow: [127.0.0.0/8]}
backend: {host: ` + socketDir + `}
`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, problems := config.Load(filepath.Join(dir, "pgwicket.yaml"), nil, nil, time.Now())
	if c == nil {
		t.Fatal(problems)
	}
	return newGate(t, socketDir, func(p *proxy.Policy) { *p = *c.Policy })
}

// 57P03 is what moves libpq to its next host, so it is for what another host may
// do better, and nothing else.
func TestBackendDown(t *testing.T) {
	noSocket := t.TempDir()
	b := newBackend(t)
	nobodyListens := b.SocketDir
	ln, err := net.Listen("unix", filepath.Join(noSocket, "gone"))
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	for name, edit := range map[string]func(*proxy.Policy){
		"no socket":      func(*proxy.Policy) {},
		"no directory":   func(p *proxy.Policy) { p.Backend = socketBackend(filepath.Join(noSocket, "no", "such", "dir")) },
		"nobody listens": func(p *proxy.Policy) { p.Backend = socketBackend(filepath.Join(noSocket, "gone")) },
		"too long":       func(p *proxy.Policy) { p.Backend = socketBackend("/" + strings.Repeat("x", 200)) },
	} {
		g := newGate(t, noSocket, edit)
		g.play(t, scene{name, "backend_unavailable", do(ssl(), say(alice), fatal("57P03", "the database cannot be reached"))})
		// And the gate is as ready as before when the backend is back.
		g.reload(func(p *proxy.Policy) { p.Backend = socketBackend(filepath.Join(nobodyListens, ".s.PGSQL.5432")) })
		g.play(t, scene{name + ", then up", "client_closed", do(ssl(), say(alice), opened)})
	}
}

// A backend that does not accept must not keep the client for longer than the
// time there is to connect, nor than the client's own start-up may take.
func TestBackendQueueFull(t *testing.T) {
	for _, c := range []struct {
		name             string
		connect, startup time.Duration
	}{
		{"connect timeout", 100 * time.Millisecond, patience},
		{"startup timeout", patience / 2, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			fillQueue(t, filepath.Join(dir, ".s.PGSQL.5432"))
			g := newGate(t, dir, func(p *proxy.Policy) {
				p.Backend.ConnectTimeout, p.StartupTimeout = c.connect, c.startup
			})
			conn := g.secure(t)
			began := time.Now()
			send(t, conn, alice)
			expectFatal(t, conn, "57P03", "the database cannot be reached")
			if took := time.Since(began); took > patience/4 {
				t.Errorf("the client was kept for %v", took)
			}
			conn.Close()
			g.expect(t, "backend_unavailable")
		})
	}
}

// A shutdown lets nobody in any more: who is on the way in is told to go to the
// next host, and who has not asked is not waited for.
func TestShuttingDown(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	late := g.secure(t)
	shutdown := make(chan error, 1)
	go func() { shutdown <- g.Server.Shutdown(context.Background()) }()
	eventually(t, "the gate stops listening", func() bool {
		conn, err := net.Dial("tcp", g.Addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	send(t, late, alice)
	expectFatal(t, late, "57P03", "shutting down")
	late.Close()
	if err := <-shutdown; err != nil {
		t.Errorf("Shutdown returned %v though nobody had to be ended", err)
	}
	g.check(t, g.outcomeOf(t, late.LocalAddr()), "shutting_down")
	b.expectUntouched(t)
}

// With no time left, Shutdown ends those too who are on the way in.
func TestShutdownEndsStartups(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	silent, asked, secure := g.dial(t), g.dial(t), g.secure(t)
	send(t, asked, sslRequest)
	expectByte(t, asked, 'S')
	eventually(t, "all are there", func() bool { return g.Server.Sessions() == 3 })
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Server.Shutdown(now); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
	if n := g.Server.Sessions(); n != 0 {
		t.Errorf("%d sessions after Shutdown", n)
	}
	for _, conn := range []net.Conn{silent, asked, secure} {
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection is still open")
		}
		g.check(t, g.outcomeOf(t, conn.LocalAddr()), "shutting_down")
	}
	b.expectUntouched(t)
}

// It does not wait for what a backend may or may not do, either: pgbouncer#786,
// pgbouncer#234.
func TestShutdownDoesNotWaitForTheBackend(t *testing.T) {
	held := newSlowCancel(t, func(net.Conn) {})
	defer close(held.release)
	full := t.TempDir()
	fillQueue(t, filepath.Join(full, ".s.PGSQL.5432"))
	for name, c := range map[string]struct {
		socketDir string
		steps     []step
	}{
		"to end a cancel request": {held.SocketDir, do(say(cancelRequest(7, []byte("abcd"))), func(*testing.T, *client) { <-held.got })},
		"to accept": {full, do(ssl(), say(alice), func(t *testing.T, _ *client) {
			t.Helper()
			eventually(t, "the gate connects", func() bool {
				stacks := make([]byte, 1<<20)
				return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("backend.dial("))
			})
		})},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, c.socketDir)
			raw := g.dial(t)
			client := &client{Conn: raw, raw: raw, g: g}
			for _, step := range c.steps {
				step(t, client)
			}
			began := time.Now()
			now, cancel := context.WithCancel(context.Background())
			cancel()
			_ = g.Server.Shutdown(now)
			if took := time.Since(began); took > patience/8 {
				t.Errorf("Shutdown took %v", took)
			}
			client.Close()
			g.check(t, g.outcomeOf(t, raw.LocalAddr()), "shutting_down")
		})
	}
}

// One client's panic is that client's: the others keep their sessions. The
// client learns nothing of it but XX000.
func TestPanicIsContained(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	other := g.secure(t)
	send(t, other, alice)
	readReady(t, other)

	accept := g.policy.Verify
	g.reload(func(p *proxy.Policy) {
		p.Recheck = policy.Off // else it would cost the other its session, too: what cannot be judged is refused
		p.Verify = func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) { panic("SECRET\nof the verifier") }
	})
	g.play(t, scene{"in Verify", "internal_error", do(ssl(), say(alice), fatal("XX000", "internal error"))})
	if log := g.Log.String(); !strings.Contains(log, `SECRET\nof the verifier`) || !strings.Contains(log, "dialogue_test.go") {
		t.Errorf("the log lacks the panic or its stack: %s", log)
	}
	g.reload(func(p *proxy.Policy) {
		p.TLS = p.TLS.Clone()
		p.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("in the handshake") }
	})
	g.play(t, scene{"in the handshake", "internal_error", do(say(sslRequest), hear("S"), upgradeFails("EOF"))})

	g.reload(func(p *proxy.Policy) { p.TLS.GetConfigForClient, p.Verify = nil, accept })
	g.play(t, scene{"afterwards", "client_closed", do(ssl(), say(alice), opened)})
	other.Close()
	g.check(t, g.outcomeOf(t, other.LocalAddr()), "client_closed")
}

// A policy that cannot judge admits nobody, and says no more than that.
func TestVerifyFailsClosed(t *testing.T) {
	for name, verify := range map[string]func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error){
		"nil":           nil,
		"another error": verifying(func(tls.ConnectionState, time.Time) error { return errors.New("SECRET") }),
		"a wrapped refusal of something else": verifying(func(tls.ConnectionState, time.Time) error {
			return fmt.Errorf("SECRET: %w", os.ErrPermission)
		}),
	} {
		playRefused(t, func(p *proxy.Policy) { p.Verify = verify }, scene{name, "internal_error", do(ssl(), say(alice), func(t *testing.T, c *client) {
			t.Helper()
			if e := readFatal(t, c); e.Code != "XX000" || e.Message != "internal error" {
				t.Errorf("got %s %q", e.Code, e.Message)
			}
		})})
	}
}

// DESIGN, the life of a connection: no reload slips past a client that is still
// on its way in. Its TLS began under the old policy; it is judged by the new.
func TestReloadDuringStartup(t *testing.T) {
	var verdicts atomic.Int64
	refuse := func(p *proxy.Policy) {
		p.Verify = func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) {
			verdicts.Add(1)
			return nil, &proxy.Refusal{Outcome: outcome.CertRevoked}
		}
	}
	accept := func(p *proxy.Policy) {
		p.Verify = func(tls.ConnectionState, [][]byte, time.Time) ([][]byte, error) {
			verdicts.Add(1)
			return nil, nil
		}
	}
	b, next := newBackend(t), newBackend(t)
	for _, c := range []struct {
		name      string
		old, new  func(*proxy.Policy)
		outcome   string
		sqlstate  string
		whereFrom *backend
	}{
		{"certificate revoked", accept, refuse, "certificate_revoked", "28000", nil},
		// What a refused certificate was is not kept, so the verdict on it stands; the
		// next connection is judged anew.
		{"certificate reinstated", refuse, accept, "certificate_revoked", "28000", nil},
		{"network withdrawn", accept, func(p *proxy.Policy) { p.Networks = networks([]string{"192.0.2.0/24"}, nil) }, "source_not_allowed", "28000", nil},
		{"network denied", accept, func(p *proxy.Policy) { p.Networks = networks([]string{"127.0.0.1"}, []string{"127.0.0.1"}) }, "source_denied", "28000", nil},
		{"backend moved", accept, func(p *proxy.Policy) { p.Backend = socketBackend(filepath.Join(next.SocketDir, ".s.PGSQL.5432")) }, "client_closed", "", next},
	} {
		for _, inside := range []string{"TLS", "a half-sent packet"} {
			t.Run(c.name+" inside "+inside, func(t *testing.T) {
				g := newGate(t, b.SocketDir, c.old)
				before := verdicts.Load()
				conn := g.secure(t)
				eventually(t, "the verdict on the handshake", func() bool { return verdicts.Load() > before })
				rest := alice
				if inside != "TLS" {
					send(t, conn, rest[:20])
					rest = rest[20:]
				}
				g.reload(c.new)
				send(t, conn, rest)
				if c.sqlstate != "" {
					expectFatal(t, conn, c.sqlstate, "")
				} else {
					readReady(t, conn)
					c.whereFrom.received(t)
				}
				conn.Close()
				g.expect(t, c.outcome)
			})
		}
	}
	if len(b.packets)+len(next.packets) != 0 {
		t.Error("a backend was reached that should not have been")
	}
}

// CVE-2025-58189: whatever a client can write into the log is
// escaped there, in both formats. gate.stop looks at every line of every test;
// here are the lines to look at.
func TestTheLogIsTheGates(t *testing.T) {
	const evil = "x\n\x1b[2J\x00\x07\r\t\x7f\u0085\u009blevel=ERROR msg=\"owned\""
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	text := strings.ReplaceAll(evil, "\x00", "")
	pair := g.CA.Client(text, func(c *x509.Certificate) {
		c.DNSNames = []string{"a\nb"}
		c.EmailAddresses = []string{"a\nb@example.com"}
	})
	sni := func(c *tls.Config) { c.InsecureSkipVerify, c.ServerName = true, "a\n\x1b[2Jb" }
	for _, s := range []scene{
		{"ALPN", "tls_alpn", do(upgradeFails("no application protocol", withALPN(evil)))},
		{"ALPN, 1.2", "tls_alpn", do(upgradeFails("no application protocol", withALPN(evil), withVersion(tls.VersionTLS12)))},
		{"SNI", "client_closed", do(ssl(sni), say(alice), opened)},
		{"certificate", "client_closed", do(ssl(withCert(pair)), say(alice), opened)},
		{"names", "client_closed", do(ssl(), say(startup(protocol3, "user", text, "database", text[:20], "application_name", text)), opened)},
		{"startup packet in clear", "plaintext", do(say(startup(protocol3, "user", text, "application_name", text)), fatal("28000", "requires TLS"))},
		{"parameter", "protocol_violation", do(ssl(), say(startup(protocol3, "user", "a", text, "1", text, "2")), fatal("08P01", "more than once"))},
	} {
		g.play(t, s)
	}
	if !strings.Contains(g.Log.String(), `x\\n\\x1b[2J`) {
		t.Errorf("the log does not have the ALPN names that were asked for: %s", g.Log)
	}
}

// The series hold together however many come at once, and however they end.
func TestEveryConnectionIsCounted(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.Verify = verifying(func(state tls.ConnectionState, _ time.Time) error {
			if state.ServerName == "localhost" {
				return nil
			}
			return &proxy.Refusal{Outcome: outcome.CertInvalid}
		})
	})
	stranger := func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "stranger", true }
	kinds := []scene{
		{"session", "client_closed", do(ssl(), say(alice), opened)},
		{"direct", "client_closed", do(directTLS(), say(alice), opened)},
		{"cancel", "forwarded", do(say(cancelRequest(7, []byte("abcd"))), eof)},
		{"plaintext", "plaintext", do(say(alice), fatal("28000", ""))},
		{"probe", "probe", do(hangUp)},
		{"HTTP", "invalid_packet", do(say([]byte("GET / HTTP/1.1\r\n\r\n")), eof)},
		{"stranger", "certificate_invalid", do(ssl(stranger), say(alice), fatal("28000", ""))},
		{"not TLS", "not_tls", do(say(sslRequest, alice), hear("S"), eof)},
	}
	const rounds = 20
	t.Run("clients", func(t *testing.T) {
		for _, s := range kinds {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				for range rounds {
					raw := g.dial(t)
					c := &client{Conn: raw, raw: raw, g: g}
					for _, step := range s.steps {
						step(t, c)
					}
					_ = c.Close()
				}
			})
		}
	})
	eventually(t, "all have gone", func() bool { return g.Server.Sessions() == 0 })
	g.balance(t)
	if n := g.metric(t, "pgwicket_connections_accepted_total"); n != rounds*float64(len(kinds)) {
		t.Errorf("%v connections accepted, want %d", n, rounds*len(kinds))
	}
	for series, want := range map[string]float64{
		"pgwicket_sessions_ended_total":      2 * rounds,
		"pgwicket_cancel_requests_total":     rounds,
		"pgwicket_connections_refused_total": 5 * rounds,
	} {
		if n := g.metric(t, series); n != want {
			t.Errorf("%s is %v, want %v", series, n, want)
		}
	}
	if n := b.Accepted.Load(); n != 3*rounds {
		t.Errorf("%d connections to the backend, want %d", n, 3*rounds)
	}
}
