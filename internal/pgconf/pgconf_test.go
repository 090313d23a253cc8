package pgconf_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgwicket/internal/pgconf"
	"pgwicket/internal/pgtest"
)

const settings = `
# a comment
Listen_Addresses = ''   # behind a value, too
port 5432
ssl=off
log_line_prefix = 'it''s \'%m\' \x41\t#'
search_path = '"$user", public'
work_mem = 64MB
include 'more.conf'
include_if_exists = 'nowhere.conf'
include_dir 'conf.d'
log_connections = off
`

const hba = `
# TYPE  DATABASE  USER  ADDRESS  METHOD
local   all   postgres   trust
local   "all", shop,reports  app,+staff   peer   map=gate
host    all   "a ""quoted"" name"  127.0.0.1/32  scram-sha-256
host    all,replication all 10.1.2.0 255.255.255.0 md5 # with a mask
hostnossl all all samenet reject
host \
   sameuser @users ::1/128 \
   scram-sha-256
host    all   all   .example.com   scram-sha-256
host    all   all   all   ldap  ldapserver=x "ldapprefix=cn=" ldapsuffix=",dc=y"
`

const ident = `
# MAP  SYSTEM  ROLE
gate   root           postgres
gate   "/^(.*)@x$"    \1
`

func start(t *testing.T, o pgtest.Options) (*pgtest.Server, string) {
	t.Helper()
	db, err := pgtest.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	return db, answer(t, db, "show data_directory")
}

