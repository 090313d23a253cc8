//go:build linux

package main

import (
	"context"
	"crypto/md5" //nolint:gosec // what PostgreSQL computes, too
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// tlsConfig is how clients connect: with these credentials, or with none if
// there is no pair, and verifying the gate.
func (l *lab) tlsConfig(c credentials) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(l.ca.Cert)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if c.pair != nil {
		config.Certificates = []tls.Certificate{c.pair.TLS()}
	}
	return config
}

// dial opens a session of appUser through the gate, by pgx.
func (g *target) dial(ctx context.Context) (*pgconn.PgConn, error) {
	return g.dialWith(ctx, g.lab.client)
}

// dialWith does the same with another certificate.
func (g *target) dialWith(ctx context.Context, who credentials) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig("host=" + g.Host + " port=" + strconv.Itoa(g.Port) + " user=" + appUser + " database=postgres sslmode=require connect_timeout=60")
	if err != nil {
		return nil, err
	}
	config.TLSConfig, config.Fallbacks = g.lab.tlsConfig(who), nil
	return pgconn.ConnectConfig(ctx, config)
}

// errEnded is wrapped by the error of a query in which the session has ended.
var errEnded = errors.New("the session has ended")

// one runs a query and returns the first column of its first row.
func one(ctx context.Context, c *pgconn.PgConn, sql string) (string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil && c.IsClosed() {
		err = fmt.Errorf("%w: %w", errEnded, err)
	}
	if err != nil {
		return "", err
	}
	for _, r := range results {
		if r.Err != nil {
			return "", r.Err
		}
		if len(r.Rows) > 0 && len(r.Rows[0]) > 0 {
			return string(r.Rows[0][0]), nil
		}
	}
	return "", nil
}

// question is a query whose answer is known: n digests in a row, from a number on.
type question struct{ from, n int }

func (q question) sql() string {
	return fmt.Sprintf("select string_agg(md5(g::text), '' order by g) from generate_series(%d, %d) g", q.from, q.from+q.n-1)
}

func (q question) answer() string {
	var b strings.Builder
	for i := range q.n {
		sum := md5.Sum([]byte(strconv.Itoa(q.from + i))) //nolint:gosec // what PostgreSQL computes, too
		b.WriteString(hex.EncodeToString(sum[:]))
	}
	return b.String()
}

// digests is a query with so many rows, each a digest repeated so many times. The
// server makes them as they are read; a series in FROM it would store first.
func digests(rows, times int) string {
	return fmt.Sprintf("select repeat(md5(g::text), %d) from (select generate_series(1, %d) as g) as s", times, rows)
}

// asked asks a question, and checks every byte of the answer.
func asked(ctx context.Context, c *pgconn.PgConn, q question) error {
	got, err := one(ctx, c, q.sql())
	if err != nil {
		return err
	}
	if got != q.answer() {
		return fmt.Errorf("a wrong answer: %d bytes for %d", len(got), 32*q.n)
	}
	return nil
}

// observers are sessions that have no part in the fault. They send queries and check
// the answers all the time, and must not notice it.
type observers struct {
	stop    func()
	wg      sync.WaitGroup
	answers atomic.Int64

	mu      sync.Mutex
	longest time.Duration // that one has waited for an answer
	failed  []error
}

// observe opens that many sessions, each with a question every 10 ms or so,
// large and small ones.
func (g *target) observe(ctx context.Context, n int) (*observers, error) {
	return g.observeWith(ctx, n, g.lab.client)
}

// observeWith does the same with another certificate.
func (g *target) observeWith(ctx context.Context, n int, who credentials) (*observers, error) {
	ctx, stop := context.WithCancel(ctx)
	b := &observers{stop: stop}
	for i := range n {
		c, err := g.dialWith(ctx, who)
		if err != nil {
			b.end()
			return nil, fmt.Errorf("an observer: %w", err)
		}
		b.wg.Go(func() {
			defer closeSession(c)
			b.ask(ctx, c, i)
		})
	}
	return b, nil
}

func (b *observers) ask(ctx context.Context, c *pgconn.PgConn, seed int) {
	for i := seed * 1_000_000; ; i++ {
		q := question{i, 8}
		if i%16 == 0 {
			q.n = 2048 // 64 KiB
		}
		began := time.Now()
		err := asked(ctx, c, q)
		took := time.Since(began)
		if ctx.Err() != nil {
			return
		}
		b.mu.Lock()
		b.longest = max(b.longest, took)
		if err != nil {
			b.failed = append(b.failed, err)
		}
		b.mu.Unlock()
		if err != nil {
			return
		}
		b.answers.Add(1)
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// noticed returns their errors.
func (b *observers) noticed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.failed...)
}

// awaitAnswers waits until n more answers have come: the observers are served.
func (b *observers) awaitAnswers(ctx context.Context, n int64) error {
	want := b.answers.Load() + n
	return gate.Eventually(ctx, "the observers are served", gate.Timeout, func() error {
		if err := b.noticed(); err != nil {
			return err
		}
		if got := b.answers.Load(); got < want {
			return fmt.Errorf("%d answers to go", want-got)
		}
		return nil
	})
}

// end closes the sessions.
func (b *observers) end() {
	b.stop()
	b.wg.Wait()
}

// closeSession ends a session in order.
func closeSession(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// sslRequest and startupPacket begin a session of a client that speaks the
// protocol without a driver.
var sslRequest = wire.Request(wire.SSLRequest)

func startupPacket() string { return wire.Startup(wire.Protocol30, startupParameters...) }

var startupParameters = []string{"user", appUser, "database", "postgres", "application_name", "siege"}

// connect opens a connection and sends nothing yet.
func (g *target) connect(ctx context.Context) (*wire.Conn, error) {
	return wire.Dial(ctx, g.Address, gate.Timeout)
}

// logIn does all of a startup, up to the first ReadyForQuery.
func logIn(ctx context.Context, c *wire.Conn, config *tls.Config) error {
	if err := c.RequestTLS(); err != nil {
		return err
	}
	return c.LogIn(ctx, config, startupParameters...)
}

// state returns the SQLSTATE of an error, empty if it has none.
func state(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// cut says whether an error is the end of a session or a connection, in any way.
func cut(err error) bool {
	for _, end := range []error{errEnded, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return slices.Contains([]string{"57P01", "57P02"}, state(err))
}
