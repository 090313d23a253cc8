package proxy_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/acl"
	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

// A client chooses how long its login takes (post_auth_delay), and may send a statement behind its startup packet. If
// its session is terminated meanwhile, PostgreSQL must not run the statement when the delay is over: there was no key
// yet to cancel it with, and after an orderly end PostgreSQL would only notice that nobody listens when it is done.
func TestStatementBeforeTheLoginIsOver(t *testing.T) {
	t.Parallel()
	db, err := pgtest.Start(context.Background(), pgtest.Options{
		Host: "127.0.0.1",
		HBA:  "local all all trust\nhost all all 127.0.0.1/32 trust",
		SQL:  "create role app login; create database app owner app",
	})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(db.Stop)
	for name, c := range map[string]struct {
		host proxy.Host
		ends bool
	}{
		"over_unix":     {proxy.Host{Network: "unix", Address: db.SocketDir + "/.s.PGSQL." + strconv.Itoa(db.Port)}, true},
		"over_tcp":      {proxy.Host{Network: "tcp", Address: "127.0.0.1:" + strconv.Itoa(db.Port)}, true},
		"left_in_peace": {proxy.Host{Network: "tcp", Address: "127.0.0.1:" + strconv.Itoa(db.Port)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
				p.Backend = &proxy.Backend{Hosts: []proxy.Host{c.host}, ConnectTimeout: 5 * time.Second}
				p.AuthenticationTimeout = time.Minute
			})
			statement := encode(t, &pgproto3.Query{String: "create table " + name + "()"})
			conn := g.secure(t)
			send(t, conn, append(startup(protocol3, "user", "app", "options", "-c post_auth_delay=3"), statement...))
			eventually(t, "the statement was forwarded", func() bool {
				return slices.ContainsFunc(g.Server.Snapshot(), func(s proxy.Session) bool { return s.FromClient == int64(len(statement)) })
			})
			want := "1"
			if c.ends {
				if n := g.Server.Terminate(func(*acl.Request) bool { return true }, "test"); n != 1 {
					t.Fatalf("%d sessions were terminated", n)
				}
				want = "0"
			}
			time.Sleep(5 * time.Second) // the delay; no view of PostgreSQL shows that it is over
			if got, err := db.SQL("\\connect app\nselect count(*) from pg_class where relname = '" + name + "'"); err != nil || got != want {
				t.Errorf("%s tables were made, want %s (%v)", got, want, err)
			}
		})
	}
}
