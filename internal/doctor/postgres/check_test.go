package postgres

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/pgtest"
)

// Parameters that a temporary server cannot have, or not without a log collector.
func TestSettings(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	collecting := map[string]string{"logging_collector": "on"}
	for _, c := range []struct {
		check, value string // of the parameter of the same name
		others       map[string]string
		release      int
		want         report.Status
		text         string
	}{
		{"log_disconnections", "off", nil, 150018, report.Note, "not its end"},
		{"log_disconnections", "on", nil, 150018, report.Pass, ""},
		{"log_file_mode", "0640", collecting, 150018, report.Pass, ""},
		{"log_file_mode", "0644", collecting, 150018, report.Warn, "can read or change the log"},
		{"log_file_mode", "0644", nil, 150018, report.Pass, ""},
		{"log_truncate_on_rotation", "off", map[string]string{"logging_collector": "on", "log_filename": "postgresql-%a.log"}, 150018, report.Note, "comes again"},
		{"log_truncate_on_rotation", "off", map[string]string{"logging_collector": "on", "log_filename": "postgresql-%Y-%m-%d.log"}, 150018, report.Pass, ""},
		{"log_rotation", "", map[string]string{"logging_collector": "on", "log_rotation_age": "0", "log_rotation_size": "0"}, 150018, report.Note, "never rotated"},
		{"log_rotation", "", map[string]string{"logging_collector": "on", "log_rotation_age": "1440", "log_rotation_size": "0"}, 150018, report.Pass, ""},
		{"log_directory", "log", collecting, 150018, report.Note, "inside the data directory"},
		{"log_directory", "/data/log", map[string]string{"logging_collector": "on", "data_directory": "/data"}, 150018, report.Note, "inside the data directory"},
		{"log_directory", "/var/log/postgresql", map[string]string{"logging_collector": "on", "data_directory": "/data"}, 150018, report.Pass, ""},
		{"pgaudit", "", map[string]string{"shared_preload_libraries": "auth_delay"}, 150018, report.Note, "pgaudit is not loaded (shared_preload_libraries is auth_delay)"},
		{"pgaudit", "", map[string]string{"shared_preload_libraries": `auth_delay, "$libdir/pgaudit"`}, 150018, report.Pass, ""},
		{"pgaudit", "", nil, 150018, report.Skip, "may not read it"},
		{"log_statement", "none", map[string]string{"shared_preload_libraries": "pgaudit"}, 150018, report.Pass, ""},
		{"log_line_prefix", "%-10t %5p %q%u@%d %h", nil, 150018, report.Pass, ""},
		{"log_line_prefix", "%t %%p %q%u@%d %r", nil, 150018, report.Note, "lacks the process (%p)"},
		{"db_user_namespace", "on", nil, 150018, report.Warn, "by database"},
		{"primary_conninfo", "host=/run/postgresql", nil, 150018, report.Pass, ""},
		{"primary_conninfo", "host=a sslmode = 'verify-full'", nil, 150018, report.Pass, ""},
		{"server_version", "15.18", nil, 150018, report.Warn, "lacks the fixes of 2 minor releases; the newest is 15.20 (as of 2026-11-12, 18 days ago)"},
		{"server_version", "15.21", nil, 150021, report.Pass, "fixes end on 2027-11-11"},
		{"server_version", "14.23", nil, 140023, report.Warn, "gets no fixes since 2026-11-12"},
		{"server_version", "13.20", nil, 130020, report.Fail, "gets no fixes"},
		{"server_version", "18.9", nil, 180009, report.Pass, "200 days ago"},
		{"server_version", "19.1", nil, 190001, report.Skip, "newer than this pgwicket"},
	} {
		s := &server{Options: Options{Now: now}, release: c.release, super: true, settings: map[string]setting{c.check: {value: c.value, context: "sighup"}}}
		if _, other := map[string]bool{"log_rotation": true, "pgaudit": true}[c.check]; other {
			delete(s.settings, c.check)
		}
		for name, value := range c.others {
			s.settings[name] = setting{value: value}
		}
		for _, one := range checks() {
			if one.subject().id != c.check {
				continue
			}
			f := one.findings(context.Background(), s)[0]
			if f.Status != c.want || !strings.Contains(f.Reason, c.text) {
				t.Errorf("%s = %q: %+v, not %s with %q", c.check, c.value, f, c.want, c.text)
			}
			if f.Status.Severity() != "" && (f.Fix == "" || f.Where == "") {
				t.Errorf("%s: no fix or no place: %+v", c.check, f)
			}
		}
	}
}

// The statement for a parameter depends on where it is set, and on who may set it.
func TestSet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set   setting
		super bool
		alter string
		want  string
	}{
		{setting{context: "sighup"}, true, "", "alter system set x = on;\nselect pg_reload_conf();"},
		{setting{context: "postmaster"}, true, "", "alter system set x = on;\n-- then restart PostgreSQL"},
		{setting{context: "sighup"}, false, "", "x = on   # in postgresql.conf, or where your provider has it"},
		{setting{context: "sighup"}, true, "off", "x = on   # in postgresql.conf, or where your provider has it"},
		{setting{context: "sighup", source: "command line"}, true, "", "x = on   # in postgresql.conf; and remove it from the command line of the server"},
	} {
		s := &server{super: c.super, settings: map[string]setting{"x": c.set}}
		if c.alter != "" {
			s.settings["allow_alter_system"] = setting{value: c.alter}
		}
		if got := s.set("x", "on"); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	directory := &server{super: true, settings: map[string]setting{"logging_collector": {value: "on"}, "log_directory": {value: "log", context: "sighup"}}}
	for _, c := range logChecks() {
		if c.subject().id != "log_directory" {
			continue
		}
		if f := c.findings(context.Background(), directory)[0]; !strings.HasPrefix(f.Fix, "-- make the directory for the account of PostgreSQL first") {
			t.Errorf("%+v", f)
		}
	}
	s := &server{super: true, settings: map[string]setting{"shared_preload_libraries": {value: `pg_stat_statements, "$libdir/it's"`, context: "postmaster"}}}
	if got := s.preload("pgaudit"); !strings.Contains(got, `alter system set shared_preload_libraries = 'pg_stat_statements', '$libdir/it''s', 'pgaudit';`) {
		t.Error(got)
	}
}

