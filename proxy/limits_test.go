package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// from connects from another address of this machine and says nothing.
func (g *gate) from(t testing.TB, source string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	conn, err := d.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// A pool that replaces a connection at the limit opens the next one while the last one is
// being closed. It is judged by the sessions that there are when its startup is complete.
func TestReplacedConnectionAtTheLimit(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{Sessions: 1} })
	last := g.session(t, "app")
	next := g.secure(t)
	_ = last.Close()
	g.expect(t, "client_closed")
	send(t, next, startup(protocol3, "user", "app"))
	readReady(t, next)
	over := g.secure(t)
	send(t, over, startup(protocol3, "user", "app"))
	expectFatal(t, over, "57P03", "too many")
	g.expect(t, "connection_limit")
}

// A connection above a limit is told so in words, in the reserve, and closed at
// once beyond it; a CancelRequest is forwarded all the same, and a connection that
// ends makes room. The limit of the whole gate is 57P03, which has libpq try its
// next host; a limit of the client's own is not.
func TestConnectionLimits(t *testing.T) {
	for _, c := range []struct {
		outcome, sqlstate string
		limits            proxy.Limits
		others            bool // another source is admitted all the same
	}{
		{"connection_limit", "57P03", proxy.Limits{Sessions: 3}, false},
		{"source_limit", "53300", proxy.Limits{PerSource: 3}, true},
	} {
		b := newBackend(t)
		g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.Limits = c.limits })
		var in []*tls.Conn
		for range 3 {
			in = append(in, g.session(t, "app"))
		}
		over := g.secure(t)
		send(t, over, startup(protocol3, "user", "app"))
		expectFatal(t, over, c.sqlstate, "too many")
		_ = over.Close()
		g.expect(t, c.outcome)
		before := b.Accepted.Load()
		raw := g.dial(t)
		send(t, raw, cancelRequest(1, []byte("????")))
		expectEOF(t, raw)
		g.expect(t, "forwarded")
		if n := b.Accepted.Load() - before; n != 1 {
			t.Errorf("%s: the backend got %d cancel requests", c.outcome, n)
		}
		var silent []net.Conn
		for range 8 { // all of the source's reserve
			silent = append(silent, g.dial(t))
		}
		eventually(t, "the reserve is full", func() bool { return g.Server.Usage().Startups == 8 })
		expectEOF(t, g.dial(t))
		g.expect(t, c.outcome)
		for _, one := range silent {
			_ = one.Close()
			g.expect(t, "probe")
		}
		other := tls.Client(secureFrom(t, g, "127.0.0.2"), g.clientTLS())
		send(t, other, startup(protocol3, "user", "app"))
		if c.others {
			readReady(t, other)
			_ = other.Close()
			g.expect(t, "client_closed")
		} else {
			expectFatal(t, other, c.sqlstate, "too many")
			_ = other.Close()
			g.expect(t, c.outcome)
		}
		_ = in[0].Close()
		eventually(t, "there is room again", func() bool { return g.Server.Sessions() == 2 })
		_ = g.session(t, "app")
	}
}

// A connection in the reserve that does not say what it wants has a short time.
func TestSilentOverALimit(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.Limits = proxy.Limits{Sessions: 1}
		p.StartupTimeout = 100 * time.Millisecond
	})
	_ = g.session(t, "app")
	expectEOF(t, g.dial(t))
	g.expect(t, "connection_limit")
}

// pgbouncer#392, pgbouncer#140: cancel requests filled up the connections that
// there may be, and nobody got in. Here one is in nobody's place; and with the last
// session its Ctrl-C still works.
func TestCancelTakesNoPlace(t *testing.T) {
	release := make(chan struct{})
	fake, err := pgtest.StartFake(func(conn net.Conn) {
		_, _ = io.ReadFull(conn, make([]byte, 16))
		<-release
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let) // or a failure would wait for it
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{Sessions: 2, PerSource: 2} })
	var waiting []*net.TCPConn
	for i := range 4 {
		raw := g.dial(t)
		send(t, raw, cancelRequest(1, []byte{1, 2, 3, 4}))
		eventually(t, "the backend has it", func() bool { return fake.Accepted.Load() == int64(i+1) })
		waiting = append(waiting, raw)
	}
	let()
	for _, raw := range waiting {
		expectEOF(t, raw)
	}
}

