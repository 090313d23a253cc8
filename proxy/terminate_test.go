package proxy_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/acl"
	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// encode returns messages of a client's.
func encode(t *testing.T, messages ...pgproto3.FrontendMessage) (b []byte) {
	t.Helper()
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// However the gate ends a session, the statement that its backend is busy with is cancelled at
// once. The client does not read and does not close, so that nothing else ends it.
func TestEndedStatementsAreCancelled(t *testing.T) {
	t.Parallel()
	query := encode(t, &pgproto3.Query{String: "select pg_sleep(600)"})
	shutdown := func(g *gate) {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		go func() { _ = g.Server.Shutdown(now) }()
	}
	for name, c := range map[string]struct {
		limits proxy.Limits
		sends  []byte
		end    func(*gate)
	}{
		"drain_timeout":      {sends: query, end: shutdown},
		"session_lifetime":   {sends: query, limits: proxy.Limits{SessionLifetime: 1500 * time.Millisecond}},
		"unfinished_request": {sends: encode(t, &pgproto3.Parse{Query: "select pg_sleep(600)"}, &pgproto3.Bind{}, &pgproto3.Execute{}), limits: proxy.Limits{UnfinishedTimeout: 1500 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, cancels := cancelBackend(t, func() string { return loggedIn })
			g := newGate(t, fake.SocketDir, func(p *proxy.Policy) { p.Limits = c.limits })
			conn := g.session(t, "app")
			send(t, conn, c.sends)
			eventually(t, "it is busy", func() bool {
				return slices.ContainsFunc(g.Server.Snapshot(), func(s proxy.Session) bool { return s.FromClient == int64(len(c.sends)) })
			})
			began := time.Now()
			if c.end != nil {
				c.end(g)
			}
			eventually(t, "it is cancelled", func() bool { return cancels.Load() > 0 })
			if took := time.Since(began); took > 4500*time.Millisecond { // a client that does not close has five seconds
				t.Errorf("after %v", took)
			}
			g.expect(t, name)
		})
	}
}

// A client that is over the limit of its account may have sent a statement behind its password. It is
// cancelled, and one that has sent none costs PostgreSQL no CancelRequest.
func TestStatementBehindThePassword(t *testing.T) {
	t.Parallel()
	fake, cancels := cancelBackend(t, func() string { return loggedIn })
	g := newGate(t, fake.SocketDir, func(p *proxy.Policy) { p.Limits = proxy.Limits{PerAccount: 1} })
	first := g.secure(t)
	send(t, first, startup(protocol3, "user", "app"))
	readReady(t, first)
	over := func(b []byte) {
		conn := g.secure(t)
		send(t, conn, b)
		for {
			if kind, _ := readMessage(t, conn); kind == 'E' {
				break
			}
		}
		_ = conn.Close()
		g.expect(t, "account_limit")
	}
	over(startup(protocol3, "user", "app"))
	if n := cancels.Load(); n != 0 {
		t.Errorf("%d CancelRequests for a client that has asked for nothing", n)
	}
	over(append(startup(protocol3, "user", "app"), encode(t, &pgproto3.Query{String: "select pg_sleep(600)"})...))
	eventually(t, "it is cancelled", func() bool { return cancels.Load() > 0 })
}

// A client may close its side when it has sent a statement. If it is terminated then, the statement is cancelled,
// also where the backend becomes ready, and can be cancelled, only after that.
func TestStatementOfClientThatHasClosed(t *testing.T) {
	t.Parallel()
	for range 6 { // the relay may hear of the backend first
		t.Run("", func(t *testing.T) {
			t.Parallel()
			terminateAfterEnd(t)
		})
	}
}

func terminateAfterEnd(t *testing.T) {
	t.Helper()
	part := loggedIn[:len(loggedIn)-3] // without the end of the ReadyForQuery
	asked, terminated, end, cancelled := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{}, 100)
	fake, err := pgtest.StartFake(func(conn net.Conn) {
		b := make([]byte, 1024)
		if n, _ := conn.Read(b); n == 16 {
			cancelled <- struct{}{}
			return
		}
		_, _ = conn.Write([]byte(part))
		_, _ = io.Copy(io.Discard, conn)
		close(asked)
		<-terminated
		_, _ = conn.Write([]byte(loggedIn[len(part):]))
		<-end // PostgreSQL does not notice that its client has gone while it works
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	t.Cleanup(func() { close(end) })
	g := newGate(t, fake.SocketDir)
	conn := g.secure(t)
	send(t, conn, append(startup(protocol3, "user", "app"), encode(t, &pgproto3.Query{String: "select pg_sleep(600)"})...))
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-asked
	eventually(t, "the login has begun", func() bool {
		return slices.ContainsFunc(g.Server.Snapshot(), func(s proxy.Session) bool { return s.ToClient == int64(len(part)) })
	})
	if n := g.Server.Terminate(func(*acl.Request) bool { return true }, "test"); n != 1 {
		t.Fatalf("%d sessions are terminated", n)
	}
	close(terminated)
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Error("its statement is not cancelled")
	}
}

// busyBackend is a fake PostgreSQL with sessions that are busy until they are cancelled.
type busyBackend struct {
	*pgtest.Fake
	t        *testing.T
	cancels  atomic.Int64
	mu       sync.Mutex
	sessions []net.Conn // by backend PID
}

func newBusyBackend(t *testing.T) *busyBackend {
	t.Helper()
	b := &busyBackend{t: t}
	var err error
	if b.Fake, err = pgtest.StartFake(b.serve); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

func (b *busyBackend) serve(conn net.Conn) {
	packet := make([]byte, 1024)
	if n, _ := conn.Read(packet); n == 16 { // a CancelRequest, with the PID behind its length and its code
		b.mu.Lock()
		defer b.mu.Unlock()
		cancelled := &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "57014", Message: "canceling statement due to user request"}
		_, _ = b.sessions[binary.BigEndian.Uint32(packet[8:])].Write(said(b.t, cancelled, &pgproto3.ReadyForQuery{TxStatus: 'I'}))
		b.cancels.Add(1)
		return
	}
	b.mu.Lock()
	pid := len(b.sessions)
	b.sessions = append(b.sessions, conn)
	b.mu.Unlock()
	_, _ = conn.Write(said(b.t, &pgproto3.AuthenticationOk{}, &pgproto3.BackendKeyData{ProcessID: uint32(pid), SecretKey: []byte("key!")}, &pgproto3.ReadyForQuery{TxStatus: 'I'}))
	_, _ = io.Copy(io.Discard, conn)
}

// said returns messages of a backend's.
func said(t *testing.T, messages ...pgproto3.BackendMessage) (b []byte) {
	t.Helper()
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			t.Error(err)
		}
	}
	return b
}

