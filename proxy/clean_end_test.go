package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/acl"
	"pgwicket/proxy"
)

// What a client may say of a session that was ended: our words, or that the
// connection was closed. Anything else would mean that it has read our words as
// a part of something.
var (
	endedWell = regexp.MustCompile(`terminating connection: pgwicket rejects host|SSL connection has been closed unexpectedly|server closed the connection unexpectedly|unexpected EOF|connection reset by peer|conn closed|closed network connection`)
	endedBad  = regexp.MustCompile(`synchronization|unexpected message|protocol error|invalid|unknown message|out of memory|bad record|insufficient data`)
)

// large are results of which a boundary is hard to hit: a COPY of a gigabyte in
// small rows, and rows of a megabyte.
var large = map[string]string{
	"COPY of 1 GiB": "copy (select repeat('x', 1000) from generate_series(1, 1048576)) to stdout",
	"wide rows":     "select repeat('y', 1048576) from generate_series(1, 1000)",
}

// cockroach#66205, cockroach#66156: an ErrorResponse in the middle of a message
// corrupts the stream. Sessions are ended at any moment of a large result, with
// libpq and pgx as clients.
func TestCleanEnd(t *testing.T) {
	t.Parallel()
	db := realPostgres(t)
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) { p.Rules = rules(t, acl.RuleOptions{Action: "allow"}) })
	env := libpq(t, g)
	inWords := 0
	for name, sql := range large {
		for _, client := range []func(*testing.T, string) (int64, error){
			func(t *testing.T, sql string) (int64, error) { return readByPsql(t, env, sql) },
			func(t *testing.T, sql string) (int64, error) { return readByPgx(t, g, sql) },
		} {
			for range 5 {
				g.reload(func(p *proxy.Policy) { p.Rules = rules(t, acl.RuleOptions{Action: "allow"}) })
				go func() {
					eventually(t, "the result is on its way", func() bool {
						all := g.Server.Snapshot()
						return len(all) == 1 && all[0].ToClient > 1<<20+rand.Int64N(32<<20)
					})
					g.reload(func(p *proxy.Policy) { p.Rules = rules(t, acl.RuleOptions{Action: "reject"}) })
				}()
				n, err := client(t, sql)
				if text := errorText(err); !endedWell.MatchString(text) || endedBad.MatchString(text) {
					t.Errorf("%s: after %d bytes: %s", name, n, text)
				} else if strings.Contains(text, "terminating connection") {
					inWords++
				}
				g.expect(t, "rule_rejected")
				eventually(t, "nobody is left in", func() bool { return g.Server.Sessions() == 0 })
			}
		}
	}
	t.Logf("%d of 20 were told in words", inWords)
	if inWords < 10 {
		t.Errorf("only %d of 20 were told in words", inWords)
	}
}

// errorText is what a client says of its end.
func errorText(err error) string {
	if err == nil {
		return "nothing: it has got everything"
	}
	return err.Error()
}

func readByPsql(t *testing.T, env []string, sql string) (int64, error) {
	t.Helper()
	cmd := program(t, env, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "FETCH_COUNT=10", "-c", sql)
	var stdout counter
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if cmd.Run() == nil {
		return stdout.Load(), nil
	}
	return stdout.Load(), errors.New(stderr.String())
}

func readByPgx(t *testing.T, g *gate, sql string) (int64, error) {
	t.Helper()
	conn := pgxTo(t, g, "app")
	defer conn.Close(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var n counter
	if strings.HasPrefix(sql, "copy") {
		_, err := conn.PgConn().CopyTo(ctx, &n, sql)
		return n.Load(), err
	}
	rows := conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil)
	for rows.NextRow() {
		n.Add(int64(len(rows.Values()[0])))
	}
	_, err := rows.Close()
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code != "57P01" {
		t.Errorf("SQLSTATE %s", pg.Code)
	}
	return n.Load(), err
}

// counter counts what is written to it.
type counter struct{ atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}
