//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
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

// within rounds a time up to a bound that says no more than it should.
func within(d time.Duration) string {
	for _, bound := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second} {
		if d <= bound {
			return bound.String()
		}
	}
	return d.Round(time.Second).String()
}

// A client stops in the middle of a large result. The gate must not take in for
// it what it does not read, and when it reads on, every byte must come.
func readerStops(ctx context.Context, t *trial) (string, error) {
	s, err := t.open(ctx, setting{plain: true}) // the race detector has a memory of its own
	if err != nil {
		return "", err
	}
	const rowSize = 16 << 10
	rows := pick(t, 8<<10, 64<<10)
	sql := digests(rows, rowSize/32)
	open := func() (*wire.Conn, error) {
		r, err := s.connect(ctx)
		if err != nil {
			return nil, err
		}
		_ = r.TCP.SetReadBuffer(64 << 10)
		_ = r.TCP.SetDeadline(time.Now().Add(3 * gate.Timeout))
		if err := logIn(ctx, r, t.tlsConfig(t.client)); err != nil {
			return nil, err
		}
		_, err = io.WriteString(r.TLS, wire.Query(sql))
		return r, err
	}

	// What a gate needs for any large result, it has had from now on.
	warm, err := open()
	if err != nil {
		return "", err
	}
	if err := readRows(warm, 1, min(rows, 8<<10)); err != nil {
		return "", err
	}
	warm.CloseTCP()
	if _, err := s.released(ctx); err != nil {
		return "", err
	}
	if _, _, err := s.weigh(ctx, t); err != nil { // which costs it some memory, too
		return "", err
	}
	before, heapBefore, err := s.weigh(ctx, t)
	if err != nil {
		return "", err
	}

	r, err := open()
	if err != nil {
		return "", err
	}
	defer r.CloseTCP()
	const first = 256
	if err := readRows(r, 1, first); err != nil {
		return "", err
	}
	during, heapDuring, err := s.weigh(ctx, t)
	if err != nil {
		return "", err
	}
	if err := errors.Join(s.observers.awaitAnswers(ctx, 20), s.expectServed(ctx), readRows(r, first+1, rows-first)); err != nil {
		return "", err
	}
	if _, err := r.Await('Z'); err != nil {
		return "", err
	}
	_, _ = io.WriteString(r.TLS, wire.Terminate)
	most := int64(pick(t, 2, 1)) << 20
	if during-before > most || heapDuring-heapBefore > most {
		err = fmt.Errorf("the gate has grown by %d KiB of resident memory and %d KiB of heap; %d are allowed", (during-before)>>10, (heapDuring-heapBefore)>>10, most>>10)
	}
	return fmt.Sprintf("a result of %d MiB, of which 4 MiB were read before the pause: the gate grew by %d KiB (heap: %d KiB), then every byte came", rows*rowSize>>20, (during-before)>>10, (heapDuring-heapBefore)>>10), err
}

