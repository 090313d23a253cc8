package postgres

import (
	"context"
	"fmt"
	"time"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/phrase"
)

// release is what is known of a major release.
type release struct {
	minor int    // the newest that is known
	known string // on this date
	end   string // of its support (PostgreSQL's versioning policy)
}

// releases is the table of major releases. Releases come on the second Thursday of
// February, May, August and November, and when something is urgent.
func releases() map[int]release {
	return map[int]release{
		14: {23, "2026-05-14", "2026-11-12"},
		15: {20, "2026-11-12", "2027-11-11"},
		16: {14, "2026-05-14", "2028-11-09"},
		17: {10, "2026-05-14", "2029-11-08"},
		18: {4, "2026-05-14", "2030-11-14"},
	}
}

// oldTable is the age from which on doctor says that its table is old.
const oldTable = 200 * 24 * time.Hour

// versionChecks are those of the releases of PostgreSQL and its extensions.
func versionChecks() []check {
	return []check{
		funcCheck{about{"server_version", report.Versions, "1.5", "Each minor release mends faults that are public from that day on, some of them of security."}, checkVersion},
		listCheck{
			about:  about{"extension_outdated", report.Versions, "1.5", "The files on the disk are newer than what the database has; fixes in SQL are not in force."},
			status: report.Note, everywhere: true,
			sql: `select format('%I %s', e.extname, e.extversion), format('alter extension %I update;', e.extname) from pg_extension e
				join pg_available_extensions a on a.name = e.extname where e.extversion <> a.default_version order by 1`,
			reason: "extensions that are older than their files: {}",
			passed: "every extension has the version of its files",
		},
	}
}

func checkVersion(_ context.Context, s *server) []report.Finding {
	major, minor := s.release/10000, s.release%10000
	running, _ := s.value("server_version")
	const upgrade = "pg_upgrade to a release that is supported"
	r, known := releases()[major]
	if !known {
		if major < 14 {
			return []report.Finding{report.New(report.Fail, "server_version", fmt.Sprintf("release %s gets no fixes any more", display(running)), upgrade)}
		}
		return []report.Finding{report.New(report.Skip, "server_version", fmt.Sprintf("release %d is newer than this pgwicket, which knows those up to 18", major), "")}
	}
	end, _ := time.Parse(time.DateOnly, r.end)
	table, _ := time.Parse(time.DateOnly, r.known)
	age := fmt.Sprintf("as of %s, %s ago", r.known, phrase.Count(int(s.Now.Sub(table).Hours()/24), "day"))
	if s.Now.Sub(table) > oldTable {
		age += "; a newer pgwicket knows more"
	}
	switch {
	case minor < r.minor:
		return []report.Finding{report.New(report.Warn, "server_version", fmt.Sprintf("release %s lacks the fixes of %s; the newest is %d.%d (%s)", display(running), phrase.Count(r.minor-minor, "minor release"), major, r.minor, age),
			fmt.Sprintf("install the packages of %d.%d, and restart PostgreSQL (a minor release needs no upgrade of the data)", major, r.minor))}
	case s.Now.After(end):
		return []report.Finding{report.New(report.Warn, "server_version", fmt.Sprintf("release %d gets no fixes since %s", major, r.end), upgrade)}
	}
	return []report.Finding{report.Passed("no release after %s is known (%s); fixes end on %s", display(running), age, r.end)}
}
