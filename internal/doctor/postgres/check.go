package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/report"
)

// about is what all findings of a check have in common. Its id does not change.
type about struct {
	id      string
	heading report.Heading
	cis     string // number in the CIS PostgreSQL 17 Benchmark; empty: none
	why     string
}

func (a about) subject() about { return a }

func stamp(a about, f report.Finding) report.Finding {
	f.Check, f.Heading, f.CIS, f.Why = a.id, a.heading, a.cis, a.why
	return f
}

// check is one check of a server. It has at least one finding, unless the release of the
// server has nothing to check.
type check interface {
	subject() about
	findings(ctx context.Context, s *server) []report.Finding
}

// checks returns all checks, by heading.
func checks() (all []check) {
	for _, of := range [][]check{
		physicalChecks(), transportChecks(), authenticationChecks(), roleChecks(), ownerChecks(), grantChecks(), publicChecks(), functionChecks(), nameChecks(), rowChecks(), foreignChecks(),
		encryptionChecks(), logChecks(), settingsChecks(), versionChecks(),
	} {
		all = append(all, of...)
	}
	return all
}

// funcCheck is a check in Go.
type funcCheck struct {
	about
	run func(ctx context.Context, s *server) []report.Finding
}

func (c funcCheck) findings(ctx context.Context, s *server) (out []report.Finding) {
	for _, f := range c.run(ctx, s) {
		out = append(out, stamp(c.about, f))
	}
	return out
}

// listCheck is a query for the objects that are wrong.
type listCheck struct {
	about
	status report.Status
	// since and before are major releases: the check is for those from since on, and
	// before before. 0 is no bound.
	since, before int
	// everywhere asks each database, and not the cluster as a whole.
	everywhere bool
	// sql returns the name of each object and the statement that mends it, both quoted by
	// the server. It needs no limit.
	sql string
	// after is a statement after those of all objects.
	after string
	// stopped returns how the gate already prevents it; "": it does not. nil: never.
	stopped func(Options) string
	reason  string // with {} for the names
	passed  string
}

func (c listCheck) applies(s *server) bool {
	return s.release >= c.since*10000 && (c.before == 0 || s.release < c.before*10000)
}

func (c listCheck) findings(_ context.Context, s *server) []report.Finding {
	f := s.lists[c.id]
	switch {
	case !c.applies(s):
		return nil
	case c.stopped != nil && c.stopped(s.Options) != "":
		return []report.Finding{stamp(c.about, report.Passed("%s", c.stopped(s.Options)))}
	case f == nil:
		return []report.Finding{stamp(c.about, report.New(report.Skip, "", "no database was asked", ""))}
	}
	var all []report.Finding
	if len(f.objects) > 0 {
		all = append(all, report.NewList(c.status, report.List{Reason: c.reason, Objects: f.objects, More: f.more, After: c.after}))
	}
	if f.failed != "" {
		all = append(all, report.New(report.Skip, "", f.failed, "connect as a superuser"))
	}
	if all == nil {
		all = append(all, report.Passed("%s", c.passed))
	}
	for i := range all {
		all[i] = stamp(c.about, all[i])
	}
	return all
}

// found is what a query has returned, in one database or in all.
type found struct {
	objects []report.Object
	more    int    // how many there are besides objects
	failed  string // the reason of the first failure
}

// lists are the answers to the queries, by the id of the check.
type lists map[string]*found

// add adds what was found in another database. What is more than maxListed objects of a check, or
// maxKept bytes of all, is only counted.
func (s *server) add(more lists) {
	for id, f := range more {
		sum := s.lists[id]
		if sum == nil {
			sum = &found{}
			s.lists[id] = sum
		}
		for _, o := range f.objects {
			if size := len(o.Name) + len(o.Fix); len(sum.objects) < maxListed && s.kept+size <= maxKept {
				sum.objects = append(sum.objects, o)
				s.kept += size
			} else {
				sum.more++
			}
		}
		sum.more += f.more
		if sum.failed == "" {
			sum.failed = f.failed
		}
	}
}

// sort sorts what was found: that of the first connection, and then by database.
func (s *server) sort() {
	for _, f := range s.lists {
		slices.SortStableFunc(f.objects, func(a, b report.Object) int {
			switch {
			case a.Database == b.Database:
				return 0
			case a.Database == s.database:
				return -1
			case b.Database == s.database:
				return 1
			}
			return strings.Compare(a.Database, b.Database)
		})
	}
}

// runLists asks one database. A server that does not keep to statement_timeout has no more
// than databaseTimeout.
func (s *server) runLists(ctx context.Context, conn *pgconn.PgConn, database string, everywhere bool) lists {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	all := make(lists)
	for _, c := range checks() {
		if l, ok := c.(listCheck); ok && l.everywhere == everywhere && l.applies(s) {
			all[l.id] = l.ask(ctx, conn, database)
		}
	}
	return all
}

func (c listCheck) ask(ctx context.Context, conn *pgconn.PgConn, database string) *found {
	f := &found{}
	rows, err := Query(ctx, conn, fmt.Sprintf("select *, count(*) over () from (%s) objects (name, fix) limit %d", c.sql, maxObjects))
	if err != nil {
		if f.failed = Reason(err); c.everywhere {
			f.failed = "in " + quoted(database) + ": " + f.failed
		}
		return f
	}
	for i, row := range rows {
		o := report.Object{Name: safe(row[0]), Fix: safeStatements(row[1])}
		if c.everywhere {
			o.Database, o.Name, o.Connect = database, quoted(database)+"."+o.Name, connectTo(database)
		}
		f.objects = append(f.objects, o)
		if i == 0 {
			var all int
			_, _ = fmt.Sscan(row[2], &all)
			f.more += all - len(rows)
		}
	}
	return f
}
