//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// revokedClient is what a client does when its certificate is revoked.
type revokedClient struct {
	name   string
	begin  string // a message that comes first, if any
	repeat string // what it sends all the time; empty: nothing
	reads  bool
	closes bool // when it has been told, or would have been
	blocks bool // its backend waits for it to read, in which PostgreSQL heeds no cancel, only the end of its connection
}

func revokedClients(table string) []revokedClient {
	insert := wire.Query("insert into " + table + " values (clock_timestamp())")
	slow := wire.Query("insert into " + table + " select clock_timestamp() from pg_sleep(0.02)")
	return []revokedClient{
		{name: "a pipeline, reading", repeat: insert, reads: true},
		{name: "a pipeline, not reading", repeat: slow},
		{name: "a pipeline, reading, then closing", repeat: insert, reads: true, closes: true},
		{name: "a pipeline, not reading, then closing", repeat: slow, closes: true},
		{name: "COPY in", begin: wire.Query("copy " + table + " from stdin"), repeat: wire.Message('d', "2026-01-01\n"), reads: true},
		{name: "COPY out, reading", begin: wire.Query("copy (" + digests(1<<30, 32) + ") to stdout"), reads: true},
		{name: "COPY out, not reading", begin: wire.Query("copy (" + digests(1<<30, 32) + ") to stdout"), blocks: true},
		{name: "a statement that sleeps", begin: wire.Query("select pg_sleep(600)"), reads: true},
	}
}

// Bounds of what a revoked client may still do, from the decision on.
const (
	statementBound = time.Second            // until its statement has ended
	cancelBound    = 100 * time.Millisecond // until PostgreSQL has the cancel
)

// The certificate of a session is revoked in the middle of what it does. By the
// gate's own clock, from the decision on, no statement may begin that PostgreSQL did
// not have in its socket, and the one that runs ends within a second.
func revokedClientsStop(ctx context.Context, t *trial) (string, error) {
	return t.compare(ctx, nil, func(ctx context.Context, s *scene) (string, error) {
		if _, err := t.db.SQL("create table if not exists revoked (at timestamptz); grant all on revoked to public; truncate revoked"); err != nil {
			return "", err
		}
		var figures []string
		var errs []error
		for i, c := range revokedClients("revoked") {
			figure, err := s.revokeDuring(ctx, i, c)
			if err != nil {
				err = fmt.Errorf("%s: %w", c.name, err)
			}
			figures, errs = append(figures, c.name+": "+figure), append(errs, err)
		}
		return strings.Join(figures, "; "), errors.Join(errs...)
	})
}

