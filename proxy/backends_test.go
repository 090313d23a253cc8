package proxy_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgwicket/internal/health"
	"pgwicket/proxy"
)

// A client with a connect_timeout leaves before the gate gives up a backend that hangs: the
// backend has failed, and the line of the session says it. One that leaves at once shows nothing.
func TestClientLeavesSilentBackend(t *testing.T) {
	t.Parallel()
	f := rawBackend(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) // ends when the client has
	g := newGate(t, f.SocketDir)
	conn := g.secure(t)
	send(t, conn, alice)
	_ = conn.Close()
	if line := g.expect(t, "client_closed"); line.get("reason") != "" || line.get("level") != "INFO" {
		t.Errorf("at once: %v", line)
	}
	if s := g.Metrics.Backends()[0]; s.Known() {
		t.Errorf("a client that left at once: %+v", s)
	}
	conn = g.secure(t)
	send(t, conn, alice)
	_ = conn.SetReadDeadline(time.Now().Add(2100 * time.Millisecond)) // its connect_timeout
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	_ = conn.NetConn().Close()
	const reason = "PostgreSQL took the connection and sent nothing for 2s: its postmaster hangs, or the machine is overloaded"
	line := g.expect(t, "client_closed")
	if line.get("reason") != reason || line.get("level") != "WARN" {
		t.Errorf("after 2 s: %v", line)
	}
	if s := g.Metrics.Backends()[0]; !s.Down() || s.Reason != reason {
		t.Errorf("after 2 s: %+v", s)
	}
}

// What a backend has done to the last session is its state: what clients do is not.
func TestBackendStates(t *testing.T) {
	t.Parallel()
	answers := map[string]string{
		"ready":    "R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I",
		"starting": "E\x00\x00\x00\x13SFATAL\x00C57P03\x00\x00",
		"password": "E\x00\x00\x00\x13SFATAL\x00C28P01\x00\x00",
		"full":     "E\x00\x00\x00\x13SFATAL\x00C53300\x00\x00",
		"gone":     "",
	}
	answer := make(chan string, 1)
	f := rawBackend(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1024))
		text := <-answer
		_, _ = io.WriteString(c, text)
		if text == answers["ready"] {
			_, _ = io.Copy(io.Discard, c)
		}
	})
	g := newGate(t, f.SocketDir)
	state := func() health.State { return g.Metrics.Backends()[0] }
	if s := state(); s.Known() || s.Host != (health.Host{Backend: "default", Address: filepath.Join(f.SocketDir, ".s.PGSQL.5432")}) {
		t.Fatalf("before the first session: %+v", s)
	}
	for _, c := range []struct {
		answer string
		down   bool
		reason string
	}{
		{"ready", false, ""},
		{"starting", true, "PostgreSQL refuses sessions with SQLSTATE 57P03"},
		{"full", true, "PostgreSQL refuses sessions with SQLSTATE 57P03"}, // says nothing of whether it works
		{"password", false, "PostgreSQL refuses sessions with SQLSTATE 57P03"},
		{"gone", true, "the connection ended before PostgreSQL was ready (backend_closed)"},
		{"ready", false, "the connection ended before PostgreSQL was ready (backend_closed)"},
	} {
		answer <- answers[c.answer]
		conn := g.secure(t)
		send(t, conn, alice)
		if c.answer == "ready" {
			readReady(t, conn)
		} else {
			_, _ = io.ReadAll(conn)
		}
		_ = conn.Close()
		g.outcome(t)
		if s := state(); s.Down() != c.down || s.Reason != c.reason {
			t.Errorf("after %q: %+v", c.answer, s)
		}
		up := map[bool]float64{true: 0, false: 1}[c.down]
		if got := g.metric(t, "pgwicket_backend_up"); got != up {
			t.Errorf("after %q pgwicket_backend_up is %v", c.answer, got)
		}
	}

	// One that cannot be reached, in words of the system.
	g.reload(func(p *proxy.Policy) { p.Backend = unixBackend(t.TempDir()) })
	if s := state(); s.Known() {
		t.Errorf("the host of a new policy is known: %+v", s)
	}
	conn := g.secure(t)
	send(t, conn, alice)
	expectFatal(t, conn, "57P03", "the database cannot be reached")
	_ = conn.Close()
	g.expect(t, "backend_unavailable")
	if s := state(); !s.Down() || s.Reason == "" {
		t.Errorf("without a socket: %+v", s)
	}
}

// A client that rejects the gate's name is in the log at its usual level, with both
// names; one that just closes is not.
func TestServerNameRejected(t *testing.T) {
	t.Parallel()
	g := newGate(t, t.TempDir())
	for _, c := range []struct{ name, level, reason string }{
		{"db2.example.com", "INFO", `closed after the TLS handshake: the client asked for "db2.example.com", and no certificate of the gate has that name, so sslmode=verify-full rejects it`},
		{"localhost", "DEBUG", "closed before it asked for anything"},
		{"", "DEBUG", "closed before it asked for anything"},
	} {
		conn := g.secure(t, func(cfg *tls.Config) { cfg.ServerName = c.name; cfg.InsecureSkipVerify = true })
		_ = conn.Close()
		line := g.expect(t, "probe")
		if line.get("level") != c.level || line.get("reason") != c.reason {
			t.Errorf("%q: %s, %q", c.name, line.get("level"), line.get("reason"))
		}
	}
	// Where certificates are chosen by name, the chosen one counts.
	g.reload(func(p *proxy.Policy) {
		config := p.TLS.Clone()
		config.Certificates = nil
		config.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert := testServer()
			return &cert, h.SupportsCertificate(&cert)
		}
		p.TLS = config
	})
	_ = g.secure(t, func(cfg *tls.Config) { cfg.ServerName = "localhost" }).Close()
	if line := g.expect(t, "probe"); line.get("level") != "DEBUG" {
		t.Errorf("a name that one of several certificates has: %v", line)
	}
}

// A client that closes when it is asked for a password is told apart from one that
// leaves without a word.
func TestUnansweredPassword(t *testing.T) {
	t.Parallel()
	f := rawBackend(t, func(c net.Conn) {
		_, _ = c.Write([]byte("R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"))
		_, _ = io.Copy(io.Discard, c)
	})
	g := newGate(t, f.SocketDir)
	for _, answer := range []string{"", "p\x00\x00\x00\x05x"} {
		conn := g.secure(t)
		send(t, conn, alice)
		if _, err := io.ReadFull(conn, make([]byte, 24)); err != nil {
			t.Fatal(err)
		}
		send(t, conn, []byte(answer))
		_ = conn.Close()
		line := g.expect(t, "client_closed")
		if hint := line.get("hint"); (hint != "") != (answer == "") {
			t.Errorf("after %q the hint is %q", answer, hint)
		}
	}
}
