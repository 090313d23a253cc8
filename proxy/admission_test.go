package proxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// Messages of a backend: the end of a login, and its refusal.
const (
	loggedIn      = "R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x0c\x00\x00\x00\x07key!Z\x00\x00\x00\x05I"
	askPassword   = "R\x00\x00\x00\x08\x00\x00\x00\x03"
	wrongPassword = "E\x00\x00\x00\x1eSFATAL\x00VFATAL\x00C28P01\x00Mno\x00\x00"
)

// cancelBackend counts the CancelRequests that it gets, and answers a startup packet with what
// login returns, and then with nothing.
func cancelBackend(t *testing.T, login func() string) (f *pgtest.Fake, cancels *atomic.Int64) {
	t.Helper()
	cancels = new(atomic.Int64)
	f, err := pgtest.StartFake(func(conn net.Conn) {
		b := make([]byte, 1024)
		if n, _ := conn.Read(b); n == 16 {
			cancels.Add(1)
			return
		}
		_, _ = conn.Write([]byte(login()))
		_, _ = io.Copy(io.Discard, conn)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f, cancels
}

// A wrong password counts when PostgreSQL says so. Clients that keep the connection open
// hold up nobody, and hide no failure.
func TestFailureCountsAtOnce(t *testing.T) {
	t.Parallel()
	var good atomic.Bool
	fake, _ := cancelBackend(t, func() string {
		if good.Load() {
			return loggedIn
		}
		return wrongPassword
	})
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) {
		p.Limits = proxy.Limits{AuthFailures: 2, AuthRefusal: time.Hour}
	})
	guess := func() (sqlstate string) {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app"))
		return fatalAfterLogin(t, conn) // it stays open
	}
	began := time.Now()
	for i, want := range []string{"28P01", "28P01", "28000"} {
		if got := guess(); got != want {
			t.Errorf("guess %d: %s, want %s", i, got, want)
		}
	}
	g.Server.LiftBackoffs("", netip.Addr{})
	good.Store(true)
	known := g.secure(t)
	send(t, known, startup(protocol3, "user", "app"))
	readReady(t, known)
	good.Store(false)
	asked := 0
	for asked < 100 && guess() == "28P01" {
		asked++
	}
	if asked != 20 { // ten times as many beside a client that is known
		t.Errorf("%d guesses beside a client that is known, want 20", asked)
	}
	if took := time.Since(began); took > 40*time.Second { // five seconds each, if it were the end of the connection that counts
		t.Errorf("it took %v", took)
	}
}

// Attempts to log in that are never completed give way to others.
func TestHeldLoginsGiveWay(t *testing.T) {
	t.Parallel()
	fake, _ := cancelBackend(t, func() string { return askPassword })
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) {
		p.Limits = proxy.Limits{AuthFailures: 3, AuthRefusal: time.Hour}
	})
	var held []*tls.Conn
	for i := range 4 {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app"))
		held = append(held, conn)
		eventually(t, "PostgreSQL is asked", func() bool { return fake.Accepted.Load() == int64(i+1) })
	}
	if kind, _ := readMessage(t, held[0]); kind != 'R' {
		t.Errorf("got %q", kind)
	}
	expectFatal(t, held[0], "28000", "too many failed authentications; try again later")
	_ = held[0].Close()
	g.expect(t, "auth_backoff")
}

// Clients that PostgreSQL has not asked for anything yet wait for it, however slow it is to begin a session: none of
// them is refused for the others.
func TestSlowBackendHasNobodyGiveWay(t *testing.T) {
	t.Parallel()
	begin := make(chan struct{})
	fake, _ := cancelBackend(t, func() string { <-begin; return loggedIn })
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) {
		p.Limits = proxy.Limits{AuthFailures: 3, AuthRefusal: time.Hour}
	})
	var all []*tls.Conn
	for range 6 {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app"))
		all = append(all, conn)
	}
	eventually(t, "PostgreSQL is asked", func() bool { return fake.Accepted.Load() == 3 })
	time.Sleep(2500 * time.Millisecond) // an attempt gives way after two seconds
	close(begin)
	for _, conn := range all {
		readReady(t, conn)
		_ = conn.Close()
		g.expect(t, "client_closed")
	}
}

