//go:build unix

package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/printable"
	"pgwicket/proxy"
)

func (l *faultLab) alone() report.Report {
	l.Helper()
	r, err := ExaminePostgres(context.Background(), "host="+l.SocketDir+" port="+strconv.Itoa(l.Port)+" user=postgres dbname=postgres", time.Now(), nil)
	l.must(err)
	return r
}

func find(r report.Report, check string) (all []Finding) {
	for _, f := range r.Findings {
		if f.Check == check {
			all = append(all, f)
		}
	}
	return all
}

// The search_path of a function can be any text without a space. The statement that mends
// it must not run that text.
func TestHostileSearchPath(t *testing.T) {
	t.Parallel()
	l := newFaultLab(t, pgtest.Options{})
	l.mustSQL(`create schema app authorization app; set role app;
		select set_config('search_path', 'pg_catalog;alter/**/role/**/app/**/superuser;--', false);
		create function app.f1() returns int security definer language sql set search_path from current as 'select 1';
		select set_config('search_path', '$user', false);
		create function app.f2() returns int security definer language sql set search_path from current as 'select 1';
		select set_config('search_path', 'public, not_pg_temp', false);
		create function app.f3() returns int security definer language sql set search_path from current as 'select 1';
		select set_config('search_path', '"a "",b", PG_Temp', false);
		create function app.f4() returns int security definer language sql set search_path from current as 'select 1';
		select set_config('search_path', '"a "",b",Other', false);
		create function app.f5() returns int security definer language sql set search_path from current as 'select 1'`)
	r := l.alone()
	fail, warn := find(r, "definer_search_path")[0], find(r, "definer_pg_temp")[0]
	if want := []string{"postgres.app.f2()"}; !slices.Equal(fail.Objects, want) {
		t.Errorf("%q, want %q", fail.Objects, want)
	}
	if want := []string{"postgres.app.f1()", "postgres.app.f3()", "postgres.app.f5()"}; !slices.Equal(warn.Objects, want) {
		t.Errorf("%q, want %q", warn.Objects, want)
	}
	l.mustSQL(fail.Fix)
	l.mustSQL(warn.Fix)
	if out, err := l.SQL("select rolsuper from pg_roles where rolname = 'app'"); err != nil || strings.TrimSpace(out) != "f" {
		t.Errorf("the fix has made app a superuser: %s, %v\n%s", out, err, warn.Fix)
	}
	out, err := l.SQL("select proname, proconfig from pg_proc where proname ~ '^f[35]$' order by 1")
	if want := "f3|{\"search_path=public, not_pg_temp, pg_temp\"}\nf5|{\"search_path=\\\"a \\\"\\\",b\\\", other, pg_temp\"}"; err != nil || strings.TrimSpace(out) != want {
		t.Errorf("%s, %v, want %s", out, err, want)
	}
	r = l.alone()
	for _, check := range []string{"definer_search_path", "definer_pg_temp"} {
		if f := find(r, check)[0]; f.Status != Pass {
			t.Errorf("%+v", f)
		}
	}
}

// The owner of a database cannot hide it by the settings of its sessions.
func TestHostileSettings(t *testing.T) {
	t.Parallel()
	l := newFaultLab(t, pgtest.Options{})
	l.mustSQL(`create database shop owner app; \connect shop
		create extension postgres_fdw; create server one foreign data wrapper postgres_fdw; create user mapping for public server one options (password 'y');
		\connect postgres`)
	for _, setting := range []string{
		"role = app", "idle_session_timeout = 1", "search_path = nowhere", "default_transaction_read_only = off", "statement_timeout = 0", "quote_all_identifiers = on",
		"standard_conforming_strings = off", "client_encoding = 'SQL_ASCII'", "row_security = off", "transform_null_equals = on", "client_min_messages = debug5",
	} {
		l.mustSQL("alter database shop reset all; alter database shop set " + setting)
		r := l.alone()
		if f := find(r, "user_mapping_public"); len(f) != 1 || f[0].Status != Fail || f[0].Reason != "user mappings with a password for every role: shop.one" {
			t.Errorf("%s: %+v", setting, f)
		}
		if f := find(r, "databases"); f[0].Status != Pass {
			t.Errorf("%s: %+v", setting, f)
		}
	}
}