func TestRateLimit(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{Rate: 0.01, Burst: 3} })
	for range 3 {
		_ = g.session(t, "app").Close()
		g.expect(t, "client_closed")
	}
	over := g.secure(t)
	send(t, over, startup(protocol3, "user", "app"))
	expectFatal(t, over, "53300", "too many new connections from this address")
	_ = over.Close()
	g.expect(t, "rate_limit")
	other := g.from(t, "127.0.0.2")
	send(t, other, sslRequest)
	expectByte(t, other, 'S')
	g.reload(func(p *proxy.Policy) { p.Limits.Rate = 1000 })
	eventually(t, "the new rate holds", func() bool {
		raw := g.dial(t)
		defer raw.Close()
		send(t, raw, sslRequest)
		var b [1]byte
		_, err := raw.Read(b[:])
		return err == nil && b[0] == 'S'
	})
}

// A session above the limit of its account is refused once PostgreSQL has taken its
// word, so that no stranger can fill the account, and others have room.
func TestAccountLimit(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{PerAccount: 2} })
	first := g.session(t, "app")
	_ = g.session(t, "app")
	over := g.secure(t)
	send(t, over, startup(protocol3, "user", "app", "database", "shop"))
	if got := fatalAfterLogin(t, over); got != "53300" {
		t.Errorf("the client is told %s", got)
	}
	_ = over.Close()
	g.expect(t, "account_limit")
	_ = g.session(t, "other")
	_ = first.Close()
	g.expect(t, "client_closed")
	eventually(t, "there is room again", func() bool { return g.Server.Sessions() == 2 })
	_ = g.session(t, "app")
}

// loginBackend refuses with a SQLSTATE while it is told to.
func loginBackend(t *testing.T, sqlstate *atomic.Value) *pgtest.Fake {
	t.Helper()
	fake, err := pgtest.StartFake(func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1024))
		code, _ := sqlstate.Load().(string)
		if code == "" {
			_, _ = conn.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"))
			_, _ = io.Copy(io.Discard, conn)
			return
		}
		body := "SFATAL\x00VFATAL\x00C" + code + "\x00Mno\x00\x00"
		_, _ = conn.Write(append([]byte{'E', 0, 0, 0, byte(4 + len(body))}, body...))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	return fake
}

// A client that guesses passwords waits longer each time, and is then kept from
// PostgreSQL; others are, from elsewhere or as somebody else, and a success
// makes all good.
//
// cockroach#108343: nothing but a failed authentication counts.
func TestAuthBackoff(t *testing.T) {
	var sqlstate atomic.Value
	fake := loginBackend(t, &sqlstate)
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{AuthFailures: 3, AuthRefusal: time.Hour} })
	try := func(user, code string) time.Duration {
		t.Helper()
		sqlstate.Store(code)
		conn := g.secure(t)
		began := time.Now()
		send(t, conn, startup(protocol3, "user", user))
		if code == "" {
			readReady(t, conn)
		} else if got := fatalAfterLogin(t, conn); got != code {
			t.Errorf("the client is told %s, want %s", got, code)
		}
		took := time.Since(began)
		_ = conn.Close()
		if code == "" {
			g.expect(t, "client_closed")
		} else {
			g.expect(t, map[bool]string{true: "authentication_failed", false: "backend_refused"}[code[:2] == "28"])
		}
		return took
	}
	for _, code := range []string{"53300", "57P03", "3D000", "XX000"} {
		for range 4 {
			try("app", code)
		}
	}
	for i, least := range []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond} {
		if took := try("app", "28P01"); took < least {
			t.Errorf("attempt %d took %v, want %v at least", i+1, took, least)
		}
	}
	before := fake.Accepted.Load()
	conn := g.secure(t)
	send(t, conn, startup(protocol3, "user", "app"))
	expectFatal(t, conn, "28000", "too many failed authentications; try again later")
	_ = conn.Close()
	g.expect(t, "auth_backoff")
	if n := fake.Accepted.Load(); n != before {
		t.Errorf("PostgreSQL was asked %d times", n-before)
	}
	try("other", "")
	other := tls.Client(secureFrom(t, g, "127.0.0.2"), g.clientTLS())
	send(t, other, startup(protocol3, "user", "app"))
	readReady(t, other)
	g.reload(func(p *proxy.Policy) { p.Limits.AuthFailures = 4 })
	try("app", "")
	g.reload(func(p *proxy.Policy) { p.Limits.AuthFailures = 3 })
	try("app", "")
	// It has succeeded lately, so one client with a stale password does not lock the
	// others out.
	for range 5 {
		try("app", "28P01")
	}
	try("app", "")
}