// The client of a session that the gate ends gets the FATAL error alone, as after
// pg_terminate_backend, and no ERROR of the statement that the gate cancels, however busy the relay
// is at that moment.
func TestCancellationIsNotHeard(t *testing.T) {
	t.Parallel()
	b := newBusyBackend(t)
	g := newGate(t, b.SocketDir)
	const clients = 8
	var conns []net.Conn
	for range clients {
		conn := g.session(t, "app")
		send(t, conn, encode(t, &pgproto3.Query{String: "select busy"}))
		conns = append(conns, conn)
	}
	blocked, release := make(chan struct{}), make(chan struct{})
	g.Log.mu.Lock()
	g.Log.see = func(line string) { // the relay itself writes this line
		if strings.Contains(line, "session began") && strings.Contains(line, "other") {
			close(blocked)
			<-release
		}
	}
	g.Log.mu.Unlock()
	send(t, g.secure(t), startup(protocol3, "user", "other"))
	<-blocked
	// The relay has something to read of each backend before it is told to end the sessions.
	row := said(t, &pgproto3.DataRow{Values: [][]byte{[]byte("a row")}})
	b.mu.Lock()
	for _, conn := range b.sessions[:clients] {
		_, _ = conn.Write(row)
	}
	b.mu.Unlock()
	go g.Server.Terminate(func(q *acl.Request) bool { return q.User == "app" }, "test") // it waits for the session that begins, too
	for deadline := time.Now().Add(200 * time.Millisecond); b.cancels.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // if a cancel does not wait for the relay, it comes now
	}
	close(release)
	for _, conn := range conns {
		if kind, body := readMessage(t, conn); kind != 'D' {
			t.Fatalf("got %q %q, want the row", kind, body)
		}
		expectFatal(t, conn, "57P01", "terminating connection due to administrator command")
		_ = conn.Close()
	}
}
