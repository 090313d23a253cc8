// Package group asks PostgreSQL for the members of roles, for rules that name them with +role, and
// keeps the last answer.
package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/backend"
	"pgwicket/internal/socket"
)

const (
	// Timeout bounds a look-up, from the connection to the last row.
	Timeout = 10 * time.Second
	// MaxMembers bounds the members of all roles of an answer together. As many with names of 20
	// bytes take some 10 MB.
	MaxMembers = 100_000
	// maxAnswer is what a server may send during a look-up: twice what MaxMembers names of 63 bytes take.
	maxAnswer = 32 << 20
	// maxMessage is far above a row or an error.
	maxMessage = 64 << 10
)

// Lookup is a question for the members of roles.
type Lookup struct {
	// Backend is asked over a connection of its own, as a session would be: the first host that
	// answers, with its TLS. A standby knows the roles, too.
	Backend *backend.Backend
	// User is the role that asks, and Password its password; empty: it has none, and PostgreSQL
	// knows the account of the gate (peer) or its certificate.
	User, Database, Password string
	// Roles are at least one, each once.
	Roles []string
	// Account is the one as which root connects to a Unix socket, on Linux.
	Account socket.Account
}

// query follows pg_auth_members down from each role, as roles_is_member_of in
// src/backend/utils/adt/acl.c follows it up: whatever the options of a grant. A role is a member of
// itself, and a superuser only of what it was granted. Every account may read these tables.
const query = `with recursive reached (role, member) as (
    select r.oid, r.oid from pg_catalog.pg_roles r where r.rolname = any ($1::pg_catalog.name[])
  union
    select reached.role, m.member from reached join pg_catalog.pg_auth_members m on m.roleid = reached.member
)
select r.rolname, m.rolname from reached
  join pg_catalog.pg_roles r on r.oid = reached.role
  join pg_catalog.pg_roles m on m.oid = reached.member
 limit $2`

// Ask returns the members of each role, as acl.NewMembers takes them. A role that does not exist has
// none. The answer of the server is read with distrust: it ends the look-up if it is too long, takes
// too long, or is not what was asked for.
func (l *Lookup) Ask(ctx context.Context) (map[string][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	d := &dialled{lookup: l}
	defer d.close()
	cfg, err := l.config(d)
	if err != nil {
		return nil, err
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, d.explain(ctx, err)
	}
	answer, err := l.read(conn.ExecParams(ctx, query, [][]byte{[]byte(array(l.Roles)), fmt.Append(nil, MaxMembers+1)}, nil, nil, nil), d)
	if err == nil {
		err = conn.Close(ctx)
	} else {
		d.close() // else pgconn reads on until its own deadline
		_ = conn.Close(ctx)
		<-conn.CleanupDone()
	}
	if err != nil {
		return nil, d.explain(ctx, err)
	}
	return answer, nil
}

// config has nothing of the environment or of the files of this account.
func (l *Lookup) config(d *dialled) (*pgconn.Config, error) {
	cfg, err := pgconn.ParseConfig("host=/ port=5432 user=x dbname=x sslmode=disable passfile=/dev/null target_session_attrs=any connect_timeout=0")
	if err != nil {
		return nil, fmt.Errorf("the environment has a variable of libpq, such as PGSERVICE, that cannot be used: %w", err)
	}
	cfg.User, cfg.Database, cfg.Password = l.User, l.Database, l.Password
	cfg.RuntimeParams = map[string]string{
		"application_name": "pgwicket", "default_transaction_read_only": "on", "search_path": "pg_catalog",
		"statement_timeout": fmt.Sprint((Timeout * 8 / 10).Milliseconds()),
		"client_encoding":   "SQL_ASCII", // names as bytes, as a startup packet has them
	}
	cfg.Fallbacks, cfg.TLSConfig, cfg.ConnectTimeout = nil, nil, 0
	cfg.RequireAuth, cfg.ChannelBinding = "scram-sha-256,md5,none", "disable" // no password in clear
	cfg.MinProtocolVersion, cfg.MaxProtocolVersion = "3.0", "3.0"
	cfg.MaxProtocolMessageBodyLen = maxMessage
	cfg.DialFunc = d.dial
	return cfg, nil
}

// read reads the rows of the answer. It closes d when it has had enough.
func (l *Lookup) read(rows *pgconn.ResultReader, d *dialled) (map[string][]string, error) {
	answer := make(map[string][]string, len(l.Roles))
	for _, role := range l.Roles {
		answer[role] = nil
	}
	n := 0
	fail := func(format string, args ...any) (map[string][]string, error) {
		d.close()
		_, _ = rows.Close()
		return nil, fmt.Errorf(format, args...)
	}
	for rows.NextRow() {
		row := rows.Values()
		if len(row) != 2 || len(row[0]) == 0 || len(row[1]) == 0 {
			return fail("the server answers with rows that are not a role and a member")
		}
		names, asked := answer[string(row[0])]
		if !asked {
			return fail("the server answers about a role that was not asked for")
		}
		if n++; n > MaxMembers {
			return fail("the roles have more than %d members together", MaxMembers)
		}
		answer[string(row[0])] = append(names, string(row[1]))
	}
	_, err := rows.Close()
	return answer, err
}

// array writes a list as PostgreSQL reads an array.
func array(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// dialled is the one connection of a look-up.
type dialled struct {
	lookup *Lookup
	conn   net.Conn
	err    error        // why there is none
	left   atomic.Int64 // bytes that the server may still send; pgconn may read on in the background
}

var errAnswerTooLong = fmt.Errorf("the server sends more than %d MiB", maxAnswer>>20)

// dial connects once: pgconn would connect again to cancel a query.
func (d *dialled) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if d.conn != nil || d.err != nil {
		return nil, errors.New("a look-up has one connection")
	}
	var conn *backend.Conn
	var failures backend.Failures
	socket.As(d.lookup.Account, func() {
		conn, d.err = d.lookup.Backend.Connect(ctx, &failures, func(*backend.Host, error) {})
	})
	if d.err != nil {
		return nil, d.err
	}
	d.conn = conn
	d.left.Store(maxAnswer)
	return &bounded{conn, d}, nil
}

func (d *dialled) close() {
	if d.conn != nil {
		_ = d.conn.Close()
	}
}

// explain returns the reason of a failure in one line, without what pgconn puts around it.
func (d *dialled) explain(ctx context.Context, err error) error {
	var refusal *pgconn.PgError
	switch {
	case d.err != nil:
		return errors.New(strings.ReplaceAll(d.err.Error(), "\n", "; "))
	case errors.As(err, &refusal):
		return fmt.Errorf("PostgreSQL says: %s (%s)", strings.ReplaceAll(refusal.Message, "\n", " "), refusal.Code)
	case d.conn != nil && d.left.Load() <= 0:
		return errAnswerTooLong
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v", Timeout)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the server has closed the connection")
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		err = connect.Unwrap()
	}
	text := strings.TrimPrefix(err.Error(), "/.s.PGSQL.5432 (/): ") // of the address in config
	return errors.New(strings.ReplaceAll(text, "\n", "; "))
}

// bounded is a connection that ends when the server has sent too much.
type bounded struct {
	*backend.Conn
	of *dialled
}

// Read implements net.Conn.
func (b *bounded) Read(p []byte) (int, error) {
	if b.of.left.Load() <= 0 {
		return 0, errAnswerTooLong
	}
	n, err := b.Conn.Read(p)
	b.of.left.Add(-int64(n))
	return n, err
}
