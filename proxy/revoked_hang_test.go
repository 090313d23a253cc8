package proxy_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// A backend that does not answer CancelRequests delays no shutdown for long: the
// cancels of a terminated session have a bound together, not each.
func TestCancelsOfATerminatedSessionEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	t.Parallel()
	hang := make(chan struct{})
	var cancels atomic.Int64
	fake, err := pgtest.StartFake(func(conn net.Conn) {
		b := make([]byte, 1024)
		n, _ := conn.Read(b)
		if n == 16 {
			cancels.Add(1)
			<-hang
			return
		}
		_, _ = conn.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x0c\x00\x00\x00\x07key!Z\x00\x00\x00\x05I"))
		_, _ = io.Copy(io.Discard, conn)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	t.Cleanup(func() { close(hang) })
	g := newGate(t, fake.SocketDir)
	bob := g.secure(t, withCert(g.CA.Client("bob")))
	send(t, bob, startup(protocol3, "user", "app"))
	readReady(t, bob)
	g.reload(func(p *proxy.Policy) { p.Verify = refuses("bob") })
	g.expect(t, "certificate_revoked")
	eventually(t, "it is cancelled", func() bool { return cancels.Load() > 0 })
	now, cancel := context.WithCancel(context.Background())
	cancel()
	began := time.Now()
	_ = g.Server.Shutdown(now)
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the shutdown took %v", took)
	}
}
