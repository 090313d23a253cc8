//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// request is something that a client asks for and whose answer it knows.
type request struct {
	name string
	do   func(*worker, context.Context) error
}

// The largest answers and parameters, in bytes.
const (
	large  = 4 << 20
	medium = 256 << 10
)

var (
	simple     = request{"simple query", (*worker).simple}
	extended   = request{"extended query", (*worker).extended}
	largeValue = request{"large value", (*worker).largeValue}
	batch      = request{"batch", (*worker).batch}
	pipeline   = request{"pipeline with errors", (*worker).pipeline}
	copies     = request{"COPY in and out", (*worker).copies}
	ledgered   = request{"transaction", (*worker).ledgered}
	mistakes   = request{"error on purpose", (*worker).mistakes}
	notices    = request{"LISTEN and NOTIFY", (*worker).notices}
	cancels    = request{"query cancelled", (*worker).cancels}
	slowRead   = request{"answer read slowly", (*worker).slowRead}
	remembers  = request{"temporary table", (*worker).remembers}
)

// The manners of the clients.
var (
	eager = manner{"eager", 60, 40 * time.Millisecond, []request{
		simple, simple, extended, extended, extended, largeValue, batch, pipeline, copies, ledgered, ledgered, ledgered, mistakes, notices, cancels, slowRead, remembers,
	}}
	brief = manner{"brief", 1, 100 * time.Millisecond, []request{simple, extended, ledgered, remembers}}
	calm  = manner{"calm", 1000, 8 * time.Second, []request{simple, extended, ledgered, remembers}}
)

// key is a text that no other question of this client has had.
func (w *worker) key() string { return fmt.Sprintf("%x/%d/%x/", w.s.seed, w.number, w.rnd.Uint32()) }

func (w *worker) simple(ctx context.Context) error {
	key, from, n := w.key(), w.rnd.IntN(1e6), size(w.rnd, 400)
	w.asked = fmt.Sprintf("select g, md5('%[1]s' || g) from generate_series(%[2]d, %[3]d) g; select count(*) from generate_series(1, %[2]d)", key, from, from+n-1)
	results, err := w.conn.PgConn().Exec(ctx, w.asked).ReadAll()
	if err != nil {
		return err
	}
	var got, want strings.Builder
	for _, r := range results {
		for _, row := range r.Rows {
			fmt.Fprintf(&got, "%s\n", bytes.Join(row, []byte{'|'}))
		}
		fmt.Fprintln(&got, r.CommandTag)
	}
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&want, "%d|%s\n", i, md5hex(fmt.Sprint(key, i)))
	}
	fmt.Fprintf(&want, "SELECT %d\n%d\nSELECT 1\n", n, from)
	return w.matches([]byte(got.String()), []byte(want.String()))
}

func (w *worker) extended(ctx context.Context) error {
	value := noise(w.rnd, size(w.rnd, medium))
	return w.echo(ctx, value)
}

// echo has PostgreSQL return a value, and its digest.
func (w *worker) echo(ctx context.Context, value []byte) error {
	w.asked = fmt.Sprintf("select $1::bytea, md5($1::bytea), $2::int8, with %d bytes of %s…", len(value), hex.EncodeToString(value[:min(8, len(value))]))
	w.s.sent.Add(int64(len(value)))
	var back []byte
	var digest string
	var n int64
	if err := w.conn.QueryRow(ctx, "select $1::bytea, md5($1::bytea), $2::int8", value, int64(len(value))).Scan(&back, &digest, &n); err != nil {
		return err
	}
	if n != int64(len(value)) {
		return &mismatch{fmt.Sprintf("%d instead of %d", n, len(value))}
	}
	return errors.Join(w.matches(back, value), w.matches([]byte(digest), []byte(md5hex(string(value)))))
}

