package proxy_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgwicket/internal/pgtest"
	"pgwicket/proxy"
)

var postgresRelease = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// newEnough skips the test where PostgreSQL is older than that.
func newEnough(t *testing.T, release int) {
	t.Helper()
	dir, err := pgtest.Find()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	m := postgresRelease.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("postgres --version: %v: %s", err, out)
	}
	if n, _ := strconv.Atoi(string(m[1])); n < release {
		t.Skipf("this needs PostgreSQL %d or later in PATH; there is %s", release, strings.TrimSpace(string(out)))
	}
}

var sqlBlock = regexp.MustCompile("(?s)```sql\n(.*?)```")

// documentedSQL is the SQL of one section of docs/security.md, by its blocks.
func documentedSQL(t *testing.T, heading string) []string {
	t.Helper()
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n### "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	for _, m := range sqlBlock.FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// The login trigger of docs/security.md pins what the gate says of a client: a
// policy sees that, whatever the session, its role or its database says later.
func TestDocumentedLoginTrigger(t *testing.T) {
	t.Parallel()
	newEnough(t, 17)
	blocks := documentedSQL(t, "The real client in PostgreSQL")
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of SQL, want the question, the trigger and a policy", len(blocks))
	}
	db, err := pgtest.Start(context.Background(), pgtest.Options{SQL: `create role app login; grant create on database postgres to app;
		grant create, usage on schema public to app;
		create table orders (id int, customer text);
		insert into orders values (1, 'alice'), (2, 'bob'), (3, '');
		grant select on orders to app;` + blocks[1] + blocks[2]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	g := newGate(t, db.SocketDir, func(p *proxy.Policy) { p.Backend.ClientInfo = true })
	certificate := func(name string) string {
		dir := t.TempDir()
		if err := g.CA.Client(name).WriteFiles(filepath.Join(dir, "crt"), filepath.Join(dir, "key")); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	as := func(who string, settings ...string) []string {
		dir := "/nowhere"
		if who != "" {
			dir = certificate(who)
		}
		return libpq(t, g, append([]string{"PGSSLCERT=" + dir + "/crt", "PGSSLKEY=" + dir + "/key"}, settings...)...)
	}
	const mine = "select string_agg(id::text, ',' order by id) from orders;"
	const pinned = "select client_addr, client_cn from audit.session where pid = pg_backend_pid();"
	for _, c := range []struct {
		name, who, sql, want string
		settings             []string
	}{
		{"the question", "alice", strings.TrimSpace(blocks[0]), "127.0.0.1|alice|", nil},
		{"its own rows", "alice", mine, "1", nil},
		{"another's rows", "bob", mine, "2", nil},
		{"no certificate, no rows", "", mine + "select 'none'", "none", nil},
		{"set", "alice", "set pgwicket.client_cn = 'bob'; select current_setting('pgwicket.client_cn');" + mine, "bob\n1", nil},
		{"set_config", "alice", "select set_config('pgwicket.client_cn', 'bob', false);" + mine, "bob\n1", nil},
		{"reset", "alice", "reset all; discard all;" + mine, "1", nil},
		{"a setting of its own", "alice", "alter role app set pgwicket.client_cn = 'bob'", "permission denied", nil},
		{"a table before it", "alice", "create temp table session (pid int, client_cn text); insert into session values (pg_backend_pid(), 'bob');" + mine, "1", nil},
		{"a function before it", "alice", "create function public.pg_backend_pid() returns int language sql as 'select 0'; set search_path = public, pg_catalog;" + mine, "1", nil},
		{"read-only from its start", "alice", mine, "read-only transaction", []string{"PGOPTIONS=-c default_transaction_read_only=on"}},
		{"insert", "alice", "insert into audit.session values (1)", "permission denied", nil},
		{"update", "alice", "update audit.session set client_cn = 'bob'", "permission denied", nil},
		{"delete", "alice", "delete from audit.session", "permission denied", nil},
		{"reading others", "alice", pinned, "permission denied", nil},
		{"calling it", "alice", "select audit.pin()", "can only be called as triggers", nil},
		{"switching it off", "alice", "set event_triggers = off", "permission denied", nil},
		{"switching it off from the start", "alice", mine, "permission denied", []string{"PGOPTIONS=-c event_triggers=off"}},
		{"as a replica", "alice", mine, "permission denied", []string{"PGOPTIONS=-c session_replication_role=replica"}},
		{"altering it", "alice", "alter event trigger pin disable", "must be owner", nil},
	} {
		out, _ := psql(t, as(c.who, c.settings...), c.sql)
		if !strings.Contains(out, c.want) || c.want == "none" && out != c.want {
			t.Errorf("%s: %q, want %q", c.name, out, c.want)
		}
		g.outcome(t)
	}
	// What the gate says comes last, though it may have nothing to say.
	if _, err := db.SQL("alter role app set pgwicket.client_cn = 'bob'; alter database postgres set pgwicket.client_cn = 'bob'"); err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]string{"alice": "1", "": "none"} {
		if out, _ := psql(t, as(who), "select coalesce(string_agg(id::text, ','), 'none') from orders"); out != want {
			t.Errorf("%q, with a setting of the role's: %q, want %q", who, out, want)
		}
		g.outcome(t)
	}
	if _, err := db.SQL("alter role app reset all; alter database postgres reset all"); err != nil {
		t.Fatal(err)
	}
	// The superuser's session too, whom nobody has told of a client.
	if out, err := db.SQL(pinned); err != nil || out != "|" {
		t.Errorf("past the gate: %q, %v", out, err)
	}
	if out, err := db.SQL("select distinct client_addr, client_cn from audit.session where client_cn = 'alice'"); err != nil || out != "127.0.0.1|alice" {
		t.Errorf("the table: %q, %v", out, err)
	}
}
