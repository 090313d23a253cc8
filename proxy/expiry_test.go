package proxy_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/acl"
	"pgwicket/proxy"
)

// left waits until the gate has ended a session in words.
func left(t *testing.T, conn *pgconn.PgConn, sqlstate, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := conn.WaitForNotification(ctx)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != sqlstate || !strings.Contains(pg.Message, words) {
		t.Errorf("the session ended with %v, want %s %s", err, sqlstate, words)
	}
}

// speak sends messages and reads until the backend is ready so many times.
func speak(t *testing.T, conn *pgconn.PgConn, ready int, messages ...pgproto3.FrontendMessage) {
	t.Helper()
	for _, m := range messages {
		conn.Frontend().Send(m)
	}
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	for ready > 0 {
		m, err := conn.Frontend().Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.ReadyForQuery:
			ready--
		case *pgproto3.CopyInResponse:
			return
		case *pgproto3.ErrorResponse:
			if m.Severity == "FATAL" {
				t.Fatalf("%s %s", m.Code, m.Message)
			}
		}
	}
}

// Whatever a client has done, it is idle once it has been answered, and its
// session is ended then; what runs, however long and silently, is not idle. The
// client hears why (teleport#20557: it does not; teleport#32073: only one direction
// counts).
func TestIdleTimeout(t *testing.T) {
	db := realPostgres(t)
	const timeout = 400 * time.Millisecond
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) { p.Limits.IdleTimeout = timeout })
	query := func(sql string) pgproto3.FrontendMessage { return &pgproto3.Query{String: sql} }
	extended := func(sql string, end ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage {
		return append([]pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}}, end...)
	}
	const long = "select pg_sleep(1.2)" // three times the timeout
	for name, do := range map[string]func(*pgconn.PgConn){
		"nothing":            func(*pgconn.PgConn) {},
		"a query":            func(c *pgconn.PgConn) { speak(t, c, 1, query("select 1")) },
		"a long query":       func(c *pgconn.PgConn) { speak(t, c, 1, query(long)) },
		"a pipeline":         func(c *pgconn.PgConn) { speak(t, c, 3, query("select 1"), query(long), query(long)) },
		"a long extended":    func(c *pgconn.PgConn) { speak(t, c, 1, extended(long, &pgproto3.Sync{})...) },
		"an extended error":  func(c *pgconn.PgConn) { speak(t, c, 1, extended("select 1/0", &pgproto3.Sync{})...) },
		"in a transaction":   func(c *pgconn.PgConn) { speak(t, c, 1, query("begin")) },
		"a broken COPY":      func(c *pgconn.PgConn) { speak(t, c, 1, query("copy nothing_of_the_kind from stdin")) },
		"an unwatched flush": func(c *pgconn.PgConn) { speak(t, c, 1, extended(long, &pgproto3.Flush{}, &pgproto3.Sync{})...) },
		"COPY in": func(c *pgconn.PgConn) {
			speak(t, c, 1, query("create temp table t (a int)"))
			speak(t, c, 1, query("copy t from stdin"))
			time.Sleep(3 * timeout) // PostgreSQL waits for the client, which is no idleness
			speak(t, c, 1, &pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{})
		},
		"COPY in, as libpq has it with parameters": func(c *pgconn.PgConn) {
			speak(t, c, 1, query("create temp table t (a int)"))
			speak(t, c, 1, extended("copy t from stdin", &pgproto3.Sync{})...)
			speak(t, c, 1, &pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
		},
		"COPY in with an error": func(c *pgconn.PgConn) {
			speak(t, c, 1, query("create temp table t (a int)"))
			speak(t, c, 1, query("copy t from stdin"))
			speak(t, c, 1, &pgproto3.CopyData{Data: []byte("x\n")}, &pgproto3.CopyDone{})
		},
		"COPY in, extended, with an error": func(c *pgconn.PgConn) {
			speak(t, c, 1, query("create temp table t (a int)"))
			speak(t, c, 1, extended("copy t from stdin", &pgproto3.Sync{})...)
			speak(t, c, 1, &pgproto3.CopyData{Data: []byte("x\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := pgxTo(t, g, "app").PgConn()
			do(conn)
			began := time.Now()
			left(t, conn, "57P05", "terminating connection: it has been idle for the idle_timeout of 400ms")
			if d := time.Since(began); d < timeout/2 { // what was read last may have come before
				t.Errorf("after %v", d)
			}
			g.expect(t, "idle_timeout")
		})
	}
}

// A client that does not finish a request keeps no session: what PostgreSQL calls
// active is ended by the unfinished_request_timeout, and the rest is idle. Each of these
// kept its session for ever when idle was inferred from one side.
func TestUnfinishedRequest(t *testing.T) {
	db := realPostgres(t)
	const timeout = 400 * time.Millisecond
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
		p.Limits.IdleTimeout, p.Limits.UnfinishedTimeout = timeout, timeout
	})
	query := func(sql string) pgproto3.FrontendMessage { return &pgproto3.Query{String: sql} }
	for name, c := range map[string]struct {
		outcome string
		do      func(*pgconn.PgConn)
	}{
		"half a header": {"idle_timeout", func(c *pgconn.PgConn) { _, _ = c.Conn().Write([]byte("Q\x00\x00")) }},
		"half a query":  {"idle_timeout", func(c *pgconn.PgConn) { _, _ = c.Conn().Write([]byte("Q\x00\x00\x00\x50select")) }},
		"Parse without Sync": {"unfinished_request", func(c *pgconn.PgConn) {
			speak(t, c, 0, &pgproto3.Parse{Query: "select 1"})
		}},
		"Parse and Flush without Sync": {"unfinished_request", func(c *pgconn.PgConn) {
			speak(t, c, 0, &pgproto3.Parse{Query: "select 1"}, &pgproto3.Flush{})
		}},
		"an error without Sync": {"unfinished_request", func(c *pgconn.PgConn) {
			speak(t, c, 0, &pgproto3.Parse{Query: "select nonsense"}, &pgproto3.Flush{})
		}},
		"Query and Flush": {"idle_timeout", func(c *pgconn.PgConn) { speak(t, c, 1, query("select 1"), &pgproto3.Flush{}) }},
		"Sync inside of COPY": {"unfinished_request", func(c *pgconn.PgConn) {
			speak(t, c, 1, query("create temp table t (a int)"))
			speak(t, c, 1, query("copy t from stdin"))
			speak(t, c, 0, &pgproto3.Sync{})
		}},
		"Sync inside of COPY, which then ends": {"idle_timeout", func(c *pgconn.PgConn) {
			speak(t, c, 1, query("create temp table t (a int)"))
			speak(t, c, 1, query("copy t from stdin"))
			speak(t, c, 1, &pgproto3.Sync{}, &pgproto3.CopyDone{})
		}},
		"a COPY that sends data now and then": {"idle_timeout", func(c *pgconn.PgConn) {
			speak(t, c, 1, query("create temp table t (a int)"))
			speak(t, c, 1, query("copy t from stdin"))
			for range 12 {
				time.Sleep(timeout / 4)
				speak(t, c, 0, &pgproto3.CopyData{Data: []byte("1\n")})
			}
			speak(t, c, 1, &pgproto3.CopyDone{})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := pgxTo(t, g, "app").PgConn()
			c.do(conn)
			var pg *pgconn.PgError
			for m, err := conn.Frontend().Receive(); pg == nil; m, err = conn.Frontend().Receive() {
				if err != nil {
					t.Fatal(err)
				}
				if e, ok := m.(*pgproto3.ErrorResponse); ok && e.Severity == "FATAL" {
					pg = pgconn.ErrorResponseToPgError(e)
				}
			}
			if pg.Code != "57P05" || !strings.Contains(pg.Message, c.outcome) {
				t.Errorf("the session ended with %v", pg)
			}
			g.check(t, g.outcomeOf(t, conn.Conn().LocalAddr()), c.outcome)
		})
	}
}