// Where PostgreSQL reports a wrong password late (contrib/auth_delay), a client that has answered
// is counted also when it leaves before that; one that leaves when it is asked for its
// password, as psql does, is not.
func TestFailureCountsUnseen(t *testing.T) {
	t.Parallel()
	var answers atomic.Int64
	fake := delayedFailures(t, &answers, nil)
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) {
		p.Limits = proxy.Limits{AuthFailures: 3, AuthRefusal: time.Hour}
	})
	for i := range 6 {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app"))
		readMessage(t, conn)
		if i >= 3 {
			send(t, conn, []byte("p\x00\x00\x00\x06x\x00"))
			eventually(t, "PostgreSQL has the answer", func() bool { return answers.Load() == int64(i-2) })
		}
		_ = conn.Close()
		g.expect(t, "client_closed")
	}
	conn := g.secure(t)
	send(t, conn, startup(protocol3, "user", "app"))
	expectFatal(t, conn, "28000", "too many failed authentications; try again later")
	_ = conn.Close()
	g.expect(t, "auth_backoff")
}

// However many guess at the same time, PostgreSQL gets no more than the limit where it
// reports a failure later than an attempt gives way.
func TestLateFailuresAreBounded(t *testing.T) {
	t.Parallel()
	var answers atomic.Int64
	release := make(chan struct{})
	fake := delayedFailures(t, &answers, release)
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) {
		p.Limits = proxy.Limits{AuthFailures: 3, AuthRefusal: time.Hour}
	})
	time.AfterFunc(3*time.Second, func() { close(release) }) // auth_delay.milliseconds = 3000
	var guesses sync.WaitGroup
	for range 12 {
		conn := g.secure(t)
		guesses.Go(func() {
			defer conn.Close()
			if _, err := conn.Write(startup(protocol3, "user", "app")); err != nil {
				t.Error(err)
			}
			if kind, _ := readMessage(t, conn); kind == 'R' {
				_, _ = conn.Write([]byte("p\x00\x00\x00\x06x\x00"))
				readMessage(t, conn)
			}
		})
	}
	guesses.Wait()
	if n := answers.Load(); n != 3 {
		t.Errorf("%d guesses reached PostgreSQL, want 3", n)
	}
	outcomes := make(map[string]int)
	for range 12 {
		outcomes[g.outcome(t).get("outcome")]++
	}
	if outcomes["authentication_failed"] != 3 || outcomes["auth_backoff"] != 9 {
		t.Errorf("the outcomes are %v", outcomes)
	}
}

// delayedFailures is a backend that asks for a password, counts the answers and refuses each
// of them once release is closed; nil: never.
func delayedFailures(t *testing.T, answers *atomic.Int64, release chan struct{}) *pgtest.Fake {
	t.Helper()
	return rawBackend(t, func(conn net.Conn) {
		b := make([]byte, 1024)
		_, _ = conn.Read(b)
		_, _ = conn.Write([]byte(askPassword))
		if n, _ := conn.Read(b); n == 0 || b[0] != 'p' {
			return
		}
		answers.Add(1)
		if release != nil {
			<-release
			_, _ = conn.Write([]byte(wrongPassword))
		}
		_, _ = io.Copy(io.Discard, conn)
	})
}