// cockroach#108343: a throttle of failed logins that counts whatever fails locks out
// people who have mistyped nothing. One failure is one too many here, and PostgreSQL
// itself says what was one.
func TestOnlyFailedAuthenticationsCount(t *testing.T) {
	t.Parallel()
	db, err := pgtest.Start(context.Background(), realOptions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{AuthFailures: 1, AuthRefusal: time.Hour} })
	env := libpq(t, g, "PGUSER=scram", "PGPASSWORD="+secret) // one certificate for all
	login := func(settings ...string) string {
		t.Helper()
		out, _ := psql(t, append(slices.Clone(env), settings...), "select 'in'")
		return out
	}
	limit := func(n string) {
		t.Helper()
		if _, err := db.SQL("alter role scram connection limit " + n); err != nil {
			t.Fatal(err)
		}
	}
	scram := startup(protocol3, "user", "scram", "database", "postgres")
	for _, c := range []struct {
		name, outcome string
		do            func()
	}{
		{"probe", "probe", func() { _ = g.dial(t).Close() }},
		{"probe with TLS", "probe", func() { _ = g.secure(t).Close() }},
		{"in clear", "plaintext", func() {
			raw := g.dial(t)
			send(t, raw, scram)
			expectFatal(t, raw, "28000", "requires TLS")
			_ = raw.Close()
		}},
		{"cancel request", "forwarded", func() {
			raw := g.dial(t)
			send(t, raw, cancelRequest(1, []byte("????")))
			expectEOF(t, raw)
			_ = raw.Close()
		}},
		{"leaves when asked for the password", "client_closed", func() {
			conn := g.secure(t)
			send(t, conn, scram)
			if kind, body := readMessage(t, conn); kind != 'R' {
				t.Errorf("got %q %q", kind, body)
			}
			_ = conn.Close()
		}},
		{"3D000", "backend_refused", func() {
			if out := login("PGDATABASE=nowhere"); !strings.Contains(out, "does not exist") {
				t.Error(out)
			}
		}},
		{"53300", "backend_refused", func() {
			limit("0")
			if out := login(); !strings.Contains(out, "too many connections for role") {
				t.Error(out)
			}
			limit("-1")
		}},
	} {
		c.do()
		g.expect(t, c.outcome)
		if out := login(); out != "in" {
			t.Errorf("%s: locked out: %s", c.name, out)
		}
		g.expect(t, "client_closed")
	}
	for range 10 { // which is too many beside a success, too
		if out := login("PGPASSWORD=wrong"); !strings.Contains(out, "password authentication failed") {
			t.Error(out)
		}
		g.expect(t, "authentication_failed")
	}
	if out := login(); !strings.Contains(out, "too many failed authentications") {
		t.Error(out)
	}
	g.expect(t, "auth_backoff")
}

