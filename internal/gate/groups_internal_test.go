package gate

import (
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/config"
	"pgwicket/internal/backend"
	"pgwicket/internal/lock"
	"pgwicket/internal/pgtest"
	"pgwicket/metrics"
	"pgwicket/proxy"
)

// groupServer is a server that has one answer to each look-up.
func groupServer(t *testing.T, members func(user string) (names []string, ok bool)) *proxy.Backend {
	t.Helper()
	f, err := pgtest.StartFake(func(conn net.Conn) {
		b := pgproto3.NewBackend(conn, conn)
		startup, err := b.ReceiveStartupMessage()
		if err != nil {
			return
		}
		names, ok := members(startup.(*pgproto3.StartupMessage).Parameters["user"]) //nolint:forcetypeassert // the look-up asks for no TLS
		if !ok {
			return
		}
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		for message, err := b.Receive(); err == nil; message, err = b.Receive() {
			if _, last := message.(*pgproto3.Sync); !last {
				continue
			}
			b.Send(&pgproto3.ParseComplete{})
			b.Send(&pgproto3.BindComplete{})
			b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("role")}, {Name: []byte("member")}}})
			for _, name := range names {
				b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("staff"), []byte(name)}})
			}
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT")})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			if b.Flush() != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return &proxy.Backend{Hosts: []backend.Host{{Network: "unix", Address: f.SocketDir + "/.s.PGSQL.5432"}}, ConnectTimeout: 5 * time.Second}
}

// A reload waits for another backend. What the look-ups before it have read of the first one must not
// be undone by it, though its own look-up fails.
func TestReloadKeepsRevoke(t *testing.T) {
	t.Parallel()
	var revoked atomic.Bool
	g := &Gate{Options: Options{Log: slog.New(slog.DiscardHandler), Metrics: metrics.New("test"), Now: time.Now}}
	isMember := func() bool {
		g.locks.mu.Lock()
		defer g.locks.mu.Unlock()
		return g.knownGroups()[""].Has("staff", "alice")
	}
	first := groupServer(t, func(user string) ([]string, bool) {
		if user != "before" {
			return nil, false
		}
		if revoked.Load() {
			return []string{"staff"}, true
		}
		return []string{"staff", "alice"}, true
	})
	var ended atomic.Bool // in the reload
	second := groupServer(t, func(string) ([]string, bool) {
		for end := time.Now().Add(time.Second); !ended.Load() && time.Now().Before(end); time.Sleep(time.Millisecond) {
			ended.Store(!isMember())
		}
		return nil, false
	})
	configuration := func(user string, more ...config.GroupLookup) *config.Config {
		one := config.GroupLookup{User: user, Database: "postgres", Refresh: 20 * time.Millisecond, MaxAge: time.Minute, Roles: []string{"staff"}}
		return &config.Config{
			Policy: &proxy.Policy{Backend: first, Backends: map[string]*proxy.Backend{"second": second}},
			Groups: append([]config.GroupLookup{one}, more...),
		}
	}
	table, err := lock.Open("")
	if err != nil {
		t.Fatal(err)
	}
	g.locks.table = table
	before := configuration("before")
	if g.server, err = proxy.New(proxy.Options{Policy: before.Policy, Log: g.Log, Refusals: g.Log, Metrics: g.Metrics}); err != nil {
		t.Fatal(err)
	}
	g.setPolicy(before)
	defer g.stopGroups()
	if !isMember() {
		t.Fatal("alice is no member")
	}
	revoked.Store(true)
	g.setPolicy(configuration("after", config.GroupLookup{Backend: "second", User: "x", Database: "postgres", Refresh: time.Minute, MaxAge: time.Hour, Roles: []string{"staff"}}))
	if ended.Load() && isMember() {
		t.Error("alice is a member again")
	}
}
