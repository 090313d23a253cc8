//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"

	"pgwicket/test/gate"
)

// moment is something that happens to sessions, at a server and at a gate in front of it.
// Each function returns what the client has seen, in the order of sees.
type moment struct {
	title    string
	gate     string   // what happens at the gate
	straight string   // and at PostgreSQL
	sees     []string // the columns
	through  func(ctx context.Context, s *stage) ([]reply, error)
	direct   func(ctx context.Context, s *stage) ([]reply, error)
	// wrong says what of it is not as it should be; empty: nothing.
	wrong func(t told) string
}

// stage is one client, with a server and a gate of its own.
type stage struct {
	*lab
	client *talker
	server *server
	gate   *gate.Gate
	// crlFile is the gate's revocation list.
	crlFile string
	driver  driver
	port    int // where client goes
}

const (
	sameHandle = "the next query"
	newSession = "a new session then"
)

// moments are the tables of the page. Revocation is the last: no list takes it back.
func moments() []moment {
	return []moment{
		{
			"The limit is reached", "`limits.max_connections` sessions are open", "the role has as many as its `CONNECTION LIMIT`",
			[]string{"a new session", "a new session after one has ended"},
			overGateLimit, overServerLimit, limitIsTold,
		},
		{
			"A query is cancelled at the limit", "as above; the query runs in the last session", "as above",
			[]string{"the query", sameHandle},
			cancelAtGateLimit, cancelAtServerLimit, cancelWorks,
		},
		{
			"An administrator ends the session", "`pg_terminate_backend`", "`pg_terminate_backend`",
			[]string{"the idle session", sameHandle, newSession},
			terminatedThrough, terminated, endIsTheSame,
		},
		{
			"Drain", "SIGTERM to the gate while a query runs, which is cancelled then", "a smart shutdown of PostgreSQL, which ends no session",
			[]string{"a new session", "the cancelled query", "the session", sameHandle, newSession},
			drainGate, drainServer, drainIsTold,
		},
		{
			"The backend restarts", "a fast shutdown of PostgreSQL, and a start", "the same",
			[]string{"the idle session", "a new session before the start", sameHandle, newSession},
			restart, restart, restartIsTold,
		},
		{
			"The certificate is of an unknown CA", "a client certificate of another CA", "the same",
			[]string{"a new session"},
			stranger, stranger, strangerIsTold,
		},
		{
			"The certificate is revoked", "a new list; the session is idle", "a new list, and a reload",
			[]string{"the session", "a new session"},
			revokeAtGate, revokeAtServer, revocationIsTold,
		},
	}
}

// idle waits until no client has a session at the server.
func (s *stage) idle(ctx context.Context) error {
	return s.sessions(ctx, "select count(*) from pg_stat_activity where backend_type = 'client backend' and usename <> current_user", "0")
}

func (s *stage) sessions(ctx context.Context, sql, want string) error {
	return gate.Eventually(ctx, sql, gate.Timeout, func() error {
		got, err := s.server.SQL(sql)
		if err == nil && got != want {
			err = fmt.Errorf("%q, want %q", got, want)
		}
		return err
	})
}

// left waits until the gate has logged the end of a session since so many records, and returns
// all of them.
func (s *stage) left(ctx context.Context, since int) (ended []gate.Record, err error) {
	err = gate.Eventually(ctx, "the gate logs the end", gate.Timeout, func() error {
		ended = nil
		for _, r := range s.gate.Records()[since:] {
			if r.Is(gate.MessageEnded) {
				ended = append(ended, r)
			}
		}
		if len(ended) == 0 {
			return errors.New("no session has ended")
		}
		return nil
	})
	return ended, err
}

// all says commands one after the other.
func (s *stage) all(commands ...string) (seen []reply, err error) {
	for _, c := range commands {
		r, err := s.client.say(c)
		if err != nil {
			return nil, err
		}
		seen = append(seen, r)
	}
	return seen, nil
}

func (s *stage) begin(commands ...string) error {
	for _, c := range commands {
		if err := s.client.must(c); err != nil {
			return err
		}
	}
	return nil
}

const asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"

func (s *stage) sleeps(ctx context.Context) error {
	return errors.Join(s.begin("open "+scramUser, "sleep"), s.sessions(ctx, asleep, "1"))
}
