//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// pipelineUpgraded sends 1,000 queries without waiting for an answer. They are one transaction, and each answer has
// 100 kB, so that most of them still wait in PostgreSQL, the gate and the sockets at each upgrade.
func pipelineUpgraded(ctx context.Context, t *trial) (string, error) {
	const queries, length = 1000, 100_000
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=localhost port=%d user=%s dbname=postgres password='%s' sslmode=verify-full sslrootcert=%s",
		t.gate.Port, scramUser, password, t.caFile))
	if err != nil {
		return "", err
	}
	c, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	u, began := t.upgrades(queries), time.Now()
	p := c.StartPipeline(ctx)
	for n := range queries {
		sql := fmt.Sprintf("with one as (insert into piped values ($1) returning n) select n, repeat(chr(65 + n::int4 %% 26), %d) from one", length)
		p.SendQueryParams(sql, [][]byte{[]byte(strconv.Itoa(n))}, nil, nil, nil)
	}
	if err := p.Sync(); err != nil {
		return "", err
	}
	for n := range queries {
		if err := pipedAnswer(p, n, length); err != nil {
			return "", errors.Join(fmt.Errorf("answer %d: %w", n, err), u.wait())
		}
		if err := u.did(ctx, 1); err != nil {
			return "", err
		}
	}
	last, err := p.GetResults()
	if _, synced := last.(*pgconn.PipelineSync); err == nil && !synced {
		err = fmt.Errorf("%T has come behind the last answer", last)
	}
	if err = errors.Join(err, p.Close()); err != nil {
		return "", err
	}
	done, err := u.end()
	if err != nil {
		return "", err
	}
	got, err := t.ask(ctx, t.straight(), "select count(*), count(distinct n), min(n), max(n) from piped")
	if want := fmt.Sprintf("%[1]d|%[1]d|0|%d", queries, queries-1); err == nil && got != want {
		err = fmt.Errorf("the table has %s and not %s", got, want)
	}
	return inTime(queries*length, began, done) + "; every answer is right and in its order, and the transaction has all rows", err
}

// pipedAnswer reads the answer to a query of the pipeline.
func pipedAnswer(p *pgconn.Pipeline, n, length int) error {
	results, err := p.GetResults()
	if err != nil {
		return err
	}
	reader, ok := results.(*pgconn.ResultReader)
	if !ok {
		return fmt.Errorf("%T has come", results)
	}
	r := reader.Read()
	if r.Err != nil {
		return r.Err
	}
	want := strings.Repeat(string(rune('A'+n%26)), length)
	if len(r.Rows) != 1 || string(r.Rows[0][0]) != strconv.Itoa(n) || string(r.Rows[0][1]) != want {
		return errors.New("it is another one")
	}
	return nil
}