// No password gets into a report.
func TestSecrets(t *testing.T) {
	t.Parallel()
	l := newFaultLab(t, pgtest.Options{Settings: []string{"primary_conninfo=host=primary user=rep password=HIDDEN4 sslmode=prefer"}})
	l.run(`hba: host all all 10.0.0.0/8 ldap ldapserver=ldap.example.com ldapbinddn="cn=x" ldapbindpasswd=HIDDEN1 ldapbasedn="dc=x" ldaptls=1
host app all 10.0.0.0/16 radius radiusservers=127.0.0.1 radiussecrets=HIDDEN2
host app all 10.0.0.0/16 ldap ldapserver=ldap.example.com ldapbindpasswd="HIDDEN 3" ldapbinddn="cn=x" ldapbasedn="dc=x"`)
	l.mustSQL("create extension postgres_fdw; create server one foreign data wrapper postgres_fdw; create user mapping for public server one options (password 'HIDDEN5'); " +
		"create subscription sub connection 'host=/nowhere user=x password=HIDDEN6 sslpassword=''HIDDEN 7'' dbname=x' publication p with (connect = false)")
	var out bytes.Buffer
	l.must(l.alone().WriteJSON(&out))
	for _, want := range []string{"primary_conninfo", "pg_hba_shadowed", "subscription_password"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not checked", want)
		}
	}
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "HIDDEN") {
			t.Error(line)
		}
	}
}

// No name, whatever check has it, gets to the terminal with its control characters.
func TestHostileRoles(t *testing.T) {
	t.Parallel()
	l := newFaultLab(t, pgtest.Options{})
	l.run("hba: host all all 10.0.0.0/8 scram-sha-256")
	for i, name := range hostileNames() {
		q := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		l.mustSQL("set password_encryption = md5; create role " + q + " login password '" + strconv.Itoa(i) + "'")
	}
	l.mustSQL(`alter role "it's" superuser; alter role "new` + "\n" + `line" superuser; alter role "esc` + "\x1b[2J\a" + `" superuser`)
	r := l.alone()
	var out, page, document, changes bytes.Buffer
	l.must(r.WriteText(&out, true))
	l.must(r.WriteHTML(&page))
	l.must(r.WriteJSON(&document))
	l.must(report.Report{}.WriteChanges(&changes, r))
	if !strings.Contains(out.String(), "are stored as MD5") {
		t.Error("the passwords are not found")
	}
	for _, text := range []string{out.String(), page.String(), document.String(), changes.String()} {
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); printable.Escape(line) != line {
				t.Errorf("%q", line)
			}
		}
	}
}

// A login trigger of another database does not run as the superuser who examines it.
func TestLoginTrigger(t *testing.T) {
	t.Parallel()
	release, ok := pgtest.Releases("../..")[17]
	if !ok {
		t.Skip("release 17 is not installed; make interop-quick installs it")
	}
	l := newFaultLab(t, release)
	l.mustSQL(`create database shop; \connect shop
		create sequence logins; create function greet() returns event_trigger language plpgsql as $$begin perform nextval('logins'); end$$;
		create event trigger greet on login execute function greet(); alter function greet() owner to app; grant all on sequence logins to app`)
	r := l.alone()
	if f := find(r, "event_triggers"); f[0].Status != Fail {
		t.Errorf("%+v", f)
	}
	// This session is the first.
	if out, err := l.SQL(`\connect shop` + "\nselect last_value from logins"); err != nil || strings.TrimSpace(out) != "1" {
		t.Errorf("%s, %v", out, err)
	}
}