// weigh returns the median of the gate's resident memory and of its heap in use
// over a few seconds.
func (s *scene) weigh(ctx context.Context, t *trial) (rss, heap int64, err error) {
	time.Sleep(time.Second) // for what is still on its way
	var all, heaps []int64
	for range pick(t, 20, 60) {
		m, err := s.Metrics()
		if err != nil {
			return 0, 0, err
		}
		n, err := s.Resident()
		if err != nil {
			return 0, 0, err
		}
		all, heaps = append(all, n), append(heaps, int64(m["go_memstats_heap_inuse_bytes"]))
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	slices.Sort(all)
	slices.Sort(heaps)
	return all[len(all)/2], heaps[len(heaps)/2], nil
}

// readRows reads rows of digests, from a number on, and checks every byte.
func readRows(r *wire.Conn, from, n int) error {
	for i := from; i < from+n; {
		kind, body, err := r.ReadMessage()
		switch {
		case err != nil:
			return fmt.Errorf("row %d: %w", i, err)
		case kind == 'E':
			return fmt.Errorf("row %d: %s", i, wire.Field(body, 'M'))
		case kind != 'D':
			continue
		}
		digest := question{i, 1}.answer()
		if want := bytes.Repeat([]byte(digest), (len(body)-6)/len(digest)); !bytes.Equal(body[6:], want) {
			return fmt.Errorf("row %d is another", i)
		}
		i++
	}
	return nil
}

// Clients that dribble, at every stage of the start-up: ended by
// limits.startup_timeout, and nobody waits behind them, for a handshake that
// waits for its client gives its turn up (a slow loris: gate#936,
// go-proxyproto#65). A session that has begun may take its time.
func slowClient(ctx context.Context, t *trial) (string, error) {
	timeout, pause := pick(t, 3*time.Second, 10*time.Second), pick(t, 300*time.Millisecond, time.Second)
	s, err := t.open(ctx, setting{keys: map[string]string{"limits.startup_timeout": timeout.String()}})
	if err != nil {
		return "", err
	}
	hello, err := recordHello(t.tlsConfig(t.client))
	if err != nil {
		return "", err
	}
	stages := []struct {
		name  string
		enter func(r *wire.Conn) (io.Writer, string, error) // what it says at once; then where and what it dribbles
	}{
		{"the SSLRequest", func(r *wire.Conn) (io.Writer, string, error) { return r.TCP, sslRequest[:7], nil }},
		{"the ClientHello", func(r *wire.Conn) (io.Writer, string, error) { return r.TCP, hello, r.RequestTLS() }},
		{"a direct ClientHello", func(r *wire.Conn) (io.Writer, string, error) { return r.TCP, hello, nil }},
		{"the startup packet", func(r *wire.Conn) (io.Writer, string, error) {
			if err := r.RequestTLS(); err != nil {
				return nil, "", err
			}
			err := r.Handshake(ctx, t.tlsConfig(t.client))
			return r, startupPacket(), err
		}},
	}
	each := pick(t, 4, 16)
	var wg sync.WaitGroup
	errs := make(chan error, each*len(stages)+1)
	for _, stage := range stages {
		for range each {
			wg.Go(func() {
				r, err := s.connect(ctx)
				if err != nil {
					errs <- err
					return
				}
				defer r.Reset()
				w, text, err := stage.enter(r)
				if err == nil {
					err = sendSlowly(ctx, w, text, pause)
				}
				if !cut(err) {
					errs <- fmt.Errorf("%s, a byte each %v: it was not ended: %w", stage.name, pause, err)
				}
			})
		}
	}
	wg.Go(func() { errs <- s.slowQuery(ctx, t, pause) })
	for range 5 {
		if err := s.expectServed(ctx); err != nil {
			return "", err
		}
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	late := 0
	for _, r := range s.Records() {
		if r.Is("connection refused", "outcome", "startup_timeout") || r.Is("connection refused", "outcome", "tls_timeout") {
			late++
		}
	}
	if late != each*len(stages) {
		err = errors.Join(err, fmt.Errorf("the log has %d startups that took too long, want %d", late, each*len(stages)))
	}
	return fmt.Sprintf("a byte each %v, %d clients in each of %d stages: all ended by startup_timeout (%v), new clients served meanwhile; a query sent so was answered", pause, each, len(stages), timeout), err
}

// sendSlowly sends a byte at a time, and what comes after the last is silence. The
// error is how the peer has ended that.
func sendSlowly(ctx context.Context, w io.Writer, text string, pause time.Duration) error {
	gone := make(chan error, 1)
	if r, ok := w.(io.Reader); ok {
		go func() {
			_, err := io.Copy(io.Discard, r)
			if err == nil {
				err = io.EOF
			}
			gone <- err
		}()
	}
	for i := range len(text) {
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return err
		}
		select {
		case err := <-gone:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	select {
	case err := <-gone:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *scene) slowQuery(ctx context.Context, t *trial, pause time.Duration) error {
	r, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer r.CloseTCP()
	if err := logIn(ctx, r, t.tlsConfig(t.client)); err != nil {
		return err
	}
	for _, b := range []byte(wire.Query("select 1")) {
		if _, err := r.TLS.Write([]byte{b}); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	_, err = r.Await('Z')
	return err
}

// recordHello returns the first thing that a client of TLS says.
func recordHello(config *tls.Config) (string, error) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		_ = tls.Client(ours, config).Handshake()
		_ = ours.Close()
	}()
	var head [5]byte
	if _, err := io.ReadFull(theirs, head[:]); err != nil {
		return "", err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err := io.ReadFull(theirs, body)
	return string(head[:]) + string(body), err
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
// start-up, a query, an answer, a farewell.
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

// Clients that leave by a FIN without close_notify, as many do (PgBouncer's
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
