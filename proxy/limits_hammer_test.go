package proxy_test

import (
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/policy"
	"pgwicket/proxy"
)

// moodyBackend logs in, refuses, is slow or goes away, as chance will have it, and
// answers whatever comes after a login with a ReadyForQuery.
func moodyBackend(t *testing.T) *pgtest.Fake {
	t.Helper()
	fake, err := pgtest.StartFake(func(conn net.Conn) {
		b := make([]byte, 1024)
		if n, _ := conn.Read(b); n <= 16 {
			return // a CancelRequest
		}
		switch rand.IntN(8) {
		case 0:
			return
		case 1:
			body := "SFATAL\x00VFATAL\x00C28P01\x00Mno\x00\x00"
			_, _ = conn.Write(append([]byte{'E', 0, 0, 0, byte(4 + len(body))}, body...))
			return
		case 2:
			time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		}
		login := []byte("R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x0c\x00\x00\x00\x07key!Z\x00\x00\x00\x05I")
		cut := rand.IntN(len(login))
		_, _ = conn.Write(login[:cut])
		_, _ = conn.Write(login[cut:])
		for {
			if _, err := conn.Read(b); err != nil {
				return
			}
			if _, err := conn.Write([]byte("Z\x00\x00\x00\x05I")); err != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	return fake
}

// Clients that stop at every point of their way, limits that all of them reach, and
// reloads that revoke: nobody keeps a place when all are gone, and the next client
// is served.
func TestLimitsHammer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	limits := proxy.Limits{
		Startups: 12, Sessions: 10, PerSource: 2, PerAccount: 3, Rate: 400, Burst: 50,
		AuthFailures: 3, AuthRefusal: 20 * time.Millisecond, IdleTimeout: 80 * time.Millisecond, SessionLifetime: 300 * time.Millisecond,
	}
	g := newGate(t, moodyBackend(t).SocketDir, func(p *proxy.Policy) {
		p.Limits, p.StartupTimeout, p.RefusalLogRate = limits, time.Second, 5
	})
	end := time.Now().Add(5 * time.Second)
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			for time.Now().Before(end) {
				g.wander(t, i)
			}
		})
	}
	for n := 0; time.Now().Before(end); n++ {
		g.reload(func(p *proxy.Policy) {
			p.Verify = verifying(func(tls.ConnectionState, time.Time) error { return nil })
			if n%2 == 0 {
				p.Verify = refuses("bob")
			}
			p.Recheck = policy.Recheck(rand.IntN(3))
			p.Limits.Startups = 8 + rand.IntN(8)
		})
		time.Sleep(20 * time.Millisecond)
	}
	all.Wait()
	g.reload(func(p *proxy.Policy) { p.Limits = proxy.Limits{} })
	eventually(t, "all are gone", func() bool { return g.Server.Sessions() == 0 })
	if u := g.Server.Usage(); u != (proxy.Usage{}) {
		t.Errorf("places are taken: %+v", u)
	}
	_ = g.Server.LiftBackoffs("", netip.Addr{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = g.Server.Shutdown(ctx)
}

// wander is one client, which goes as far as chance takes it.
func (g *gate) wander(t *testing.T, i int) {
	from := net.IPv4(127, 0, byte(rand.IntN(8)), 1) // of several networks
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}).Dial("tcp", g.Addr)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	pause := func() { time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond) }
	switch rand.IntN(10) {
	case 0: // says nothing
		pause()
		return
	case 1:
		_, _ = conn.Write(cancelRequest(7, []byte("key!")))
		_, _ = io.Copy(io.Discard, conn)
		return
	case 2:
		_, _ = conn.Write(startup(protocol3, "user", "app"))
		pause()
		return
	}
	if _, err := conn.Write(sslRequest); err != nil {
		return
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return
	}
	config := g.clientTLS()
	switch i % 3 {
	case 0:
		config = g.clientTLS(withCert(g.CA.Client("bob")))
	case 1:
		config = g.clientTLS(withCert(g.CA.Client("alice")))
	}
	c := tls.Client(conn, config)
	if c.Handshake() != nil {
		return
	}
	switch rand.IntN(8) {
	case 0:
		pause()
		return
	case 1:
		_, _ = c.Write(cancelRequest(7, []byte("key!")))
		_, _ = io.Copy(io.Discard, c)
		return
	}
	_, _ = c.Write(startup(protocol3, "user", []string{"app", "other"}[rand.IntN(2)]))
	b := make([]byte, 1024)
	for range rand.IntN(30) {
		if _, err := c.Read(b); err != nil {
			return
		}
		if _, err := c.Write(simpleQuery("select 1")); err != nil {
			return
		}
		pause()
	}
	if rand.IntN(2) == 0 {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
}
