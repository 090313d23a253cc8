package proxy_test

import (
	"crypto/tls"
	"strings"
	"testing"
)

// A session does not keep for its life, and pgwicket sessions does not list, as much text as its
// client can send: a list of 10,000 sessions took half a gigabyte.
func TestLongTextsAreNotKept(t *testing.T) {
	t.Parallel()
	const most = 300
	b := newBackend(t)
	g := newGate(t, b.SocketDir)
	long := strings.Repeat("\x01", 9_000)
	conn := g.secure(t, func(c *tls.Config) {
		c.ServerName, c.InsecureSkipVerify = strings.Repeat("n", 9_000), true
	})
	send(t, conn, startup(protocol3, "user", "app", "application_name", long))
	readReady(t, conn)
	if got := string(b.received(t)); !strings.Contains(got, long) {
		t.Errorf("PostgreSQL has got %d bytes, and not the whole name", len(got))
	}
	one := g.Server.Snapshot()[0]
	if n := len(one.Application); n > 4*most || n < most {
		t.Errorf("the application_name of a session takes %d bytes as printed", n)
	}
	if n := len(one.Request.SNI); n > most || n < most/2 {
		t.Errorf("the SNI of a session takes %d bytes", n)
	}
	_ = conn.Close()
	line := g.expect(t, "client_closed")
	for _, attr := range []string{"sni", "application_name"} {
		if got := line.get(attr); len(got) > 2*most || !strings.Contains(got, "...") {
			t.Errorf("the log has %q as %s", got, attr)
		}
	}
}