// An attempt that ends before PostgreSQL is asked has no result, and frees its
// place: a backend that was away for a moment locks nobody out.
func TestAttemptsWithoutABackend(t *testing.T) {
	b := newBackend(t)
	g := newGate(t, b.SocketDir, func(p *proxy.Policy) {
		p.Limits = proxy.Limits{AuthFailures: 3, AuthRefusal: time.Hour}
		p.StartupTimeout = 5 * time.Second
	})
	there := g.policy.Backend
	g.reload(func(p *proxy.Policy) { p.Backend = unixBackend(t.TempDir()) })
	for range 4 {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", "app"))
		expectFatal(t, conn, "57P03", "cannot be reached")
		_ = conn.Close()
		g.expect(t, "backend_unavailable")
	}
	g.reload(func(p *proxy.Policy) { p.Backend = there })
	_ = g.session(t, "app")
}

// limits.max_startups also holds for those that have been refused and do not close,
// and for those that wait for a slot to compute their handshake.
func TestStartupsAreBounded(t *testing.T) {
	for name, first := range map[string][]byte{
		"refused and not closed": startup(protocol3, "user", "app"),
		"handshakes":             nil,
	} {
		t.Run(name, func(t *testing.T) {
			const startups = 10
			b := newBackend(t)
			g := newGate(t, b.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{Startups: startups} })
			if first == nil {
				first = slices.Concat(sslRequest, clientHello(t, g))
			}
			most := 0
			for range 500 {
				raw := g.dial(t)
				send(t, raw, first)
				most = max(most, g.Server.Usage().Startups)
			}
			t.Logf("%d at once", most)
			if most > 2*startups { // with those that are being closed
				t.Errorf("%d connections were unproved at once, with limits.max_startups at %d", most, startups)
			}
		})
	}
}

func secureFrom(t *testing.T, g *gate, source string) net.Conn {
	t.Helper()
	raw := g.from(t, source)
	send(t, raw, sslRequest)
	expectByte(t, raw, 'S')
	return raw
}

// cloud-sql-proxy#206, cloud-sql-proxy#1805: a shutdown waits for what is under way and for
// nothing else: a session that idles is told why, one in a transaction may finish it.
func TestDrain(t *testing.T) {
	db := realPostgres(t)
	g := newGate(t, db.SocketDir)
	idle := g.secure(t)
	send(t, idle, startup(protocol3, "user", "app", "database", "postgres"))
	readReady(t, idle)
	busy := pgxTo(t, g, "app")
	exec := func(sql string) error {
		_, err := busy.Exec(t.Context(), sql)
		return err
	}
	if err := exec("begin"); err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- g.Server.Shutdown(t.Context()) }()
	expectFatal(t, idle, "57P01", "terminating connection due to administrator command")
	_ = idle.Close()
	g.expect(t, "drained")
	for i := range 3 {
		if err := exec(fmt.Sprintf("select %d", i)); err != nil {
			t.Fatalf("in the transaction: %v", err)
		}
	}
	select {
	case <-drained:
		t.Fatal("the shutdown did not wait")
	default:
	}
	if err := exec("commit"); err != nil {
		t.Fatalf("the commit: %v", err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	g.expect(t, "drained")
}

// deploy/fail2ban reads the beginning of a line: what a client can choose comes
// behind it.
func TestLogLineBegins(t *testing.T) {
	var sqlstate atomic.Value
	sqlstate.Store("28P01")
	g := newGate(t, loginBackend(t, &sqlstate).SocketDir)
	conn := g.secure(t)
	send(t, conn, startup(protocol3, "user", "app"))
	_ = fatalAfterLogin(t, conn)
	_ = conn.Close()
	line := g.expect(t, "authentication_failed")
	json := fmt.Sprintf(`,"level":"WARN","msg":"session ended","session":%q,"client":%q,"listener":%q,"outcome":"authentication_failed",`, line.get("session"), conn.LocalAddr(), g.Addr)
	text := fmt.Sprintf(` level=WARN msg="session ended" session=%v client=%v listener=%v outcome=authentication_failed `, line.get("session"), conn.LocalAddr(), g.Addr)
	if !strings.Contains(g.Log.String(), json) || !strings.HasPrefix(g.Log.String(), `{"time":"`) {
		t.Errorf("%s lacks %s", g.Log, json)
	}
	eventually(t, "the other format, too", func() bool { return strings.Contains(g.Text.String(), text) })
}
