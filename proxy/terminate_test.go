package proxy_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

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
