// Command pq is lib/pq as a client.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
	"interop/answer"
)

// with opens a connection for as long as f uses it.
func with(more string, f func(context.Context, *sql.Conn) (string, error)) answer.Feature {
	return func(ctx context.Context) (string, error) {
		connector, err := pq.NewConnector(answer.DSN(more))
		if err != nil {
			return "", err
		}
		db := sql.OpenDB(connector)
		defer db.Close()
		c, err := db.Conn(ctx)
		if err != nil {
			return "", err
		}
		defer c.Close()
		return f(ctx, c)
	}
}

func one(ctx context.Context, c *sql.Conn, query string, args ...any) (s string, err error) {
	err = c.QueryRowContext(ctx, query, args...).Scan(&s)
	return s, err
}

func ask(query string, args ...any) func(context.Context, *sql.Conn) (string, error) {
	return func(ctx context.Context, c *sql.Conn) (string, error) { return one(ctx, c, query, args...) }
}

func features() map[string]answer.Feature {
	whoami := ask("select current_user")
	all := map[string]answer.Feature{
		"sslrequest":      with("", whoami),
		"direct":          with("sslnegotiation=direct", whoami),
		"gssencmode":      answer.Lacks("lib/pq has no GSS encryption"),
		"scram":           with("", whoami),
		"channel-binding": answer.Lacks("lib/pq has no channel binding"),
		"md5":             with("user=md5_user", whoami),
		"clear":           with("user=clear_user", whoami),
		"cert":            with(answer.Certificate(), whoami),
		"simple":          with("", ask("select 7")),
		"extended":        with("binary_parameters=yes", ask("select $1::text", "7")),
		"prepared":        with("", prepared),
		"pipeline":        answer.Lacks("lib/pq sends one query at a time"),
		"copy-in":         with("", copyIn),
		"copy-out":        answer.Lacks("lib/pq has no COPY TO"),
		"notify":          notified,
		"lo":              with("", largeObject),
		"large":           with("", large),
		"cancel":          with("", cancelled),
		"protocol-3.0":    with("min_protocol_version=3.0 max_protocol_version=3.0", whoami),
		"protocol-3.2":    with("min_protocol_version=3.2 max_protocol_version=3.2", cancelled),
		"protocol-latest": with("max_protocol_version=latest", whoami),
		"error":           with("", failing),
		"notice":          noticed,
		"idle": with("", func(ctx context.Context, c *sql.Conn) (string, error) {
			answer.Idle()
			return whoami(ctx, c)
		}),
		"options":          with("options='-c statement_timeout=7min'", ask("show statement_timeout")),
		"application-name": with("application_name="+strings.Repeat("n", 70), ask("select length(current_setting('application_name')) || ' bytes of 70'")),
		"client-encoding":  answer.Lacks("lib/pq allows UTF8 only"),
		"search-path":      with("search_path='interop, public'", ask("show search_path")),
	}
	for _, mode := range []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"} {
		all["sslmode-"+mode] = with("sslmode="+mode, whoami)
	}
	return all
}

func prepared(ctx context.Context, c *sql.Conn) (string, error) {
	statement, err := c.PrepareContext(ctx, "select $1::int")
	if err != nil {
		return "", err
	}
	defer statement.Close()
	sum := 0
	for n := range 5 {
		var got int
		if err := statement.QueryRowContext(ctx, n).Scan(&got); err != nil {
			return "", err
		}
		sum += got
	}
	return strconv.Itoa(sum), nil
}

func copyIn(ctx context.Context, c *sql.Conn) (string, error) {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, "create temp table t (n int8)"); err != nil {
		return "", err
	}
	statement, err := tx.PrepareContext(ctx, "copy t from stdin")
	if err != nil {
		return "", err
	}
	for n := range 50000 {
		if _, err := statement.ExecContext(ctx, n); err != nil {
			return "", err
		}
	}
	if err := statement.Close(); err != nil {
		return "", err
	}
	var sum string
	err = tx.QueryRowContext(ctx, "select count(*) || ' ' || sum(n) from t").Scan(&sum)
	return sum, err
}

