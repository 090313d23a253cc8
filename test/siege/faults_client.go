//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// released waits until PostgreSQL has only the observers' sessions and says how
// long that has taken. client_connection_check_interval is a second in the lab,
// which is most of it for a backend in a query.
func (s *scene) released(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	err := s.holds(ctx, observerCount)
	return time.Since(began), err
}

// Programs of libpq are killed in the middle of what they do: their backends
// must go, too (stolon#323, kviklet#537, proxysql#6129, pg_auto_failover#1180).
func clientKilled(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	n := pick(t, 4, 16)
	victims := [][]string{
		{"pgbench", "-n", "-S", "-c", fmt.Sprint(n), "-T", "600"},
		{"psql", "-Xc", "select pg_sleep(3600)"},
		{"psql", "-Xc", "begin", "-c", "lock table pgbench_tellers", "-c", "select pg_sleep(3600)"},
		{"psql", "-Xc", `\copy (` + digests(1<<30, 32) + `) to '/dev/null'`},
	}
	times, longest := pick(t, 1, 3), time.Duration(0)
	for range times {
		killed, cancel := context.WithCancel(ctx)
		var programs sync.WaitGroup
		for _, v := range victims {
			cmd, err := t.libpq(killed, s.target, v[0], v[1:]...)
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				cancel()
				return "", err
			}
			programs.Go(func() { _ = cmd.Wait() })
		}
		err := errors.Join(s.holds(ctx, observerCount+n+len(victims)-1), s.awaitSleeping(ctx, 2))
		cancel() // kill -9
		programs.Wait()
		took, late := s.released(ctx)
		if err := errors.Join(err, late); err != nil {
			return "", err
		}
		longest = max(longest, took)
	}
	return fmt.Sprintf("kill -9 of pgbench with %d sessions and of psql in pg_sleep, holding a lock, and in a COPY, %d×; every backend session was gone within %s",
		n, times, within(longest)), nil
}

// awaitSleeping waits until so many backends are in pg_sleep.
func (s *scene) awaitSleeping(ctx context.Context, n int) error {
	return gate.Eventually(ctx, "backends sleep", gate.Timeout, func() error {
		got, err := s.lab.count("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")
		if err == nil && got != n {
			err = fmt.Errorf("%d, want %d", got, n)
		}
		return err
	})
}

// within rounds a time up to a bound, which is all that a report should claim.
func within(d time.Duration) string {
	for _, bound := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second} {
		if d <= bound {
			return bound.String()
		}
	}
	return d.Round(time.Second).String()
}

// limited is a connection that is reset when so many bytes have been written.
type limited struct {
	*net.TCPConn
	left    int
	written int
	ends    []int // after each write
}

var errEnough = errors.New("enough")

func (l *limited) Write(p []byte) (int, error) {
	n, err := l.TCPConn.Write(p[:min(len(p), l.left)])
	l.left -= n
	l.written += n
	l.ends = append(l.ends, l.written)
	if err == nil && l.left == 0 {
		_ = l.SetLinger(0)
		_ = l.Close()
		err = errEnough
	}
	return n, err
}

// A client resets its connection after every so many bytes of a session: a
// startup, a query, an answer, Terminate.
func resets(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	whole, err := s.dialogue(ctx, t, 1<<30)
	if err != nil {
		return "", fmt.Errorf("without a reset: %w", err)
	}
	// Around the end of each write, where the state changes, and in between.
	var at []int
	for n := 1; n <= whole.written; n += pick(t, whole.written/40, 5) {
		at = append(at, n)
	}
	for _, end := range whole.ends {
		at = append(at, end-1, end, end+1)
	}
	slices.Sort(at)
	at = slices.DeleteFunc(slices.Compact(at), func(n int) bool { return n < 1 || n > whole.written })
	var wg sync.WaitGroup
	work := make(chan int)
	for range 4 {
		wg.Go(func() {
			for n := range work {
				_, _ = s.dialogue(ctx, t, n)
			}
		})
	}
	for _, n := range at {
		work <- n
	}
	close(work)
	wg.Wait()
	_, err = s.released(ctx)
	return fmt.Sprintf("a session of %d bytes in %d writes, reset at %d places", whole.written, len(whole.ends), len(at)), errors.Join(err, s.expectServed(ctx))
}

