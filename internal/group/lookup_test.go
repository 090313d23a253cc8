package group_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/backend"
	"pgwicket/internal/group"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/socket"
)

// startPostgres starts a server with roles: carol is in ops, which is in dba; the grant to dave has
// neither INHERIT nor, since release 16, SET.
func startPostgres(t *testing.T, o pgtest.Options) *pgtest.Server {
	t.Helper()
	o.SQL = `create role lookup login; create role dba; create role ops; create role "Sales +1"; create role lonely;
		create role alice login; create role bob login superuser; create role carol login; create role dave login noinherit;
		create role "+dba" login; create role "al""i\ce" login; create role locked;
		grant dba to alice; grant ops to carol; grant dba to ops; grant dba to dave; grant "Sales +1" to "al""i\ce", "+dba";
		alter role lookup set search_path to public; create table public.pg_roles (rolname name, oid oid);` + o.SQL
	s, err := pgtest.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func lookup(dir string, roles ...string) group.Lookup {
	return group.Lookup{
		Backend: &backend.Backend{Hosts: []backend.Host{{Network: "unix", Address: dir + "/.s.PGSQL.5432"}}, ConnectTimeout: 5 * time.Second},
		User:    "lookup", Database: "postgres", Roles: roles,
	}
}

func sorted(answer map[string][]string) map[string]string {
	all := make(map[string]string)
	for role, names := range answer {
		slices.Sort(names)
		all[role] = strings.Join(names, " ")
	}
	return all
}

func TestAsk(t *testing.T) {
	t.Parallel()
	testAsk(t, pgtest.Options{})
}

func testAsk(t *testing.T, o pgtest.Options) {
	t.Helper()
	s := startPostgres(t, o)
	l := lookup(s.SocketDir, "dba", "ops", "Sales +1", "lonely", "DBA", "gone", "postgres", "al\"i\\ce", `{"a`)
	answer, err := l.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"dba":       "alice carol dave dba ops", // direct, by ops, without INHERIT, itself; bob is a superuser and no member
		"ops":       "carol ops",
		"Sales +1":  `+dba Sales +1 al"i\ce`,
		"lonely":    "lonely",
		"DBA":       "",
		"gone":      "",
		"postgres":  "postgres",
		"al\"i\\ce": "al\"i\\ce",
		`{"a`:       "",
	}
	got := sorted(answer)
	for role := range want {
		if got[role] != want[role] {
			t.Errorf("%s has %q, want %q", role, got[role], want[role])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d roles: %q", len(got), got)
	}
}

// pg_hba.conf itself agrees: who is a member may log in by +dba, and nobody else.
func TestAskAgreesWithPgHBA(t *testing.T) {
	t.Parallel()
	s := startPostgres(t, pgtest.Options{HBA: "local all postgres,lookup trust\nlocal all +dba,\"+Sales +1\" trust\nlocal all +\"Sales +1\" trust\n", SQL: "alter role dba login; alter role ops login;"})
	for _, user := range []string{"alice", "bob", "carol", "dave", "dba", "ops", "+dba", `al"i\ce`} {
		l := lookup(s.SocketDir, "dba", "Sales +1")
		l.User = "lookup"
		answer, err := l.Ask(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		member := slices.Contains(answer["dba"], user) || slices.Contains(answer["Sales +1"], user)
		l.User = user // logs in as the user
		_, err = l.Ask(t.Context())
		if (err == nil) != member {
			t.Errorf("%s: member %t, and PostgreSQL says %v", user, member, err)
		}
	}
}

func TestAskFails(t *testing.T) {
	t.Parallel()
	password := pgtest.Options{HBA: "local all postgres trust\nlocal all lookup scram-sha-256\nlocal all bob password\n", SQL: "alter role lookup password 'right'; alter role bob password 'right';"}
	s := startPostgres(t, password)
	for _, c := range []struct {
		what   string
		change func(*group.Lookup)
		want   string // of the error; empty: none
	}{
		{"a password", func(l *group.Lookup) { l.Password = "right" }, ""},
		{"a wrong password", func(l *group.Lookup) { l.Password = "wrong" }, `PostgreSQL says: password authentication failed for user "lookup" (28P01)`},
		{"a password in clear", func(l *group.Lookup) { l.User, l.Password = "bob", "right" }, "server requested password authentication"},
		{"no such user", func(l *group.Lookup) { l.User = "nobody" }, "PostgreSQL says: no pg_hba.conf entry"},
		{"no such database", func(l *group.Lookup) { l.Password, l.Database = "right", "nowhere" }, `PostgreSQL says: database "nowhere" does not exist (3D000)`},
		{"no socket", func(l *group.Lookup) { l.Backend.Hosts[0].Address = "/nowhere/.s.PGSQL.5432" }, "no such file or directory"},
		{"the second host", func(l *group.Lookup) {
			l.Password = "right"
			l.Backend.Hosts = append([]backend.Host{{Network: "unix", Address: "/nowhere/.s.PGSQL.5432"}}, l.Backend.Hosts...)
		}, ""},
	} {
		l := lookup(s.SocketDir, "dba")
		c.change(&l)
		switch _, err := l.Ask(t.Context()); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "right")):
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// The role that asks cannot change anything, whatever it may, and no variable or file of the account
// changes what is asked.
func TestAskIsReadOnly(t *testing.T) {
	s := startPostgres(t, pgtest.Options{Settings: []string{"log_statement=all", "log_line_prefix=%a %u "}})
	home := t.TempDir()
	if err := os.WriteFile(home+"/.pgpass", []byte("*:*:*:*:stolen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"HOME": home, "PGUSER": "bob", "PGOPTIONS": "-c default_transaction_read_only=off", "PGHOST": "/nowhere", "PGAPPNAME": "x", "PGSSLMODE": "verify-full", "PGTARGETSESSIONATTRS": "standby"} {
		t.Setenv(name, value)
	}
	l := lookup(s.SocketDir, "dba")
	if _, err := l.Ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	if log := s.Log(); !strings.Contains(log, "pgwicket lookup LOG:  execute") {
		t.Errorf("not asked as lookup:\n%s", log)
	}
}

// script serves one connection as far as the query, and then what it is told to send.
func script(t *testing.T, answer func(b *pgproto3.Backend, c net.Conn)) group.Lookup {
	t.Helper()
	f, err := pgtest.StartFake(func(c net.Conn) {
		b := pgproto3.NewBackend(c, c)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		for {
			m, err := b.Receive()
			if err != nil {
				return
			}
			if _, ok := m.(*pgproto3.Sync); ok {
				break
			}
		}
		b.Send(&pgproto3.ParseComplete{})
		b.Send(&pgproto3.BindComplete{})
		answer(b, c)
		_ = b.Flush()
		_, _ = io.Copy(io.Discard, c)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return lookup(f.SocketDir, "dba")
}

func row(names ...string) *pgproto3.DataRow {
	r := &pgproto3.DataRow{}
	for _, n := range names {
		r.Values = append(r.Values, []byte(n))
	}
	return r
}

// A hostile server costs a bounded time and memory, and its answer counts for nothing.
func TestAskHostile(t *testing.T) {
	t.Parallel()
	columns := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("a")}, {Name: []byte("b")}}}
	for _, c := range []struct {
		what   string
		answer func(b *pgproto3.Backend, c net.Conn)
		want   string
	}{
		{"one column", func(b *pgproto3.Backend, _ net.Conn) {
			b.Send(&pgproto3.RowDescription{Fields: columns.Fields[:1]})
			b.Send(row("dba"))
		}, "not a role and a member"},
		{"no name", func(b *pgproto3.Backend, _ net.Conn) {
			b.Send(columns)
			b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("dba"), nil}})
		}, "not a role and a member"},
		{"another role", func(b *pgproto3.Backend, _ net.Conn) {
			b.Send(columns)
			b.Send(row("dba", "alice"))
			b.Send(row("postgres", "mallory"))
		}, "a role that was not asked for"},
		{"endless rows", func(b *pgproto3.Backend, _ net.Conn) {
			b.Send(columns)
			for i := 0; b.Flush() == nil; i++ {
				b.Send(row("dba", fmt.Sprint("member", i)))
			}
		}, "more than 100000 members"},
		{"endless notices", func(b *pgproto3.Backend, _ net.Conn) {
			for b.Flush() == nil {
				b.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Message: strings.Repeat("x", 60_000)})
			}
		}, "more than 32 MiB"},
		{"a huge message", func(_ *pgproto3.Backend, c net.Conn) { _, _ = c.Write([]byte{'D', 0x3f, 0xff, 0xff, 0xff, 0}) }, "invalid body length"},
		{"no end", func(b *pgproto3.Backend, c net.Conn) {
			b.Send(columns)
			b.Send(row("dba", "alice"))
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			_ = b.Flush()
			_ = c.Close()
		}, "closed the connection"},
		{"an error", func(b *pgproto3.Backend, _ net.Conn) {
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42501", Message: "no\nway"})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		}, "PostgreSQL says: no way (42501)"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			l := script(t, c.answer)
			answer, err := l.Ask(t.Context())
			if err == nil || answer != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
}

// A server that says nothing is given up when the context ends.
func TestAskEnds(t *testing.T) {
	t.Parallel()
	l := script(t, func(*pgproto3.Backend, net.Conn) {})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := l.Ask(ctx); err == nil {
		t.Error("an answer that nobody gave")
	}
}

// silent reads and never answers.
func silent(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// Over the Unix socket PostgreSQL knows the account of the gate: root asks as that.
func TestAskByPeer(t *testing.T) {
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	if err != nil || runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("only root on Linux can be another account")
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	s := startPostgres(t, pgtest.Options{
		HBA:   "local all postgres trust\nlocal postgres lookup peer map=gate\nlocal all lookup reject\n",
		Ident: "gate nobody lookup\n",
	})
	// The directory is its owner's alone; a gate would have one that its group may enter.
	if err := os.Chmod(s.SocketDir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := lookup(s.SocketDir, "dba")
	if _, err := l.Ask(t.Context()); err == nil || !strings.Contains(err.Error(), "Peer authentication failed") {
		t.Errorf("as root: %v", err)
	}
	l.Account = socket.Account{UID: uid}
	answer, err := l.Ask(t.Context())
	if err != nil || !slices.Contains(answer["dba"], "alice") {
		t.Errorf("%q, %v", answer, err)
	}
	if os.Geteuid() != 0 {
		t.Error("this process is not root any more")
	}
}

// The background of a failed look-up, which reads to the end, and its error do not race.
func TestAskEndedByServer(t *testing.T) {
	t.Parallel()
	f, err := pgtest.StartFake(func(conn net.Conn) { _, _ = pgproto3.NewBackend(conn, conn).ReceiveStartupMessage() })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Stop()
	l := lookup(f.SocketDir, "dba")
	for range 20 {
		if _, err := l.Ask(t.Context()); err == nil || err.Error() != "the server has closed the connection" {
			t.Error(err)
		}
	}
}