// A query that runs is never taken for idle because of a message that PostgreSQL
// ignores: CopyDone outside of a COPY, behind two queries.
func TestCopyDoneHidesNoQuery(t *testing.T) {
	db := realPostgres(t)
	const timeout = 300 * time.Millisecond
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
		p.Limits.IdleTimeout, p.Limits.UnfinishedTimeout = timeout, timeout
	})
	conn := pgxTo(t, g, "app").PgConn()
	speak(t, conn, 2, &pgproto3.Query{String: "select 1"}, &pgproto3.Query{String: "select pg_sleep(1.2)"}, &pgproto3.CopyDone{})
	_ = conn.Conn().Close()
	g.expect(t, "client_closed")
}

// Bytes that only go one way keep a session, whichever way that is.
func TestIdleTimeoutCountsBothDirections(t *testing.T) {
	db := realPostgres(t)
	g := newGate(t, db.SocketDir)
	listens, asks := pgxTo(t, g, "app").PgConn(), pgxTo(t, g, "app").PgConn()
	speak(t, listens, 1, &pgproto3.Query{String: "listen news"})
	const timeout = 3 * time.Second
	g.reload(func(p *proxy.Policy) { p.Limits.IdleTimeout = timeout })
	for began := time.Now(); time.Since(began) < 2*timeout; {
		speak(t, asks, 1, &pgproto3.Query{String: "notify news"})
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := listens.WaitForNotification(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(timeout / 30)
	}
	g.reload(func(p *proxy.Policy) { p.Limits.IdleTimeout = 100 * time.Millisecond })
	left(t, listens, "57P05", "idle_timeout of 100ms")
	left(t, asks, "57P05", "idle_timeout of 100ms")
}

// A session that is too old ends outside of a transaction, or, when that does
// not come, a little later in any case, with what it still runs.
func TestSessionLifetime(t *testing.T) {
	db := realPostgres(t)
	g := newGate(t, db.SocketDir)
	began := time.Now()
	open, busy, idle := pgxTo(t, g, "app").PgConn(), pgxTo(t, g, "app").PgConn(), pgxTo(t, g, "app").PgConn()
	speak(t, open, 1, &pgproto3.Query{String: "begin"})
	speak(t, busy, 0, &pgproto3.Query{String: "select pg_sleep(600)"})
	running := func() string {
		out, err := db.SQL("select count(*) from pg_stat_activity where application_name = '" + t.Name() + "' and query like '%pg_sleep%'")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	eventually(t, "the query runs", func() bool { return running() == "1" })
	g.reload(func(p *proxy.Policy) { p.Limits.SessionLifetime = time.Hour })
	speak(t, idle, 1, &pgproto3.Query{String: "select 'young enough'"})

	const lifetime = 4 * time.Second
	g.reload(func(p *proxy.Policy) { p.Limits.SessionLifetime = lifetime })
	for _, c := range []struct {
		conn     *pgconn.PgConn
		lifetime time.Duration
	}{{idle, lifetime}, {open, lifetime + lifetime/8}, {busy, lifetime + lifetime/8}} {
		left(t, c.conn, "57P01", "session_lifetime of 4s")
		g.expect(t, "session_lifetime")
		if d := time.Since(began); d < c.lifetime {
			t.Errorf("after %v, want %v", d, c.lifetime)
		}
	}
	eventually(t, "the query has been cancelled", func() bool { return running() == "0" })
}

// A rule has its own idle_timeout, for the tools that wait for hours, and a transaction
// another than the rest (pgbackrest/pgbackrest#2789).
func TestIdleTimeoutOfARule(t *testing.T) {
	t.Parallel()
	db := realPostgres(t)
	const timeout = 300 * time.Millisecond
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) {
		p.Limits.IdleTimeout, p.Limits.IdleInTransaction = time.Hour, timeout
		p.Rules = rules(t, acl.RuleOptions{Action: "allow", Users: []string{"scram"}, IdleTimeout: "0s"}, acl.RuleOptions{Action: "allow", Users: []string{"app"}})
	})
	app, backup := pgxTo(t, g, "app").PgConn(), pgxTo(t, g, "scram").PgConn()
	speak(t, backup, 1, &pgproto3.Query{String: "begin"})
	speak(t, app, 1, &pgproto3.Query{String: "begin"})
	left(t, app, "57P05", "idle in a transaction for the idle_in_transaction_timeout of 300ms")
	g.expect(t, "idle_timeout")
	time.Sleep(timeout) // and more: it has waited as long as the other
	speak(t, backup, 1, &pgproto3.Query{String: "commit"})
	before := g.metric(t, "pgwicket_rechecks_total")
	g.reload(func(p *proxy.Policy) {
		p.Rules = rules(t, acl.RuleOptions{Action: "allow", Users: []string{"scram"}, IdleTimeout: "100ms"})
	})
	g.rechecked(t, before)
	left(t, backup, "57P05", "idle_timeout of 100ms")
	g.expect(t, "idle_timeout")
}