// dialogue is a whole session, which is reset after so many bytes.
func (s *scene) dialogue(ctx context.Context, t *trial, most int) (*limited, error) {
	r, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer r.CloseTCP()
	l := &limited{TCPConn: r.TCP, left: most}
	c := wire.New(l)
	if err := c.RequestTLS(); err != nil {
		return l, err
	}
	if err := c.LogIn(ctx, t.tlsConfig(t.client), startupParameters...); err != nil {
		return l, err
	}
	for _, sql := range []string{"select pg_sleep(0.01)", "select repeat('x', 100000)"} {
		if err := c.Exchange(wire.Query(sql)); err != nil {
			return l, err
		}
	}
	return l, errors.Join(c.Send(wire.Terminate), c.TLS.Close())
}

// Clients that close with a FIN and no close_notify, as many do (PgBouncer's
// test_ssl_eof has the same).
func noCloseNotify(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	ways := []struct{ name, last string }{
		{"idle", ""},
		{"after Terminate", wire.Terminate},
		{"in a query", wire.Query("select pg_sleep(3600)")},
		{"in half a message", wire.Query("select 1")[:7]},
		{"in a result", wire.Query(digests(1<<30, 32))},
	}
	each, longest := pick(t, 4, 32), time.Duration(0)
	for _, way := range ways {
		for range each {
			r, err := s.connect(ctx)
			if err != nil {
				return "", err
			}
			if err := logIn(ctx, r, t.tlsConfig(t.client)); err != nil {
				return "", err
			}
			if way.last != "" {
				if err := r.Send(way.last); err != nil {
					return "", err
				}
			}
			r.CloseTCP()
		}
		took, err := s.released(ctx)
		if err != nil {
			return "", fmt.Errorf("%s: %w", way.name, err)
		}
		longest = max(longest, took)
	}
	return fmt.Sprintf("%d sessions each: idle, after Terminate, in a query, in half a message, in a result; every backend session was gone within %s", each, within(longest)), nil
}

// Clients that close their sending side have asked for answers that they still
// read (ghostunnel#786, ghostunnel#794).
func halfClose(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{})
	if err != nil {
		return "", err
	}
	const rows = 64
	ask := wire.Query("do $$begin perform pg_sleep(0.2); end$$") + wire.Query(digests(rows, 512))
	ways := []struct {
		name  string
		last  string
		close func(r *wire.Conn) error
		whole bool // all answers must come
	}{
		{"Terminate, close_notify, FIN", wire.Terminate, func(r *wire.Conn) error { return errors.Join(r.TLS.CloseWrite(), r.TCP.CloseWrite()) }, true},
		{"close_notify, FIN", "", func(r *wire.Conn) error { return errors.Join(r.TLS.CloseWrite(), r.TCP.CloseWrite()) }, true},
		{"close_notify alone", "", func(r *wire.Conn) error { return r.TLS.CloseWrite() }, true},
		{"Terminate, FIN", wire.Terminate, func(r *wire.Conn) error { return r.TCP.CloseWrite() }, false},
		{"FIN", "", func(r *wire.Conn) error { return r.TCP.CloseWrite() }, false},
	}
	each := pick(t, 2, 16)
	var kept []string
	for _, way := range ways {
		all := true
		for range each {
			r, err := s.connect(ctx)
			if err != nil {
				return "", err
			}
			if err := logIn(ctx, r, t.tlsConfig(t.client)); err != nil {
				return "", err
			}
			if err := r.Send(ask + way.last); err != nil {
				return "", err
			}
			if err := way.close(r); err != nil {
				return "", fmt.Errorf("%s: %w", way.name, err)
			}
			err = readRows(r, 1, rows)
			if way.whole && err != nil {
				return "", fmt.Errorf("%s: %w", way.name, err)
			}
			all = all && err == nil
			if _, err := io.Copy(io.Discard, r.TCP); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				return "", fmt.Errorf("%s: the connection was not closed: %w", way.name, err)
			}
			r.CloseTCP()
		}
		if _, err := s.released(ctx); err != nil {
			return "", fmt.Errorf("%s: %w", way.name, err)
		}
		if all {
			kept = append(kept, strconv.Quote(way.name))
		}
	}
	return fmt.Sprintf("after two queries, %d× each: every answer came to %s; all sessions ended", each, strings.Join(kept, ", ")), nil
}