func (w *worker) largeValue(ctx context.Context) error {
	if w.rnd.IntN(2) == 0 {
		return w.echo(ctx, noise(w.rnd, size(w.rnd, large)))
	}
	key, n := w.key(), size(w.rnd, large/32)
	w.asked = fmt.Sprintf("select string_agg(md5('%s' || g), '' order by g) from generate_series(1, %d) g", key, n)
	got, err := one(ctx, w.conn.PgConn(), w.asked)
	if err != nil {
		return err
	}
	return w.matches([]byte(got), md5s(key, n))
}

func (w *worker) batch(ctx context.Context) error {
	key, n := w.key(), 2+w.rnd.IntN(40)
	w.asked = fmt.Sprintf("a batch of %d times select md5('%s' || $1::int4)", n, key)
	var b pgx.Batch
	for i := range n {
		b.Queue("select md5($1::text || $2::int4)", key, i)
	}
	results := w.conn.SendBatch(ctx, &b)
	for i := range n {
		var got string
		if err := results.QueryRow().Scan(&got); err != nil {
			_ = results.Close()
			return err
		}
		if err := w.matches([]byte(got), []byte(md5hex(fmt.Sprint(key, i)))); err != nil {
			_ = results.Close()
			return err
		}
	}
	return results.Close()
}

// pipeline sends queries ahead of their answers, and some of them fail: what is
// between an error and the next Sync has no answer.
func (w *worker) pipeline(ctx context.Context) error {
	key, n := w.key(), 2+w.rnd.IntN(12)
	w.asked = fmt.Sprintf("a pipeline of %d times select md5('%s' || n), some of which fail", n, key)
	p := w.conn.PgConn().StartPipeline(ctx)
	var want []string
	for i := range n {
		failing := w.rnd.IntN(4) == 0
		if failing {
			p.SendQueryParams("select 1/$1::int4", [][]byte{[]byte("0")}, nil, nil, nil)
			p.SendQueryParams("select 'skipped'", nil, nil, nil, nil)
			want = append(want, "22012")
		} else {
			p.SendQueryParams("select md5($1::text)", [][]byte{fmt.Append(nil, key, i)}, nil, nil, nil)
			want = append(want, md5hex(fmt.Sprint(key, i)))
		}
		want = append(want, "sync")
		if err := p.Sync(); err != nil {
			_ = p.Close()
			return err
		}
	}
	got, err := collect(p)
	if err != nil {
		_ = p.Close()
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	return w.matches([]byte(strings.Join(got, "\n")), []byte(strings.Join(want, "\n")))
}

// collect reads all the answers of a pipeline; an error that PostgreSQL has
// answered with is an answer by its SQLSTATE.
func collect(p *pgconn.Pipeline) (got []string, err error) {
	for {
		result, err := p.GetResults()
		var refused *pgconn.PgError
		switch {
		case errors.As(err, &refused) && refused.Severity == "ERROR":
			got = append(got, refused.Code)
			continue
		case err != nil:
			return got, err
		case result == nil:
			return got, nil
		}
		switch r := result.(type) {
		case *pgconn.PipelineSync:
			got = append(got, "sync")
		case *pgconn.ResultReader:
			read := r.Read()
			if errors.As(read.Err, &refused) && refused.Severity == "ERROR" {
				got = append(got, refused.Code)
				continue
			}
			if read.Err != nil {
				return got, read.Err
			}
			for _, row := range read.Rows {
				got = append(got, string(row[0]))
			}
		}
	}
}

func (w *worker) copies(ctx context.Context) error {
	key, n, long := w.key(), size(w.rnd, 2000), size(w.rnd, 40)
	w.asked = fmt.Sprintf("COPY of %d lines of %s and %d digests, in and out", n, key, long)
	var in bytes.Buffer
	for i := range n {
		fmt.Fprintf(&in, "%d\t%s\n", i, md5s(fmt.Sprint(key, i, "/"), 1+(i+long)%long))
	}
	want := bytes.Clone(in.Bytes())
	w.s.sent.Add(int64(len(want)))
	if _, err := w.conn.Exec(ctx, "create temp table if not exists copied (k int4, t text); truncate copied"); err != nil {
		return err
	}
	tag, err := w.conn.PgConn().CopyFrom(ctx, &in, "copy copied from stdin")
	if err != nil {
		return err
	}
	if tag.RowsAffected() != int64(n) {
		return &mismatch{fmt.Sprintf("COPY of %d lines answers %s", n, tag)}
	}
	var out bytes.Buffer
	if _, err := w.conn.PgConn().CopyTo(ctx, &out, "copy (select * from copied order by k) to stdout"); err != nil {
		return err
	}
	return w.matches(out.Bytes(), want)
}

// ledgered writes rows of the ledger: by single statements, in a
// transaction that commits, or in one that does not.
func (w *worker) ledgered(ctx context.Context) error {
	rows := make([]entry, 1+w.rnd.IntN(4))
	bodies := make([]string, len(rows))
	for i := range rows {
		w.entries++
		rows[i] = entry{w.number, w.entries}
		bodies[i] = string(md5s(fmt.Sprintf("%x/%v/", w.s.seed, rows[i]), size(w.rnd, 64)))
	}
	note := func(f rowState) {
		for i, e := range rows {
			w.s.ledger.note(e, f, md5hex(bodies[i]))
		}
	}
	const insert = "insert into ledger values ($1, $2, $3)"
	if w.rnd.IntN(3) == 0 {
		rows, bodies = rows[:1], bodies[:1]
		w.asked = fmt.Sprintf("%s with %v", insert, rows[0])
		note(inDoubt)
		if _, err := w.conn.Exec(ctx, insert, rows[0].client, rows[0].number, bodies[0]); err != nil {
			return err
		}
		note(acknowledged)
		return nil
	}
	rollback := w.rnd.IntN(4) == 0
	w.asked = fmt.Sprintf("a transaction that inserts %d rows up to %v, rolled back: %v", len(rows), rows[len(rows)-1], rollback)
	note(neverAsked)
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return err
	}
	w.midway = true
	for i, e := range rows {
		if _, err := tx.Exec(ctx, insert, e.client, e.number, bodies[i]); err != nil {
			return err
		}
	}
	var n int
	if err := tx.QueryRow(ctx, "select count(*) from ledger where client = $1 and number between $2 and $3",
		w.number, rows[0].number, rows[len(rows)-1].number).Scan(&n); err != nil {
		return err
	}
	if n != len(rows) {
		return &mismatch{fmt.Sprintf("the transaction sees %d of its %d rows", n, len(rows))}
	}
	if rollback {
		return tx.Rollback(ctx)
	}
	note(inDoubt)
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	note(acknowledged)
	return nil
}

