// Package postgres examines a PostgreSQL by SQL: its files, roles, privileges, settings
// and release. It needs no gate. It changes nothing: its sessions are read only, and no
// statement takes longer than statementTimeout or waits longer than lockTimeout for a lock.
//
// One file has the checks of one heading of docs/hardening.md. Most checks are a query
// that returns the objects that are wrong, each with the statement that mends it, so that
// the quoting is the server's own.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/printable"
)

// The bounds of an examination.
const (
	statementTimeout = "5s"
	lockTimeout      = "1s"
	databaseTimeout  = 15 * time.Second // for all queries in one database
	examineTimeout   = 2 * time.Minute  // for all databases
	workers          = 2                // databases that are asked at the same time; superuser_reserved_connections is 3
	maxDatabases     = 1000
	maxObjects       = 200   // that one query returns; it counts the others
	maxListed        = 20000 // that all databases return for one check
	maxKept          = 64 << 20
	maxAnswer        = 32 << 20
	maxReason        = 500 // bytes of an error
)

// Options say what is known of a server besides what it answers.
type Options struct {
	// Connect opens a connection to a database of the server, which Prepare has prepared.
	Connect func(ctx context.Context, database string) (*pgconn.PgConn, error)
	Now     time.Time
	// Local is set if the files of the server are on this machine.
	Local bool
	// BehindGate is set if clients come through a gate. GateLimits says how it limits the
	// sessions of an account, and GateDelays how it delays those who guess passwords;
	// empty: it does not.
	BehindGate             bool
	GateLimits, GateDelays string
	// Timeout bounds the whole; 0 is two minutes. The databases that are left then are named.
	Timeout time.Duration
}

// Examine makes all checks that SQL can make. conn is a connection to one database of the
// server, which Prepare has prepared; it stays open.
func Examine(ctx context.Context, conn *pgconn.PgConn, o Options) []report.Finding {
	if o.Timeout == 0 {
		o.Timeout = examineTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	s := &server{Options: o, lists: make(lists)}
	if err := s.load(ctx, conn); err != nil {
		return []report.Finding{stamp(about{"databases", report.DataAccess, "", ""}, report.New(report.Skip, "", "PostgreSQL could not be examined by SQL: "+Reason(err), "connect as a superuser"))}
	}
	s.startGuessing(ctx)
	s.add(s.runLists(ctx, conn, s.database, false))
	s.add(s.runLists(ctx, conn, s.database, true))
	s.examineOthers(ctx)
	var all []report.Finding
	for _, c := range checks() {
		all = append(all, c.findings(ctx, s)...)
	}
	return all
}

// Names returns the id of every check.
func Names() (names []string) {
	for _, c := range checks() {
		if id := c.subject().id; !slices.Contains(names, id) { // one may have a form for each release
			names = append(names, id)
		}
	}
	return names
}

// server is what is known of a PostgreSQL.
type server struct {
	Options

	release    int // as server_version_num
	super      bool
	database   string // of the first connection
	settings   map[string]setting
	databases  []string
	skipped    []skipped
	lists      lists
	kept       int  // bytes of the objects in lists
	replicates bool // a role that is no superuser may replicate

	verifiers    []verifier // of the roles that can log in
	verifiersErr string     // why they are not known
	guesses      chan []report.Finding
	files        fileState
}

// skipped is a database that is not examined.
type skipped struct{ name, reason string }

// load reads what all checks need.
func (s *server) load(ctx context.Context, conn *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	rows, err := Query(ctx, conn, `select current_database(), current_setting('server_version_num'), rolsuper from pg_roles where rolname = current_user`)
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return errors.New("there is no role of this session")
	}
	s.database, s.super = rows[0][0], rows[0][2] == "t"
	_, _ = fmt.Sscan(rows[0][1], &s.release)
	if s.settings, err = loadSettings(ctx, conn); err != nil {
		return err
	}
	rows, err = Query(ctx, conn, `select datname, datallowconn, has_database_privilege(oid, 'connect') from pg_database order by datname`)
	if err != nil {
		return err
	}
	for _, row := range rows {
		switch {
		case row[1] != "t": // template0: nobody can connect
		case row[2] != "t":
			s.skipped = append(s.skipped, skipped{row[0], "this role may not connect"})
		case len(s.databases) == maxDatabases:
			s.skipped = append(s.skipped, skipped{row[0], fmt.Sprintf("only %d are examined", maxDatabases)})
		default:
			s.databases = append(s.databases, row[0])
		}
	}
	rows, err = Query(ctx, conn, "select from pg_roles where rolreplication and not rolsuper")
	s.replicates = err == nil && len(rows) > 0
	s.loadVerifiers(ctx, conn)
	s.loadFiles(ctx, conn)
	return nil
}

// examineOthers asks the databases besides that of the first connection, some at a time, until
// the time is over.
func (s *server) examineOthers(ctx context.Context) {
	var group sync.WaitGroup
	var mu sync.Mutex
	free := make(chan struct{}, workers)
	for _, d := range s.databases {
		if d == s.database {
			continue
		}
		free <- struct{}{}
		group.Go(func() {
			all, reason := s.examineDatabase(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			if reason != "" {
				s.skipped = append(s.skipped, skipped{d, reason})
			}
			s.add(all)
			<-free
		})
	}
	group.Wait()
	s.sort()
	slices.SortStableFunc(s.skipped, func(a, b skipped) int { return strings.Compare(a.name, b.name) })
}

// examineDatabase makes the queries that each database is asked, or returns why it cannot.
func (s *server) examineDatabase(ctx context.Context, database string) (lists, string) {
	late := fmt.Sprintf("the %v for all databases were over", s.Timeout)
	if ctx.Err() != nil {
		return nil, late
	}
	one, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	conn, err := s.Connect(one, database)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, late
	case err != nil:
		return nil, Reason(err)
	}
	defer conn.Close(one)
	return s.runLists(one, conn, database, true), ""
}

// Reason returns the message of PostgreSQL without what pgx adds to it, fit for a terminal.
func Reason(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return printable.Short(pgErr.Message, maxReason)
	}
	return printable.Short(strings.ReplaceAll(err.Error(), "\n", " "), maxReason)
}
