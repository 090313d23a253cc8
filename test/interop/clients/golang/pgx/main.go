// Command pgx is pgx as a client.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"interop/answer"
)

func connect(ctx context.Context, more string, edit ...func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(answer.DSN(more))
	if err != nil {
		return nil, err
	}
	for _, f := range edit {
		f(config)
	}
	return pgx.ConnectConfig(ctx, config)
}

// with opens a connection for as long as f uses it.
func with(more string, f func(context.Context, *pgx.Conn) (string, error), edit ...func(*pgx.ConnConfig)) answer.Feature {
	return func(ctx context.Context) (string, error) {
		c, err := connect(ctx, more, edit...)
		if err != nil {
			return "", err
		}
		defer c.Close(ctx)
		return f(ctx, c)
	}
}

func one(ctx context.Context, c *pgx.Conn, sql string, args ...any) (s string, err error) {
	err = c.QueryRow(ctx, sql, args...).Scan(&s)
	return s, err
}

func ask(sql string, args ...any) func(context.Context, *pgx.Conn) (string, error) {
	return func(ctx context.Context, c *pgx.Conn) (string, error) { return one(ctx, c, sql, args...) }
}

func overTLS(_ context.Context, c *pgx.Conn) (string, error) {
	if _, ok := c.PgConn().Conn().(interface{ HandshakeContext(context.Context) error }); ok {
		return "over TLS", nil
	}
	return "without TLS", nil
}

func features() map[string]answer.Feature {
	whoami := ask("select current_user::text")
	var notices []string
	all := map[string]answer.Feature{
		"sslrequest":      with("", overTLS),
		"direct":          with("sslnegotiation=direct", overTLS),
		"gssencmode":      answer.Lacks("pgx has no GSS encryption"),
		"scram":           with("", whoami),
		"channel-binding": with("channel_binding=require", whoami),
		"md5":             with("user=md5_user", whoami),
		"clear":           with("user=clear_user", whoami),
		"cert":            with(answer.Certificate(), whoami),
		"simple":          with("", ask("select 7::text"), func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol }),
		"extended":        with("", ask("select $1::text", "7"), func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeExec }),
		"prepared": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			if _, err := c.Prepare(ctx, "p", "select $1::text"); err != nil {
				return "", err
			}
			return one(ctx, c, "p", "7")
		}),
		"pipeline": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			b := &pgx.Batch{}
			for n := range 5 {
				b.Queue("select $1::int", n)
			}
			results := c.SendBatch(ctx, b)
			defer results.Close()
			sum := 0
			for range 5 {
				var n int
				if err := results.QueryRow().Scan(&n); err != nil {
					return "", err
				}
				sum += n
			}
			return strconv.Itoa(sum), nil
		}),
		"copy-in": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			if _, err := c.Exec(ctx, "create temp table t (n int8)"); err != nil {
				return "", err
			}
			n, err := c.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromSlice(50000, func(i int) ([]any, error) { return []any{int64(i)}, nil }))
			return strconv.FormatInt(n, 10), err
		}),
		"copy-out": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			var b bytes.Buffer
			_, err := c.PgConn().CopyTo(ctx, &b, "copy (select generate_series(1, 50000)) to stdout")
			return strconv.Itoa(b.Len()), err
		}),
		"notify": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			if _, err := c.Exec(ctx, "listen ch"); err != nil {
				return "", err
			}
			if _, err := with("", ask("select pg_notify('ch', 'word')::text"))(ctx); err != nil {
				return "", err
			}
			n, err := c.WaitForNotification(ctx)
			if err != nil {
				return "", err
			}
			return n.Channel + " " + n.Payload, nil
		}),
		"lo": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			tx, err := c.Begin(ctx)
			if err != nil {
				return "", err
			}
			defer tx.Rollback(ctx)
			los := tx.LargeObjects()
			id, err := los.Create(ctx, 0)
			if err != nil {
				return "", err
			}
			o, err := los.Open(ctx, id, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
			if err != nil {
				return "", err
			}
			n, err := o.Write(make([]byte, 3000000))
			return strconv.Itoa(n), err
		}),
		"large": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			got, err := one(ctx, c, "select repeat('x', $1)", answer.Number("INTEROP_SIZE"))
			if err != nil {
				return "", err
			}
			up, err := one(ctx, c, "select length($1::text)::text", got)
			return fmt.Sprintf("%d down, %s up", len(got), up), err
		}),
		"cancel": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			return cancelled(ctx, c)
		}),
		"protocol-3.0":    with("min_protocol_version=3.0 max_protocol_version=3.0", whoami),
		"protocol-3.2":    with("min_protocol_version=3.2 max_protocol_version=3.2", cancelled),
		"protocol-latest": with("max_protocol_version=latest", whoami),
		"error": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			_, err := c.Exec(ctx, "select 1/0")
			var e *pgconn.PgError
			if errors.As(err, &e) {
				return e.Severity + " " + e.Code + " " + e.Message, nil
			}
			return "", err
		}),
		"notice": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			_, err := c.Exec(ctx, "do $$ begin raise notice 'word' using detail = 'more'; end $$")
			return strings.Join(notices, " "), err
		}, func(c *pgx.ConnConfig) {
			c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
				notices = append(notices, n.Severity, n.Message, n.Detail)
			}
		}),
		"idle": with("", func(ctx context.Context, c *pgx.Conn) (string, error) {
			answer.Idle()
			return whoami(ctx, c)
		}),
		"options":          with("options='-c statement_timeout=7min'", ask("show statement_timeout")),
		"application-name": with("application_name="+strings.Repeat("n", 70), ask("select length(current_setting('application_name')) || ' bytes of 70'")),
		"client-encoding":  with("client_encoding=latin1", ask("show client_encoding")),
		"search-path":      with("search_path='interop, public'", ask("show search_path")),
	}
	for _, mode := range []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"} {
		all["sslmode-"+mode] = with("sslmode="+mode, overTLS)
	}
	return all
}

// cancelled cancels a query on that connection.
func cancelled(ctx context.Context, c *pgx.Conn) (string, error) {
	done := make(chan error, 1)
	go func() {
		_, err := with("", func(ctx context.Context, other *pgx.Conn) (string, error) {
			return "", answer.Asleep(strconv.FormatUint(uint64(c.PgConn().PID()), 10), func(sql string) (string, error) { return one(ctx, other, sql) })
		})(ctx)
		if err == nil {
			err = c.PgConn().CancelRequest(ctx)
		}
		done <- err
	}()
	_, err := c.Exec(ctx, "select pg_sleep(120)")
	if failure := <-done; failure != nil {
		return "", failure
	}
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code, nil
	}
	return "", fmt.Errorf("not cancelled: %w", err)
}

// session opens a session for a hard moment.
func session(ctx context.Context, user string) (*answer.Session, error) {
	more := "user=" + user
	if user == "cert_user" {
		more = answer.Certificate()
	}
	c, err := connect(ctx, more)
	if err != nil {
		return nil, err
	}
	return &answer.Session{
		Do:     func(ctx context.Context, sql string) (string, error) { return one(ctx, c, sql) },
		Cancel: c.PgConn().CancelRequest,
		Close: func() {
			ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
			defer stop()
			_ = c.Close(ctx)
		},
	}, nil
}

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func main() {
	if slices.Equal(os.Args[1:], []string{"moments"}) {
		answer.Moments(session, sqlState)
		return
	}
	answer.Main("pgx", "github.com/jackc/pgx/v5", features())
}