func (w *worker) mistakes(ctx context.Context) error {
	words := w.key()
	m := []struct{ sql, code, message string }{
		{"select 1/0", "22012", "division by zero"},
		{"selekt", "42601", `syntax error at or near "selekt"`},
		{"select * from nowhere", "42P01", `relation "nowhere" does not exist`},
		{"do $$ begin raise exception '" + words + "' using errcode = 'SI001'; end $$", "SI001", words},
	}[w.rnd.IntN(4)]
	w.asked = m.sql
	_, err := w.conn.Exec(ctx, m.sql)
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Severity != "ERROR" {
		if err == nil {
			return &mismatch{"no error where one was due"}
		}
		return err
	}
	return w.matches([]byte(refused.Code+" "+refused.Message), []byte(m.code+" "+m.message))
}

// notices has one session notify another.
func (w *worker) notices(ctx context.Context) error {
	n, channel := 1+w.rnd.IntN(8), fmt.Sprintf("c%d", w.number)
	w.asked = fmt.Sprintf("listen %s, for %d notifications from another session", channel, n)
	if _, err := w.conn.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	payloads := make([]string, n)
	for i := range payloads {
		payloads[i] = string(md5s(w.key(), size(w.rnd, 200)))
	}
	other := w.another()
	if !other.connect() {
		return w.unlisten(ctx, channel)
	}
	spoken := other.does("NOTIFY of another", func(o *worker, ctx context.Context) error {
		for _, p := range payloads {
			if _, err := o.conn.Exec(ctx, "select pg_notify($1, $2)", channel, p); err != nil {
				return err
			}
		}
		return nil
	})
	other.close()
	if !spoken {
		return w.unlisten(ctx, channel) // which notifications were sent is unknown
	}
	for _, want := range payloads {
		got, err := w.conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if err := w.matches([]byte(got.Channel+got.Payload), []byte(channel+want)); err != nil {
			return err
		}
	}
	return w.unlisten(ctx, channel)
}