func answer(t *testing.T, db *pgtest.Server, sql string) string {
	t.Helper()
	out, err := db.SQL(sql)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// PostgreSQL itself says what it reads in these files.
func TestReadAgreesWithPostgreSQL(t *testing.T) {
	t.Parallel()
	db, dir := start(t, pgtest.Options{
		HBA: hba, Ident: ident,
		Files: map[string][]byte{"users": []byte("one, two # and no more\nthree\n")},
		SQL:   "alter system set log_statement = 'ddl'",
	})
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{ // which the views read anew
		"postgresql.conf": settings, "more.conf": "log_connections = on\nlog_disconnections = on",
		"conf.d/b.conf": "log_hostname = on", "conf.d/a.conf": "log_hostname = off", "conf.d/.c.conf": "not one", "conf.d/d": "nor this",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := pgconf.Read(dir)
	if err != nil {
		t.Fatal(err)
	}

	want := answer(t, db, "select name || '=' || setting from (select distinct on (name) name, setting from pg_file_settings order by name, seqno desc) s")
	for line := range strings.SplitSeq(want, "\n") {
		name, value, _ := strings.Cut(line, "=")
		if got.Settings[strings.ToLower(name)] != value {
			t.Errorf("%s is %q, and for PostgreSQL %q", name, got.Settings[strings.ToLower(name)], value)
		}
	}
	if n := len(strings.Split(want, "\n")); len(got.Settings) != n {
		t.Errorf("%d settings: %q; PostgreSQL has %d", len(got.Settings), got.Settings, n)
	}

	var rules []string
	for _, r := range got.Rules {
		rules = append(rules, fmt.Sprintf("%d|%s|%s|%s|%s|%s|%s", r.Line, r.Type, strings.Join(r.Databases, ";"), strings.Join(r.Users, ";"), r.Address, r.Method, strings.Join(r.Options, ";")))
	}
	wantRules := ""
	for line := range strings.SplitSeq(answer(t, db, `select line_number, type, array_to_string(database, ';'), array_to_string(user_name, ';'),
		coalesce(address, ''), coalesce(netmask, ''), auth_method, coalesce(array_to_string(options, ';'), '') from pg_hba_file_rules order by line_number`), "\n") {
		f := strings.Split(line, "|")
		options := strings.TrimSuffix(f[7], ";ldapscope=2") // a default that it adds
		wantRules += strings.Join(append(f[:4:4], pgconf.Network(f[4], f[5]), f[6], options), "|") + "\n"
	}
	if have := strings.Join(rules, "\n") + "\n"; have != wantRules {
		t.Errorf("rules\n%sPostgreSQL's\n%s", have, wantRules)
	}

	var mappings []string
	for _, m := range got.Mappings {
		mappings = append(mappings, fmt.Sprintf("%d|%s|%s|%s", m.Line, m.Map, m.System, m.Role))
	}
	if want := answer(t, db, "select line_number, map_name, sys_name, pg_username from pg_ident_file_mappings order by line_number"); strings.Join(mappings, "\n") != want {
		t.Errorf("mappings\n%s\nPostgreSQL's\n%s", strings.Join(mappings, "\n"), want)
	}
}

// site writes the files of a PostgreSQL that does not run.
func site(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Release 16 has include directives in pg_hba.conf, and Debian keeps all of the files elsewhere.
func TestReadElsewhere(t *testing.T) {
	t.Parallel()
	data := site(t, map[string]string{"postgresql.auto.conf": "port = 5433\n"})
	dir := site(t, map[string]string{
		"postgresql.conf": fmt.Sprintf("data_directory = '%s'\nport = 5432\nhba_file = 'hba'\n", data),
		"pg_ident.conf":   "gate root\n",
	})
	for name, text := range map[string]string{
		"hba":      "include more.hba\nlocal all all peer\ninclude_if_exists nowhere\nlocla all all trust\nlocal all\n",
		"more.hba": "host all all 10.0.0.0/8 reject\n",
	} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := pgconf.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Settings["port"] != "5433" {
		t.Errorf("port %q", got.Settings["port"])
	}
	var text []string
	for _, r := range got.Rules {
		text = append(text, strings.TrimPrefix(r.At(), data)+" "+r.String()+": "+r.Mistake)
	}
	want := `/more.hba:1 host all all 10.0.0.0/8 reject: 
/hba:2 local all all peer: 
/hba:4 locla all all trust: "locla" is not a type of connection
/hba:5 local all: the line ends before its authentication method`
	if strings.Join(text, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(text, "\n"), want)
	}
	if len(got.Mappings) != 1 || got.Mappings[0].Mistake == "" {
		t.Errorf("mappings %+v", got.Mappings)
	}
}

func TestReadMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, text, want string }{
		{"postgresql.conf", "port = 1\nlisten_addresses = 'x\n", "postgresql.conf:2: listen_addresses: the quote is not closed"},
		{"postgresql.conf", "port\n", `postgresql.conf:1: "port" is not a setting`},
		{"postgresql.conf", "port = 1 2\n", `postgresql.conf:1: "port = 1 2" is not a setting`},
		{"postgresql.conf", "= 1\n", `postgresql.conf:1: "= 1" is not a setting`},
		{"postgresql.conf", "include 'postgresql.conf'\n", "include each other more than 10 deep"},
		{"postgresql.conf", "include 'nowhere'\n", "no such file"},
		{"pg_hba.conf", "include pg_hba.conf\n", "include each other more than 10 deep"},
		{"pg_hba.conf", "local all @nowhere peer\n", "pg_hba.conf:1: open "},
	} {
		files := map[string]string{"postgresql.conf": "", "pg_hba.conf": ""}
		files[c.file] = c.text
		if _, err := pgconf.Read(site(t, files)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want %q", c.text, err, c.want)
		}
	}
	if _, err := pgconf.Read(t.TempDir()); err == nil {
		t.Error("an empty directory is read")
	}
}

func TestRemote(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1/32": false, "127.0.0.0/8": false, "::1/128": false, "samehost": false, "localhost": false,
		"0.0.0.0/0": true, "::/0": true, "127.0.0.0/7": true, "10.0.0.1/32": true, "samenet": true, "all": true, "db.example.com": true,
	} {
		if got := (pgconf.Rule{Type: "host", Address: address}).Remote(); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
	if (pgconf.Rule{Type: "local"}).Remote() {
		t.Error("local is remote")
	}
	if pgconf.Loopback(netip.MustParsePrefix("126.0.0.0/7")) {
		t.Error("126.0.0.0/7 is loopback")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(settings, hba, ident)
	f.Add("a = '\\", "local \"", "\"\"\"")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, settings, hba, ident string) {
		for name, text := range map[string]string{"postgresql.conf": settings, "pg_hba.conf": hba, "pg_ident.conf": ident} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := pgconf.Read(dir)
		if (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}
