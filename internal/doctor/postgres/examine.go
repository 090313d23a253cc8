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
	maxDatabases     = 100
	maxObjects       = 200 // that one query returns; it counts the others
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
}

// Examine makes all checks that SQL can make. conn is a connection to one database of the
// server, which Prepare has prepared; it stays open.
func Examine(ctx context.Context, conn *pgconn.PgConn, o Options) []report.Finding {
	s := &server{Options: o, lists: make(map[string]*found)}
	if err := s.load(ctx, conn); err != nil {
		return []report.Finding{stamp(about{"databases", report.DataAccess, "", ""}, report.New(report.Skip, "", "PostgreSQL could not be examined by SQL: "+Reason(err), "connect as a superuser"))}
	}
	s.runLists(ctx, conn, s.database, false)
	s.runLists(ctx, conn, s.database, true)
	for _, d := range s.databases {
		if d != s.database {
			s.examineDatabase(ctx, d)
		}
	}
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
	skipped    []string // databases that are not examined, and why
	lists      map[string]*found
	replicates bool // a role that is no superuser may replicate

	verifiers    []verifier // of the roles that can log in
	verifiersErr string     // why they are not known
	files        fileState
}

// found is what a query has returned, in all databases.
type found struct {
	objects []report.Object
	more    int
	failed  string // the reason of the first failure
}

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
			s.skipped = append(s.skipped, quoted(row[0])+" (this role may not connect)")
		case len(s.databases) == maxDatabases:
			s.skipped = append(s.skipped, quoted(row[0])+" (only "+fmt.Sprint(maxDatabases)+" are examined)")
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

// examineDatabase makes the queries that each database is asked.
func (s *server) examineDatabase(ctx context.Context, database string) {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	conn, err := s.Connect(ctx, database)
	if err != nil {
		s.skipped = append(s.skipped, quoted(database)+" ("+Reason(err)+")")
		return
	}
	defer conn.Close(ctx)
	s.runLists(ctx, conn, database, true)
}

// Reason returns the message of PostgreSQL without what pgx adds to it, fit for a terminal.
func Reason(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return printable.Short(pgErr.Message, maxReason)
	}
	return printable.Short(strings.ReplaceAll(err.Error(), "\n", " "), maxReason)
}