func (s *scene) revokeDuring(ctx context.Context, i int, c revokedClient) (string, error) {
	who, err := s.lab.issue(fmt.Sprintf("revoked-%d-%d", i, time.Now().UnixNano()))
	if err != nil {
		return "", err
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Reset()
	if err := conn.RequestTLS(); err != nil {
		return "", err
	}
	const name = "to be revoked"
	if err := conn.LogIn(ctx, s.lab.tlsConfig(who), "user", appUser, "database", "postgres", "application_name", name); err != nil {
		return "", err
	}
	pid, err := s.lab.count("select pid from pg_stat_activity where application_name = '" + name + "'")
	if err != nil {
		return "", err
	}
	told := make(chan struct{})
	if c.reads {
		go func() { _, _ = io.Copy(io.Discard, conn.Conn); close(told) }()
	}
	var sent atomic.Int64
	go func() {
		err := conn.Send(c.begin)
		for c.repeat != "" && err == nil {
			err = conn.Send(strings.Repeat(c.repeat, 20))
			sent.Add(20)
		}
	}()
	if err := s.busyWith(ctx, c); err != nil {
		return "", err
	}
	logged := len(s.lab.db.Log())
	if err := s.lab.revoke(time.Now().Unix(), who); err != nil {
		return "", err
	}
	decided, err := s.decision(ctx, time.Now().Add(-10*time.Millisecond))
	if err != nil {
		return "", err
	}
	if c.closes {
		select {
		case <-told:
		case <-time.After(200 * time.Millisecond):
		}
		conn.CloseTCP()
	}
	if err := s.backendGone(ctx, name); err != nil {
		return "", err
	}
	return s.afterDecision(decided, pid, logged, c.blocks)
}

func (s *scene) backendGone(ctx context.Context, application string) error {
	there := "select count(*) from pg_stat_activity where application_name = '" + application + "'"
	return gate.Eventually(ctx, "the backend is gone", gate.Timeout, func() error {
		n, err := s.lab.count(there)
		if err == nil && n > 0 {
			err = errors.New("it is not")
		}
		return err
	})
}

// busyWith waits until the client's session does what it is to be revoked in.
func (s *scene) busyWith(ctx context.Context, c revokedClient) error {
	return gate.Eventually(ctx, "the client is busy", gate.Timeout, func() error {
		want := "select count(*) from pg_stat_activity where application_name = 'to be revoked' and state = 'active'"
		if c.begin == "" {
			want = "select count(*) from revoked"
		}
		n, err := s.lab.count(want)
		if err == nil && n == 0 {
			err = errors.New("not yet")
		}
		return err
	})
}

// decision returns when the gate has decided, by its own log: the first reload since.
func (s *scene) decision(ctx context.Context, since time.Time) (decided time.Time, err error) {
	err = gate.Eventually(ctx, "the gate has loaded the list", gate.Timeout, func() error {
		for _, r := range s.Records() {
			if msg, _ := r["msg"].(string); !strings.Contains(msg, "reloaded") {
				continue
			}
			text, _ := r["time"].(string)
			if at, err := time.Parse(time.RFC3339Nano, text); err == nil && at.After(since) {
				decided = at
				return nil
			}
		}
		return errors.New("not yet")
	})
	return decided, err
}

var canceledLine = regexp.MustCompile(`(?m)^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (\S+) \[(\d+)\].*(canceling (?:statement|COPY)|terminating connection|connection to client lost|unexpected EOF)`)

// afterDecision says what PostgreSQL has done for the client since: statements by the
// rows that they have written, the cancel by its log.
func (s *scene) afterDecision(decided time.Time, pid, logged int, blocks bool) (string, error) {
	at := decided.UTC().Format("2006-01-02 15:04:05.000000-07")
	rows, err := s.lab.count("select count(*) from revoked where at > '" + at + "'")
	if err != nil {
		return "", err
	}
	var last float64
	if out, err := s.lab.db.SQL("select coalesce(extract(epoch from max(at) - '" + at + "'::timestamptz), 0) from revoked where at > '" + at + "'"); err == nil {
		_, _ = fmt.Sscan(out, &last)
	}
	figure := fmt.Sprintf("%d statements began after the decision", rows)
	if rows > 0 {
		figure += fmt.Sprintf(", the last %.0f ms after it", last*1000)
		if time.Duration(last*float64(time.Second)) > statementBound {
			err = fmt.Errorf("a statement began %.2f s after the decision", last)
		}
	}
	for _, m := range canceledLine.FindAllStringSubmatch(s.lab.db.Log()[logged:], -1) {
		when, e := time.Parse("2006-01-02 15:04:05.000 MST", m[1]+" "+m[2])
		if e != nil || m[3] != fmt.Sprint(pid) {
			continue
		}
		took := when.Sub(decided)
		figure += fmt.Sprintf("; PostgreSQL ended what it did %d ms after it", max(took.Milliseconds(), 0))
		bound := cancelBound
		if blocks {
			bound = statementBound
		}
		if took > bound {
			err = errors.Join(err, fmt.Errorf("PostgreSQL ended what it did after %v, %v are allowed", took, bound))
		}
		break
	}
	_, e := s.lab.db.SQL("truncate revoked")
	return figure, errors.Join(err, e)
}
