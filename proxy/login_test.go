package proxy_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// What the backend says before it is ready is the outcome of the login, with
// PostgreSQL's own SQLSTATE.
func TestLoginOutcome(t *testing.T) {
	s := realPostgres(t)
	g := newGate(t, s.SocketDir)
	for _, c := range []struct{ user, database, outcome, sqlstate string }{
		{"app", "postgres", "client_closed", ""},
		{"nobody_knows", "postgres", "authentication_failed", "28000"},
		{"app", "no_such_database", "backend_refused", "3D000"},
	} {
		conn := g.secure(t)
		send(t, conn, startup(protocol3, "user", c.user, "database", c.database))
		if c.sqlstate == "" {
			readReady(t, conn)
			send(t, conn, []byte("X\x00\x00\x00\x04"))
		} else if e := fatalAfterLogin(t, conn); e != c.sqlstate {
			t.Errorf("%s in %s: the client is told %s, want %s", c.user, c.database, e, c.sqlstate)
		}
		expectEOF(t, conn)
		_ = conn.Close()
		line := g.expect(t, c.outcome)
		if got := line.get("sqlstate"); got != c.sqlstate {
			t.Errorf("%s in %s: sqlstate %q, want %q", c.user, c.database, got, c.sqlstate)
		}
		if pid, ok := line["backend_pid"].(float64); ok != (c.sqlstate == "") || ok && pid <= 1 {
			t.Errorf("%s in %s: backend_pid %v", c.user, c.database, line["backend_pid"])
		}
	}
}

// cockroach#108343: what is no failure of authentication is not
// called one, whatever else a backend turns a login away for; and a client that
// leaves as soon as it has read the answer does not hide it.
func TestLoginOutcomeBySQLSTATE(t *testing.T) {
	for sqlstate, outcome := range map[string]string{
		"28P01": "authentication_failed", "28000": "authentication_failed",
		"53300": "backend_refused", "57P03": "backend_refused", "3D000": "backend_refused", "42501": "backend_refused", "XX000": "backend_refused",
	} {
		for _, hasty := range []bool{true, false} {
			left := make(chan struct{})
			fake, err := pgtest.StartFake(func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 1024))
				body := "SFATAL\x00VFATAL\x00C" + sqlstate + "\x00Mno\x00\x00"
				_, _ = conn.Write(append([]byte{'E', 0, 0, 0, byte(4 + len(body))}, body...))
				if hasty {
					<-left
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(fake.Stop)
			g := newGate(t, fake.SocketDir)
			conn := g.secure(t)
			send(t, conn, startup(protocol3, "user", "app"))
			if e := fatalAfterLogin(t, conn); e != sqlstate {
				t.Errorf("the client is told %s, want %s", e, sqlstate)
			}
			_ = conn.Close()
			if hasty {
				eventually(t, "the gate knows that the client has left", func() bool { return g.Server.Sessions() == 0 || waited(left) })
			}
			g.expect(t, outcome)
		}
	}
}

// waited lets the backend go after all, some time later than the client.
func waited(left chan struct{}) bool {
	time.Sleep(5 * time.Millisecond)
	close(left)
	return true
}

// fatalAfterLogin reads messages up to the ErrorResponse and returns its
// SQLSTATE.
func fatalAfterLogin(t *testing.T, r io.Reader) string {
	t.Helper()
	for {
		kind, body := readMessage(t, r)
		if kind == 'E' {
			for field := range bytes.SplitSeq(body, []byte{0}) {
				if len(field) == 6 && field[0] == 'C' {
					return string(field[1:])
				}
			}
			return "none"
		}
	}
}