func TestSafe(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`public.orders`:             `public.orders`,
		`public."Größe 🐘"`:          `public."Größe 🐘"`,
		"public.\"a\nb\"":           `public.U&"a\000Ab"`,
		"\"a\x1b[2J\\\"\"b\"(text)": `U&"a\001B[2J\\""b"(text)`,
		"\"\u202egnp\"":             `U&"\202Egnp"`,
		"\"\U000e0001\"":            `U&"\+0E0001"`,
		"x\x1b[2J":                  `x\x1b[2J`,
		"'it''s\n'":                 `U&'it''s\000A'`,
		"\"unterminated\n":          `U&"unterminated\000A`,
	} {
		if got := safe(in); got != want {
			t.Errorf("%q: %s, not %s", in, got, want)
		}
	}
	if got := safeStatements("alter \"a\nb\";\nselect 1;"); got != "alter U&\"a\\000Ab\";\nselect 1;" {
		t.Error(got)
	}
	for in, want := range map[string]string{
		"shop":            `\connect shop`,
		"Shop":            `\connect -reuse-previous=on "dbname='Shop'"`,
		"host=evil":       `\connect -reuse-previous=on "dbname='host=evil'"`,
		`a"b'c\d`:         `\connect -reuse-previous=on "dbname='a""b\'c\\d'"`,
		"a\n\\! touch /x": "\\set conninfo `printf '" + `\144\142\156\141\155\145\075\047\141\012\134\134\041\040\164\157\165\143\150\040\057\170\047` + "'`\n" + `\connect -reuse-previous=on :conninfo`,
	} {
		if got := connectTo(in); got != want {
			t.Errorf("%q: %s, not %s", in, got, want)
		}
	}
}

// The files are those that a server names: one that is none must not stop doctor.
func TestPEM(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Skip(string(out))
	}
	for _, file := range []string{fifo, "/dev/zero", "/dev"} {
		s := &server{Options: Options{Local: true}, settings: map[string]setting{"ssl_crl_file": {value: file}}}
		if _, _, err := s.pemOf("ssl_crl_file"); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// Databases that do not answer are named, and do not keep doctor waiting one after the other.
func TestSlowDatabases(t *testing.T) {
	t.Parallel()
	db, err := pgtest.Start(t.Context(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Stop()
	names := []string{"a first", "z last"}
	for i := range 4 {
		names = append(names, "slow_"+strconv.Itoa(i))
	}
	for _, name := range names {
		if _, err := db.SQL(`create database "` + name + `"`); err != nil {
			t.Fatal(err)
		}
	}
	connect := func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		if strings.HasPrefix(database, "slow_") {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return pgconn.Connect(ctx, "host="+db.SocketDir+" port="+strconv.Itoa(db.Port)+" user=postgres dbname='"+database+"'")
	}
	conn, err := connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	began := time.Now()
	all := Examine(t.Context(), conn, Options{Connect: connect, Now: began, Timeout: 10 * time.Second})
	if took := time.Since(began); took < 10*time.Second || took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	want := `databases that were not examined: slow_0, slow_1, slow_2, slow_3, template1, "z last" (the 10s for all databases were over)`
	at := slices.IndexFunc(all, func(f report.Finding) bool { return f.Check == "databases" })
	if f := all[at]; f.Status != report.Skip || f.Reason != want {
		t.Errorf("%+v", f)
	}
	for _, f := range all {
		if f.Status == report.Skip && f.Check != "databases" && f.Check != "config_files" && f.Check != "library_files" {
			t.Errorf("%+v", f)
		}
	}
}

// What a server of many databases returns is bounded, and all of it is counted.
func TestManyObjects(t *testing.T) {
	t.Parallel()
	s := &server{database: "m", lists: make(lists)}
	one := func(database string, n int) lists {
		f := &found{more: 1}
		for i := range n {
			f.objects = append(f.objects, report.Object{Database: database, Name: database + "." + strconv.Itoa(i)})
		}
		return lists{"x": f}
	}
	for _, d := range []string{"m", "z", "a"} {
		s.add(one(d, maxListed/2-1))
	}
	s.add(lists{"y": {objects: []report.Object{{Name: strings.Repeat("x", maxKept)}}}})
	s.sort()
	x := s.lists["x"]
	if len(x.objects) != maxListed || x.more != 3+3*(maxListed/2-1)-maxListed {
		t.Errorf("%d objects and %d more", len(x.objects), x.more)
	}
	if got := []string{x.objects[0].Name, x.objects[maxListed/2-1].Name, x.objects[maxListed/2+1].Name}; !slices.Equal(got, []string{"m.0", "a.0", "z.0"}) {
		t.Error(got)
	}
	if y := s.lists["y"]; len(y.objects) != 0 || y.more != 1 {
		t.Errorf("%d objects and %d more", len(y.objects), y.more)
	}
}
