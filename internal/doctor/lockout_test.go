//go:build unix

package doctor

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pgwicket/internal/pgtest"
)

// login logs in over the socket with a password, and returns what PostgreSQL says.
func (l *faultLab) login(user, password, database string) (string, error) {
	l.Helper()
	psql, err := pgtest.Program("psql")
	l.must(err)
	cmd := exec.Command(psql, "-XAtw", "-h", l.SocketDir, "-p", strconv.Itoa(l.Port), "-U", user, "-d", database, "-c", "select 'in'")
	cmd.Env = pgtest.Environ("PGPASSWORD=" + password)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// What doctor prints about the pg_hba.conf of "initdb --auth=trust", and about databases that are open to
// everybody, locks nobody out who has a password and something in the database.
func TestFixesLockNobodyOut(t *testing.T) {
	t.Parallel()
	l := newFaultLab(t, pgtest.Options{})
	const before = "local all all trust\nhost all all 127.0.0.1/32 trust\nlocal replication all trust\n"
	l.write(before)
	l.mustSQL(`alter role dba password 'x8Uq0-lesser-known'; create role guest login; \connect app
		create table t (id int); create role readers; grant select on t to readers, app; grant readers to dba`)
	r := l.alone()
	if s := (&server{sockets: []socketState{statSocket(filepath.Join(l.SocketDir, ".s.PGSQL."+strconv.Itoa(l.Port)), "")}}); s.owner() != pgtest.Superuser {
		t.Skip("PostgreSQL runs as " + s.owner())
	}
	hba := before
	for _, f := range find(r, "pg_hba_trust") {
		first, lines, _ := strings.Cut(f.Fix, "write instead: ")
		lines, _, _ = strings.Cut(lines, "\nselect ")
		hba = strings.Replace(hba, f.Name, lines, 1)
		want := "-- first give those a password (\\password in psql) who log in by this line and have none: app, guest"
		if strings.HasPrefix(f.Name, "host") {
			want += ", postgres"
		}
		if first != want+"\n" {
			t.Errorf("%s: %q", f.Name, first)
		}
	}
	if want := "local all postgres peer\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\nlocal replication postgres peer\nlocal replication all scram-sha-256\n"; hba != want {
		t.Errorf("%s is not\n%s", hba, want)
	}
	open := find(r, "database_public")[0]
	l.mustSQL("alter role app password 'y8Uq0-lesser-known'")
	l.mustSQL(open.Fix)
	l.write(hba)
	for range 3 { // a reload takes a moment
		if r = l.alone(); find(r, "pg_hba_trust")[0].Status == Pass {
			break
		}
	}
	for _, check := range []string{"pg_hba_trust", "database_public", "without_password"} {
		if f := find(r, check)[0]; f.Status != Pass {
			t.Errorf("%+v", f)
		}
	}
	for _, c := range []struct{ user, password, want string }{
		{"app", "y8Uq0-lesser-known", "in"}, {"dba", "x8Uq0-lesser-known", "in"}, {"guest", "", "no password supplied"}, {"app", "wrong", "password authentication failed"},
	} {
		if out, err := l.login(c.user, c.password, "app"); !strings.Contains(out, c.want) {
			t.Errorf("%s: %s, %v", c.user, out, err)
		}
	}
}