// A backend that never gets ready keeps its client for no longer than the
// authentication may take, and the client is told; one that is ready, for as long as both like. A stream that
// is no protocol at all is relayed as it is.
func TestLoginTimeout(t *testing.T) {
	quick := func(p *proxy.Policy) { p.StartupTimeout = 500 * time.Millisecond }
	silent := rawBackend(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	g := newGate(t, silent.SocketDir, quick)
	conn := g.secure(t)
	send(t, conn, alice)
	expectFatal(t, conn, "57P03", "the database does not answer")
	_ = conn.Close()
	if line := g.expect(t, "login_timeout"); !strings.HasPrefix(line.get("reason"), "PostgreSQL has taken the connection and sent nothing: ") {
		t.Errorf("the reason is %q", line.get("reason"))
	}

	// A client that thinks about its password is another case.
	asks := rawBackend(t, func(c net.Conn) {
		_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x03"))
		_, _ = io.Copy(io.Discard, c)
	})
	g = newGate(t, asks.SocketDir, quick)
	conn = g.secure(t)
	send(t, conn, alice)
	if _, err := io.ReadFull(conn, make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	expectFatal(t, conn, "57014", "canceling authentication due to timeout")
	_ = conn.Close()
	if line := g.expect(t, "login_timeout"); !strings.HasPrefix(line.get("reason"), "the authentication was not over in time") {
		t.Errorf("the reason is %q", line.get("reason"))
	}
	if g.metric(t, "pgwicket_backend_last_failure_timestamp_seconds") != 0 {
		t.Error("a slow client counts as a failure of PostgreSQL")
	}

	// In the middle of a message there is no place for words.
	halfway := rawBackend(t, func(c net.Conn) {
		_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00"))
		_, _ = io.Copy(io.Discard, c)
	})
	g = newGate(t, halfway.SocketDir, quick)
	conn = g.secure(t)
	send(t, conn, alice)
	if rest, _ := io.ReadAll(conn); len(rest) != 6 {
		t.Errorf("the client read %q", rest)
	}
	g.expect(t, "login_timeout")

	// An authentication may take longer than the startup.
	answers := make(chan struct{})
	slow := rawBackend(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1024))
		<-answers
		_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"))
		_, _ = io.Copy(io.Discard, c)
	})
	g = newGate(t, slow.SocketDir, quick, func(p *proxy.Policy) { p.AuthenticationTimeout = patience })
	conn = g.secure(t)
	send(t, conn, alice)
	time.AfterFunc(600*time.Millisecond, func() { close(answers) })
	readReady(t, conn)
	_ = conn.Close()
	g.expect(t, "client_closed")

	strange := rawBackend(t, func(c net.Conn) {
		_, _ = c.Write([]byte("\x00\xff\xff\xff\xff this is no message"))
		_, _ = io.Copy(c, c)
	})
	g = newGate(t, strange.SocketDir, quick)
	conn = g.secure(t)
	send(t, conn, alice)
	if _, err := io.ReadFull(conn, make([]byte, 24+len(alice))); err != nil {
		t.Fatal(err)
	}
	time.Sleep(600 * time.Millisecond) // past the deadline, which is lifted
	send(t, conn, []byte("still there"))
	if got := make([]byte, 11); true {
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "still there" {
			t.Errorf("the client read %q, %v", got, err)
		}
	}
	_ = conn.Close()
	g.expect(t, "client_closed")
}

// oauthBackend speaks as PostgreSQL 18 does where pg_hba.conf asks for OAuth
// (src/backend/libpq/auth-oauth.c), with a validator that takes no token. The server
// that the tests run cannot load one.
func oauthBackend(t *testing.T) *pgtest.Fake {
	const provider = `{ "status": "invalid_token", "openid-configuration": "https://login.example/.well-known/openid-configuration", "scope": "openid" }`
	return rawBackend(t, func(c net.Conn) {
		b := pgproto3.NewBackend(c, c)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		b.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER"}})
		if b.Flush() != nil || b.SetAuthType(pgproto3.AuthTypeSASL) != nil {
			return
		}
		if _, err := b.Receive(); err != nil {
			return
		}
		b.Send(&pgproto3.AuthenticationSASLContinue{Data: []byte(provider)})
		if b.Flush() != nil || b.SetAuthType(pgproto3.AuthTypeSASLContinue) != nil {
			return
		}
		if _, err := b.Receive(); err != nil {
			return
		}
		b.Send(&pgproto3.ErrorResponse{
			Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "28000",
			Message: `OAuth bearer authentication failed for user "app"`, File: "auth.c", Line: 319, Routine: "auth_failed",
		})
		_ = b.Flush()
	})
}

