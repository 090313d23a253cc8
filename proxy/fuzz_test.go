package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/proxy"
)

// Flags of FuzzConnection's first byte.
const (
	fuzzTLS       = 1 << iota // the bytes are said inside TLS, after an SSLRequest
	fuzzDirect                // or inside direct TLS
	fuzzTLS12                 // which is 1.2
	fuzzForbidden             // by a client that the policy refuses
	fuzzSplit                 // with a pause of a segment in the middle
	fuzzCut                   // and a reset for an end
)

// FuzzConnection lets an arbitrary client loose on a real server in front of a
// fake backend. Whatever it says, nothing panics, the connection ends and is
// counted once, and the backend hears of it only if the bytes are a dialogue
// that leads there, and then exactly what was said.
func FuzzConnection(f *testing.F) {
	alice := startup(protocol3, "user", "alice", "database", "sales")
	cancel := cancelRequest(7, []byte("abcd"))
	for _, said := range [][]byte{
		nil,
		alice, sslRequest, gssencRequest, cancel, cancelRequest(7, make([]byte, 256)), cancelRequest(7, []byte("abc")),
		slices.Concat(sslRequest, alice), slices.Concat(gssencRequest, sslRequest, alice), slices.Concat(gssencRequest, gssencRequest),
		slices.Concat(gssencRequest, cancel), slices.Concat(sslRequest, cancel), slices.Concat(sslRequest, gssencRequest, sslRequest),
		slices.Concat(alice, []byte("X\x00\x00\x00\x04")), slices.Concat(alice, []byte("Q\x00\x00\x00\x0dselect 1\x00")),
		alice[:9], sslRequest[:5], append(bytes.Clone(sslRequest), 0),
		startup(protocol3|9999, "user", "a", "_pq_.x", ""), startup(2<<16, "user", "a"), startup(4<<16, "user", "a"),
		startup(protocol3, "user", "alice", "user", "postgres"), startup(protocol3, "database", "sales"),
		{0, 0, 0, 0, 0, 3, 0, 0},
		{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		{0x7f, 0xff, 0xff, 0xff},
		{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3},
		{0x16, 3, 1, 0xff, 0xff},
		{0x15, 3, 1, 0, 2, 2, 48},
		slices.Concat(sslRequest, []byte{0x16, 3, 1, 0, 4, 1, 0, 0, 0}), slices.Concat(sslRequest, []byte{0x80, 0x2e, 1}),
		[]byte("GET / HTTP/1.1\r\n\r\n"), []byte("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"),
	} {
		for _, flags := range []byte{0, fuzzTLS, fuzzDirect, fuzzTLS | fuzzForbidden, fuzzDirect | fuzzTLS12 | fuzzSplit, fuzzForbidden | fuzzSplit, fuzzTLS | fuzzCut} {
			f.Add(flags, said)
		}
	}
	b := newBackend(f)
	g := newGate(f, b.SocketDir, func(p *proxy.Policy) {
		p.StartupTimeout = patience
		p.Verify = verifying(func(state tls.ConnectionState, _ time.Time) error {
			if state.ServerName == "forbidden" {
				return &proxy.Refusal{Outcome: outcome.CertRevoked}
			}
			return nil
		})
	})
	f.Fuzz(func(t *testing.T, flags byte, said []byte) {
		talk(t, g, flags, said)
		line := g.outcome(t)
		eventually(t, "the session is over", func() bool { return g.Server.Sessions() == 0 })
		if more, is := g.Log.next(); is || line.get("outcome") == "internal_error" {
			t.Fatalf("the log has %v and %v", line, more)
		}
		want := reaches(flags, said)
		through := line.get("msg") == "session ended" || line.get("outcome") == "forwarded"
		// A cut may come before the gate has read what was said.
		if through != (want != nil) && (through || flags&fuzzCut == 0) {
			t.Fatalf("the backend should get %q: %v", want, line)
		}
		if through {
			if got := b.received(t); !bytes.Equal(got, want) {
				t.Fatalf("the backend got %q, want %q: %v", got, want, line)
			}
		}
		if n := len(b.packets); n != 0 {
			t.Fatalf("%d more connections to the backend: %v", n, line)
		}
	})
}

// talk is the client. It is over when the gate has closed.
func talk(t *testing.T, g *gate, flags byte, said []byte) {
	raw := g.dial(t)
	defer raw.Close()
	var conn interface {
		io.ReadWriteCloser
		CloseWrite() error
	} = raw
	if flags&(fuzzTLS|fuzzDirect) != 0 {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"postgresql"}}
		if flags&fuzzForbidden != 0 {
			config.ServerName = "forbidden"
		}
		if flags&fuzzTLS12 != 0 {
			config.MaxVersion = tls.VersionTLS12
		}
		if flags&fuzzDirect == 0 {
			send(t, raw, sslRequest)
			expectByte(t, raw, 'S')
		}
		conn = shake(t, raw, config)
	}
	// The gate may have closed before all is said; that is no failure.
	if half := len(said) / 2; flags&fuzzSplit != 0 {
		_, _ = conn.Write(said[:half])
		said = said[half:]
	}
	_, _ = conn.Write(said)
	if flags&fuzzCut != 0 {
		_ = raw.SetLinger(0)
		return
	}
	_ = conn.CloseWrite()
	if conn != io.ReadWriteCloser(raw) {
		_ = raw.CloseWrite()
	}
	_, err := io.Copy(io.Discard, conn)
	if os.IsTimeout(err) {
		t.Fatal("the gate neither answers nor closes")
	}
}

// reaches says what the backend should get of these bytes, by the rules of
// ProcessStartupPacket; nil is nothing.
func reaches(flags byte, said []byte) []byte {
	inTLS, direct := flags&(fuzzTLS|fuzzDirect) != 0, flags&fuzzDirect != 0
	asked := make(map[uint32]bool)
	if inTLS && !direct {
		asked[80877103], asked[80877104] = true, true // neither is allowed any more
	}
	for {
		if len(said) < 8 {
			return nil
		}
		length, code := binary.BigEndian.Uint32(said), binary.BigEndian.Uint32(said[4:])
		if length < 8 || length > 10_004 || int(length) > len(said) {
			return nil
		}
		switch code {
		case 80877103, 80877104: // SSLRequest, GSSENCRequest
			// In clear an SSLRequest is followed by TLS, of which no
			// bytes of ours will ever be a whole handshake.
			if length != 8 || asked[code] || !inTLS && code == 80877103 {
				return nil
			}
			asked[code] = true
			said = said[8:]
		case 80877102: // CancelRequest, also of a client that shows no certificate
			if length < 16 || length > 268 {
				return nil
			}
			return said[:length]
		default:
			p, err := pgwire.ReadPacket(bytes.NewReader(said))
			if err != nil || !inTLS || flags&fuzzForbidden != 0 {
				return nil
			}
			if _, err := pgwire.ParseStartup(p); err != nil { // FuzzParseStartup answers for it
				return nil
			}
			return said[:length]
		}
	}
}