// lyingServer accepts sessions, and answers each query as told.
func lyingServer(t *testing.T, answer func(conn net.Conn, sql string)) (conninfo string) {
	t.Helper()
	f, err := pgtest.StartFakeTCP(func(conn net.Conn) { lie(conn, answer) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	_, port, _ := net.SplitHostPort(f.Address)
	return "host=127.0.0.1 sslmode=disable sslrootcert='' user=x dbname=x port=" + port // a file in the home directory may be damaged
}

func lie(conn net.Conn, answer func(conn net.Conn, sql string)) {
	b := pgproto3.NewBackend(conn, conn)
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
		q, ok := m.(*pgproto3.Query)
		if err != nil || !ok {
			return
		}
		answer(conn, q.String)
	}
}

func message(kind byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

// A server that sends without end cannot fill the memory, whatever it sends.
func TestFloodingServer(t *testing.T) {
	text := bytes.Repeat([]byte("x"), 1000)
	row := func(values ...[]byte) []byte {
		out := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
		for _, v := range values {
			out = append(binary.BigEndian.AppendUint32(out, uint32(len(v))), v...)
		}
		return message('D', out)
	}
	n := 0
	for name, flood := range map[string]func() []byte{
		"rows":       func() []byte { return row(text) },
		"empty rows": func() []byte { return bytes.Repeat(row(nil), 1000) },
		"parameters": func() []byte {
			n++
			return message('S', []byte("p"+strconv.Itoa(n)+"\x00"+string(text)+"\x00"))
		},
		"notices":   func() []byte { return message('N', append(append([]byte("M"), text...), 0, 0)) },
		"a message": func() []byte { return append([]byte{'D', 0x30, 0, 0, 0}, text...) },
	} {
		conninfo := lyingServer(t, func(conn net.Conn, _ string) {
			_, err := conn.Write(message('T', append([]byte{0, 1, 'x', 0}, make([]byte, 18)...)))
			for err == nil {
				_, err = conn.Write(flood())
			}
		})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		r, err := ExaminePostgres(context.Background(), conninfo, time.Now(), nil)
		runtime.ReadMemStats(&after)
		if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; err != nil || allocated > 1000 || time.Since(start) > 30*time.Second {
			t.Errorf("%s: %d MiB, %v, %v", name, allocated, time.Since(start), err)
		}
		if f := find(r, "examined"); len(f) != 1 || f[0].Status != Skip {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// The same holds for a backend of the gate.
func TestFloodingBackend(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	conninfo := lyingServer(t, func(conn net.Conn, _ string) {
		for err := error(nil); err == nil; {
			_, err = conn.Write(message('S', []byte("p"+strconv.FormatInt(n.Add(1), 10)+"\x00"+strings.Repeat("x", 10000)+"\x00")))
		}
	})
	_, port, _ := strings.Cut(conninfo, "port=")
	b := &tcpBackend{host: &proxy.Host{Network: "tcp", Address: "127.0.0.1:" + port}}
	if _, err := b.connect(t.Context(), target{user: "x", database: "x"}, "", nil); err == nil || n.Load()*10000 > 2*maxReceived {
		t.Errorf("%v after %d MiB", err, n.Load()*10000>>20)
	}
}

// A server that answers nothing ends in a skip.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	conninfo := lyingServer(t, func(conn net.Conn, _ string) { _, _ = io.Copy(io.Discard, conn) })
	start := time.Now()
	r, err := ExaminePostgres(context.Background(), conninfo, time.Now(), nil)
	if err != nil || find(r, "examined")[0].Status != Skip || time.Since(start) > time.Minute {
		t.Errorf("%+v, %v, %v", r.Findings, err, time.Since(start))
	}
}

// A file of the configuration that is none does not keep doctor waiting.
func TestHostileInclude(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mkfifo", filepath.Join(dir, "fifo.conf")).CombinedOutput(); err != nil {
		t.Skip(string(out))
	}
	if err := os.WriteFile(filepath.Join(dir, "postgresql.conf"), []byte("include_dir '.'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &server{unknown: make(map[string]string)}
	s.read(dir)
	if !strings.Contains(s.unexamined, "fifo.conf is not a regular file") {
		t.Error(s.unexamined)
	}
}