func notified(ctx context.Context) (string, error) {
	l := pq.NewListener(answer.DSN(""), time.Second, time.Second, nil)
	defer l.Close()
	if err := l.Listen("ch"); err != nil {
		return "", err
	}
	if _, err := with("", ask("select pg_notify('ch', 'word')"))(ctx); err != nil {
		return "", err
	}
	select {
	case n := <-l.Notify:
		return n.Channel + " " + n.Extra, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func largeObject(ctx context.Context, c *sql.Conn) (string, error) {
	var got []byte
	id, err := one(ctx, c, "select lo_from_bytea(0, $1)", bytes.Repeat([]byte("x"), 3000000))
	if err != nil {
		return "", err
	}
	if err := c.QueryRowContext(ctx, "select lo_get($1)", id).Scan(&got); err != nil {
		return "", err
	}
	_, err = c.ExecContext(ctx, "select lo_unlink($1)", id)
	return strconv.Itoa(len(got)), err
}

func large(ctx context.Context, c *sql.Conn) (string, error) {
	got, err := one(ctx, c, "select repeat('x', $1)", answer.Number("INTEROP_SIZE"))
	if err != nil {
		return "", err
	}
	up, err := one(ctx, c, "select length($1::text)", got)
	return fmt.Sprintf("%d down, %s up", len(got), up), err
}

// cancelled cancels a query on that connection, as a context does that is over.
func cancelled(ctx context.Context, c *sql.Conn) (string, error) {
	pid, err := one(ctx, c, "select pg_backend_pid()")
	if err != nil {
		return "", err
	}
	over, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := with("", func(ctx context.Context, other *sql.Conn) (string, error) {
			return "", answer.Asleep(pid, func(query string) (string, error) { return one(ctx, other, query) })
		})(ctx)
		cancel()
		done <- err
	}()
	_, err = c.ExecContext(over, "select pg_sleep(120)")
	return sqlstate(errors.Join(err, <-done))
}

func failing(ctx context.Context, c *sql.Conn) (string, error) {
	_, err := c.ExecContext(ctx, "select 1/0")
	return sqlstate(err)
}

func sqlstate(err error) (string, error) {
	var e *pq.Error
	if errors.As(err, &e) {
		return e.Severity + " " + string(e.Code) + " " + e.Message, nil
	}
	return "", fmt.Errorf("no error of PostgreSQL: %w", err)
}

func noticed(ctx context.Context) (string, error) {
	plain, err := pq.NewConnector(answer.DSN(""))
	if err != nil {
		return "", err
	}
	var got []string
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(plain, func(n *pq.Error) { got = append(got, n.Severity, n.Message, n.Detail) }))
	defer db.Close()
	_, err = db.ExecContext(ctx, "do $$ begin raise notice 'word' using detail = 'more'; end $$")
	return strings.Join(got, " "), err
}

// session opens a session for a hard moment. It is one connection of the pool, which
// database/sql replaces when it is lost.
func session(ctx context.Context, user string) (*answer.Session, error) {
	more := "user=" + user
	if user == "cert_user" {
		more = answer.Certificate()
	}
	connector, err := pq.NewConnector(answer.DSN(more))
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	var running atomic.Pointer[context.CancelFunc]
	return &answer.Session{
		Do: func(ctx context.Context, query string) (s string, err error) {
			ctx, stop := context.WithCancel(ctx)
			running.Store(&stop)
			err = db.QueryRowContext(ctx, query).Scan(&s)
			return s, err
		},
		// Its users cancel a context, and lib/pq sends the request.
		Cancel: func(context.Context) error { (*running.Load())(); return nil },
		Close:  func() { _ = db.Close() },
	}, nil
}

func sqlState(err error) string {
	var e *pq.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	return ""
}

func main() {
	if slices.Equal(os.Args[1:], []string{"moments"}) {
		answer.Moments(session, sqlState)
		return
	}
	answer.Main("lib/pq", "github.com/lib/pq", features())
}