// A client of OAuth asks first for the provider, without a token, and PostgreSQL 18 ends
// that with 28000 (npgsql/npgsql#6156). It has guessed nothing, so it neither counts
// nor waits. A token that is refused does.
func TestOAuthDiscoveryIsNoGuess(t *testing.T) {
	fake := oauthBackend(t)
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{AuthFailures: 3, AuthRefusal: time.Hour} })
	try := func(response string) string {
		t.Helper()
		conn := g.secure(t)
		defer conn.Close()
		send(t, conn, startup(protocol3, "user", "app"))
		if kind, _ := readMessage(t, conn); kind != 'R' {
			return fatalAfterLogin(t, conn)
		}
		first, err := (&pgproto3.SASLInitialResponse{AuthMechanism: "OAUTHBEARER", Data: []byte(response)}).Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		send(t, conn, first)
		if kind, _ := readMessage(t, conn); kind != 'R' {
			t.Errorf("got %q", kind)
		}
		send(t, conn, []byte("p\x00\x00\x00\x05\x01"))
		return fatalAfterLogin(t, conn)
	}
	const discovery = "n,,\x01auth=\x01\x01" // as libpq sends it
	for range 16 {
		if code := try(discovery); code != "28000" {
			t.Errorf("the client is told %s", code)
		}
		if line := g.expect(t, "oauth_discovery"); line.get("level") != "INFO" || line.get("sqlstate") != "28000" {
			t.Errorf("the log says %v", line)
		}
	}
	for _, guess := range []string{"n,,\x01auth=Bearer guess\x01\x01", "n,,\x01host=auth=\x01auth=Bearer guess\x01\x01", "n,,\x01\x01"} {
		try(guess)
		g.expect(t, "authentication_failed")
	}
	conn := g.secure(t)
	send(t, conn, startup(protocol3, "user", "app"))
	expectFatal(t, conn, "28000", "too many failed authentications; try again later")
	_ = conn.Close()
	g.expect(t, "auth_backoff")
}

// rawBackend is a backend that does not even log its clients in.
func rawBackend(t *testing.T, script func(net.Conn)) *pgtest.Fake {
	t.Helper()
	f, err := pgtest.StartFake(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f
}

// Sessions come and go by the hundred while others talk: no event of one that
// has gone may reach its successor in the same place, and no byte of one session
// another one.
func TestSessionsComeAndGo(t *testing.T) {
	f := fakeBackend(t, echo)
	g := newGate(t, f.SocketDir)
	var stay sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		c := session(t, g)
		stay.Go(func() { talkUntil(t, c, uint64(i), stop) })
	}
	var come sync.WaitGroup
	for i := range 8 {
		come.Go(func() {
			for j := range 30 {
				c := session(t, g)
				rnd := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				if !exchange(c, rnd, 1+rnd.IntN(100_000)) {
					t.Errorf("session %d.%d got other bytes than its own", i, j)
				}
				if rnd.IntN(2) == 0 {
					reset(c)
				} else {
					_ = c.Close()
				}
			}
		})
	}
	come.Wait()
	close(stop)
	stay.Wait()
}

func talkUntil(t *testing.T, c *tls.Conn, seed uint64, stop <-chan struct{}) {
	rnd := rand.New(rand.NewPCG(seed, 99))
	for {
		select {
		case <-stop:
			_ = c.Close()
			return
		default:
			_ = c.SetDeadline(time.Now().Add(patience)) // the one before was for the log-in
			if !exchange(c, rnd, 1+rnd.IntN(300_000)) {
				t.Errorf("session %d got other bytes than its own", seed)
				return
			}
		}
	}
}

// exchange sends n random bytes and reports whether they come back.
func exchange(c *tls.Conn, rnd *rand.Rand, n int) bool {
	sent, got := make([]byte, n), make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}).Read(sent)
	go func() { _, _ = c.Write(sent) }()
	_, err := io.ReadFull(c, got)
	return err == nil && bytes.Equal(sent, got)
}