// unlisten also discards notifications that have come and were not waited for.
func (w *worker) unlisten(ctx context.Context, channel string) error {
	if _, err := w.conn.Exec(ctx, "unlisten "+channel); err != nil {
		return err
	}
	for {
		soon, cancel := context.WithTimeout(ctx, time.Millisecond)
		_, err := w.conn.WaitForNotification(soon)
		cancel()
		if err != nil {
			if w.conn.IsClosed() {
				return err
			}
			return nil
		}
	}
}

// cancels cancels its own query by another connection, until it is cancelled: a
// cancel that comes before the query has begun cancels nothing.
func (w *worker) cancels(ctx context.Context) error {
	w.asked = "select pg_sleep(3600), to be cancelled"
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
				// That it has reached PostgreSQL shows in the query. It returns when
				// PostgreSQL has sent the signal, so none comes late.
				_ = w.conn.PgConn().CancelRequest(ctx)
			}
		}
	})
	_, err := w.conn.Exec(ctx, "select pg_sleep(3600)")
	close(done)
	wg.Wait()
	if state(err) == "57014" {
		return nil
	}
	if err == nil {
		return &mismatch{"pg_sleep(3600) has returned"}
	}
	return err
}

// slowRead stops reading in the middle of a large answer, so that everything on
// the way fills up.
func (w *worker) slowRead(ctx context.Context) error {
	key, n, stops := w.key(), 1000+w.rnd.IntN(6000), w.rnd.IntN(3)
	w.asked = fmt.Sprintf("select repeat(md5('%s' || g), 64) from generate_series(1, %d) g, read with %d stops", key, n, stops)
	rows := w.conn.PgConn().ExecParams(ctx, "select repeat(md5($1::text || g), 64) from generate_series(1, $2::int4) g",
		[][]byte{[]byte(key), fmt.Append(nil, n)}, nil, nil, nil)
	var pauses []int
	for range stops {
		pauses = append(pauses, w.rnd.IntN(n))
	}
	pause := time.Duration(100+w.rnd.IntN(1500)) * time.Millisecond
	i := 0
	for rows.NextRow() {
		i++
		w.midway = true
		if err := w.matches(rows.Values()[0], []byte(strings.Repeat(md5hex(fmt.Sprint(key, i)), 64))); err != nil {
			_, _ = rows.Close()
			return err
		}
		for _, p := range pauses {
			if p == i {
				time.Sleep(pause)
			}
		}
	}
	if _, err := rows.Close(); err != nil {
		return err
	}
	if i != n {
		return &mismatch{fmt.Sprintf("%d rows instead of %d", i, n)}
	}
	return nil
}

// remembers uses the session's temporary table.
func (w *worker) remembers(ctx context.Context) error {
	w.asked = fmt.Sprintf("the temporary table of the session, which has %d rows", w.kept)
	if w.kept == 0 {
		if _, err := w.conn.Exec(ctx, "create temp table kept (n int4)"); err != nil {
			return err
		}
	}
	var n int
	if _, err := w.conn.Exec(ctx, "insert into kept values ($1)", w.kept); err != nil {
		return err
	}
	w.kept++
	if err := w.conn.QueryRow(ctx, "select count(*) from kept").Scan(&n); err != nil {
		return err
	}
	return w.matches(fmt.Append(nil, n), fmt.Append(nil, w.kept))
}