// A client that sends CancelRequests with the key of its own session, many at a time, takes the
// budget of no other session.
func TestCancelsOfOneSession(t *testing.T) {
	t.Parallel()
	var sessions, cancels atomic.Int64
	release := make(chan struct{})
	fake := rawBackend(t, func(conn net.Conn) {
		b := make([]byte, 1024)
		if n, _ := conn.Read(b); n == 16 {
			cancels.Add(1)
			<-release
			return
		}
		key := strings.Replace(loggedIn, "key!", fmt.Sprintf("key%d", sessions.Add(1)), 1)
		_, _ = conn.Write([]byte(key))
		_, _ = io.Copy(io.Discard, conn)
	})
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) { p.MaxCancelRequests = 4 })
	first, second := g.session(t, "app"), g.session(t, "app")
	cancel := func(key string) net.Conn {
		conn := g.dial(t)
		send(t, conn, cancelRequest(7, []byte(key)))
		return conn
	}
	held := []net.Conn{cancel("key1"), cancel("key1")}
	eventually(t, "two are in flight", func() bool { return cancels.Load() == 2 })
	for range 8 {
		refused := cancel("key1")
		expectEOF(t, refused)
		_ = refused.Close()
		g.expect(t, "over_limit")
	}
	held = append(held, cancel("key2"))
	eventually(t, "the other session's is forwarded", func() bool { return cancels.Load() == 3 })
	close(release)
	for _, conn := range held {
		expectEOF(t, conn)
		_ = conn.Close()
		g.expect(t, "forwarded")
	}
	_, _ = first.Close(), second.Close()
}

// Clients that have shown a good certificate and say nothing more have a bound, and a metric.
func TestSilentAfterItsCertificate(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{Startups: 3} })
	silent := func() *tls.Conn {
		conn := g.secure(t, withCert(g.CA.Client("alice")))
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	first := silent()
	eventually(t, "it is verified", func() bool { return g.metric(t, "pgwicket_connections_verified") == 1 })
	for range 2 {
		silent()
	}
	eventually(t, "all are verified", func() bool { return g.metric(t, "pgwicket_connections_verified") == 3 })
	if n := g.metric(t, "pgwicket_connections_unproved"); n != 0 {
		t.Errorf("%v are unproved", n)
	}
	silent()
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the first did not have to give way")
	}
	g.expect(t, "startup_limit")
	alice := g.session(t, "app", withCert(g.CA.Client("alice")))
	g.expect(t, "startup_limit") // for alice, who leaves the stage
	eventually(t, "a session is in no stage", func() bool { return g.metric(t, "pgwicket_connections_verified") == 2 })
	_ = alice.Close()
}

// Connections of a load balancer that send no PROXY header have a bound, and a metric.
func TestSilentBeforeItsHeader(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	g := newGateBehind(t, b.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{Startups: 3} })
	first := g.from(t, balancer)
	eventually(t, "it waits", func() bool { return g.metric(t, "pgwicket_connections_awaiting_proxy_header") == 1 })
	for range 3 {
		g.from(t, balancer)
	}
	expectEOF(t, first)
	g.expect(t, "startup_limit")
	eventually(t, "three wait", func() bool { return g.metric(t, "pgwicket_connections_awaiting_proxy_header") == 3 })
	passed := g.from(t, balancer)
	send(t, passed, proxyV1("TCP4 192.0.2.1 127.0.0.1 1000 5432"))
	send(t, passed, sslRequest)
	expectByte(t, passed, 'S')
	g.expect(t, "startup_limit") // for it, until its header had come
	eventually(t, "two wait", func() bool { return g.metric(t, "pgwicket_connections_awaiting_proxy_header") == 2 })
}

// Clients that only wait for their password do not keep others out, although there are as many as
// there may be sessions.
func TestUnprovedTakeNoLastPlace(t *testing.T) {
	t.Parallel()
	var hold atomic.Bool
	fake, _ := cancelBackend(t, func() string {
		if hold.Load() {
			return ""
		}
		return loggedIn
	})
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{Startups: 100, Sessions: 4} })
	proved := g.session(t, "app")
	hold.Store(true)
	for i := range 3 {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app"))
		eventually(t, "PostgreSQL is asked", func() bool { return fake.Accepted.Load() == int64(i+2) })
	}
	hold.Store(false)
	began := time.Now()
	next := g.session(t, "app")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the next client was served after %v", took)
	}
	g.expect(t, "startup_limit")
	if n := g.Server.Usage().Sessions; n != 4 {
		t.Errorf("%d sessions", n)
	}
	for _, conn := range []*tls.Conn{proved, next} {
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("a session that is proved has ended: %v", err)
		}
	}
}
