package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/report"
)

// setting is a row of pg_settings.
type setting struct {
	value   string // that a new session gets
	context string
	source  string
	file    string // where it is set; empty: unknown, or not in a file
	list    bool   // a list of names, each quoted by itself
	pending bool   // another value waits for a restart
}

// loadSettings reads the parameters. setting has the form of SHOW, and reset_val what the
// server had before this session changed it.
func loadSettings(ctx context.Context, conn *pgconn.PgConn) (map[string]setting, error) {
	rows, err := Query(ctx, conn, `select name, coalesce(case source when 'session' then reset_val else setting end, ''), context, source, coalesce(sourcefile || ':' || sourceline, ''), pending_restart from pg_settings`)
	if err != nil {
		return nil, err
	}
	all := make(map[string]setting, len(rows))
	for _, r := range rows {
		all[r[0]] = setting{value: r[1], context: r[2], source: r[3], file: safe(r[4]), list: strings.HasSuffix(r[0], "_preload_libraries"), pending: r[5] == "t"}
	}
	return all, nil
}

// value returns the value of a parameter, and whether the server has it and this role may
// read it.
func (s *server) value(name string) (string, bool) {
	v, ok := s.settings[name]
	return v.value, ok
}

// words returns the names in a list.
func (s *server) words(name string) (out []string) {
	v, _ := s.value(name)
	for w := range strings.SplitSeq(v, ",") {
		if w = strings.Trim(strings.TrimSpace(w), `"`); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// preloads reports whether a library is loaded by every server process.
func (s *server) preloads(library string) bool {
	return slices.ContainsFunc(s.words("shared_preload_libraries"), func(w string) bool {
		return strings.TrimSuffix(w[strings.LastIndexByte(w, '/')+1:], ".so") == library
	})
}

// set returns the statements that give a parameter a value, in SQL. Where ALTER SYSTEM
// cannot, it returns the line of postgresql.conf.
func (s *server) set(name, value string) string {
	v := s.settings[name]
	allowed, known := s.value("allow_alter_system")
	switch {
	case v.source == "command line" || v.source == "environment variable":
		return fmt.Sprintf("%s = %s   # in postgresql.conf; and remove it from the command line of the server", name, value)
	case !s.super || known && allowed == "off":
		return fmt.Sprintf("%s = %s   # in postgresql.conf, or where your provider has it", name, value)
	case v.context == "postmaster":
		return fmt.Sprintf("alter system set %s = %s;\n-- then restart PostgreSQL", name, value)
	}
	return fmt.Sprintf("alter system set %s = %s;\nselect pg_reload_conf();", name, value)
}

// preload returns the statements that add a library to shared_preload_libraries.
func (s *server) preload(library string) string {
	var list []string
	for _, w := range append(s.words("shared_preload_libraries"), library) {
		list = append(list, "'"+strings.ReplaceAll(w, "'", "''")+"'")
	}
	return "-- install the package of " + library + " first: PostgreSQL does not start without a library of the list\n" +
		"-- name all libraries that you add in one statement: each replaces the list\n" + safeStatements(s.set("shared_preload_libraries", strings.Join(list, ", ")))
}

// settingCheck is a check of one parameter.
type settingCheck struct {
	about
	name          string // of the parameter
	status        report.Status
	since, before int // major releases, as in listCheck
	// wrong returns what is wrong with a value; "": nothing.
	wrong func(s *server, value string) string
	want  string // the right value, in SQL
	first string // what to do before, as a comment; empty: nothing
}

func (c settingCheck) findings(_ context.Context, s *server) []report.Finding {
	v, known := s.settings[c.name]
	switch {
	case s.release < c.since*10000 || c.before > 0 && s.release >= c.before*10000:
		return nil
	case !known:
		return []report.Finding{stamp(c.about, report.New(report.Skip, c.name, "this role may not read it", "grant pg_read_all_settings, or connect as a superuser"))}
	}
	reason := c.wrong(s, v.value)
	if reason == "" {
		return []report.Finding{stamp(c.about, report.Passed("%s is %s", c.name, display(v.value)))}
	}
	where := c.name
	if v.file != "" {
		where += ", " + v.file
	}
	return []report.Finding{stamp(c.about, report.New(c.status, where, c.name+" "+reason, c.first+s.set(c.name, c.want)))}
}

func display(value string) string {
	if value == "" {
		return "empty"
	}
	return safe(value)
}

// is returns a test of a parameter for a value that is wrong.
func is(value, reason string) func(*server, string) string {
	return func(_ *server, v string) string {
		if v == value {
			return "is " + value + ": " + reason
		}
		return ""
	}
}

// oneOf is the same for several values.
func oneOf(reason string, values ...string) func(*server, string) string {
	return func(_ *server, v string) string {
		if slices.Contains(values, v) {
			return "is " + v + ": " + reason
		}
		return ""
	}
}

// onlyIf makes a test only where a condition holds.
func onlyIf(condition func(*server) bool, test func(*server, string) string) func(*server, string) string {
	return func(s *server, v string) string {
		if !condition(s) {
			return ""
		}
		return test(s, v)
	}
}
