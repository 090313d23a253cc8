//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// mistakeRow is a line of the table of mistakes in docs/troubleshooting.md.
type mistakeRow struct {
	number           int
	client, gateSays []string // what must be printed, "..." for any text
}

var quoted = regexp.MustCompile("`([^`]+)`")

// readMistakes reads the table.
func readMistakes(t *testing.T) (rows []mistakeRow) {
	t.Helper()
	_, section, _ := strings.Cut(readPage(t, "troubleshooting.md"), "\n## Mistakes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 5 {
			continue
		}
		number, err := strconv.Atoi(strings.TrimSpace(cells[4]))
		if err != nil {
			continue
		}
		row := mistakeRow{number: number}
		for i, to := range []*[]string{&row.client, nil, &row.gateSays} {
			for _, m := range quoted.FindAllStringSubmatch(cells[i], -1) {
				if to != nil {
					*to = append(*to, m[1])
				}
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// absent returns the first of the texts that out does not have; empty: it has all.
func absent(out string, texts []string) string {
	for _, text := range texts {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(text), `\.\.\.`, ".*")
		if !regexp.MustCompile(pattern).MatchString(out) {
			return text
		}
	}
	return ""
}

// mistakeLab is a good gate with its files, for a mistake to be made in it.
type mistakeLab struct {
	*testing.T
	dir, gate, admin, socket string
	keys                     map[string]string
	env, before              []string // before: what starts the program
	ca                       *tlstest.CA
	serving                  *exec.Cmd

	client, said string // what psql and check have printed
}

func newMistakeLab(t *testing.T, socket string) *mistakeLab {
	t.Helper()
	dir, err := os.MkdirTemp(pgtest.TempDir(true), "pgw-mistake-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l := &mistakeLab{T: t, dir: dir, gate: freeTestAddress(t), admin: freeTestAddress(t), socket: socket, ca: tlstest.NewCA("mistake CA")}
	l.must(os.Chmod(dir, 0o755))
	l.keys = map[string]string{
		"listen": fmt.Sprintf("[{address: %q}]", l.gate), "tls.cert_file": "server.crt", "tls.key_file": "server.key", "tls.ca_file": "ca.crt", "tls.crl_file": "ca.crl",
		"acl.allow": "[127.0.0.0/8]", "backend.host": socket, "admin.address": strconv.Quote(l.admin), "admin.socket": "admin.sock", "log.format": "json", "watch_files": "false",
	}
	l.write("ca.crt", l.ca.CertPEM(), 0o644)
	l.write("ca.crl", l.ca.CRL(nil), 0o644)
	l.must(l.ca.Server("localhost", "127.0.0.1").WriteFiles(l.path("server.crt"), l.path("server.key")))
	l.must(l.ca.Client(role).WriteFiles(l.path("client.crt"), l.path("client.key")))
	return l
}

func (l *mistakeLab) must(err error) {
	if err != nil {
		l.Helper()
		l.Fatal(err)
	}
}

func (l *mistakeLab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *mistakeLab) write(name string, data []byte, mode os.FileMode) {
	l.Helper()
	_ = os.Remove(l.path(name))
	l.must(os.WriteFile(l.path(name), data, mode))
	l.must(os.Chmod(l.path(name), mode))
}

// config writes the configuration with changes, as KEY=YAML.
func (l *mistakeLab) config(changes ...string) *mistakeLab {
	l.Helper()
	for _, c := range changes {
		key, value, _ := strings.Cut(c, "=")
		l.keys[key] = value
		if value == "" {
			delete(l.keys, key)
		}
	}
	var b strings.Builder
	last := ""
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		name, below, nested := strings.Cut(key, ".")
		if !nested {
			fmt.Fprintf(&b, "%s: %s\n", name, l.keys[key])
			continue
		}
		if name != last {
			fmt.Fprintf(&b, "%s:\n", name)
		}
		last = name
		fmt.Fprintf(&b, "  %s: %s\n", below, l.keys[key])
	}
	l.write("pgwicket.yaml", []byte(b.String()), 0o644)
	return l
}

func (l *mistakeLab) command(args ...string) *exec.Cmd {
	args = append(slices.Clone(l.before), args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = l.dir, pgtest.Environ(append([]string{"PGPASSWORD=" + password, "LC_ALL=C"}, l.env...)...)
	return cmd
}

// run keeps what a command of pgwicket prints.
func (l *mistakeLab) run(args ...string) {
	out, _ := l.command(append([]string{"pgwicket"}, args...)...).CombinedOutput()
	l.said += string(out)
}

func (l *mistakeLab) check() *mistakeLab {
	l.run("check", "pgwicket.yaml")
	return l
}

// refuses expects that neither check nor serve takes the configuration, and that a
// client finds nothing.
func (l *mistakeLab) refuses() {
	l.Helper()
	for _, command := range []string{"check", "serve"} {
		cmd := l.command("pgwicket", command, "--config", "pgwicket.yaml")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != cli.BadConfig {
			l.Errorf("%s: status %d\n%s", command, cmd.ProcessState.ExitCode(), out)
		}
		l.said += string(out)
	}
	l.psql()
}

// serve starts the gate, and waits until it is ready or has ended.
func (l *mistakeLab) serve() *mistakeLab {
	l.Helper()
	log, err := os.Create(l.path("gate.log"))
	l.must(err)
	defer log.Close()
	l.serving = l.command("pgwicket", "serve", "--config", "pgwicket.yaml")
	l.serving.Stdout, l.serving.Stderr = log, log
	l.must(l.serving.Start())
	ended := make(chan struct{})
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(ended)
	}(l.serving)
	l.Cleanup(func() {
		_ = l.serving.Process.Kill()
		<-ended
	})
	for end := time.Now().Add(deadline); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-ended:
			return l
		default:
		}
		if strings.Contains(l.says(), `"msg":"ready"`) {
			return l
		}
		if time.Now().After(end) {
			l.Fatalf("the gate is not ready:\n%s", l.says())
		}
	}
}

// psql keeps what psql prints. The changes are libpq's.
func (l *mistakeLab) psql(changes ...string) *mistakeLab {
	host, port, _ := strings.Cut(l.gate, ":")
	conninfo := append([]string{
		"host=localhost", "hostaddr=" + host, "port=" + port, "user=" + role, "dbname=" + role, "sslmode=verify-full", "connect_timeout=60",
		"sslrootcert=" + l.path("ca.crt"), "sslcert=" + l.path("client.crt"), "sslkey=" + l.path("client.key"),
	}, changes...)
	before := l.before
	l.before = nil
	out, _ := l.command("psql", "-XAtq", strings.Join(conninfo, " "), "-c", "select 'it works'").CombinedOutput()
	l.before = before
	l.client += string(out)
	return l
}

// hangUp makes the gate read its files again.
func (l *mistakeLab) hangUp() { l.must(l.serving.Process.Signal(syscall.SIGHUP)) }

// says is what check and the log say, as a person reads the log.
func (l *mistakeLab) says() string {
	log, _ := os.ReadFile(l.path("gate.log"))
	return l.said + strings.ReplaceAll(string(log), `\"`, `"`)
}

// compare waits until everything has been printed that the table has.
func (l *mistakeLab) compare(row mistakeRow) {
	l.Helper()
	if text := absent(l.client, row.client); text != "" {
		l.Errorf("the client does not show %q:\n%s", text, l.client)
	}
	for end := time.Now().Add(deadline / 4); ; time.Sleep(10 * time.Millisecond) {
		text := absent(l.says(), row.gateSays)
		if text == "" {
			return
		}
		if time.Now().After(end) {
			l.Errorf("the gate does not say %q:\n%s", text, l.says())
			return
		}
	}
}

// TestMistakes makes every mistake of the table in docs/troubleshooting.md, and compares
// what psql, check and the log print with the quotations there.
func TestMistakes(t *testing.T) {
	t.Parallel()
	db, err := database.get()
	if err != nil {
		t.Fatal(err)
	}
	rows := readMistakes(t)
	known := mistakes()
	if len(rows) != len(known) || len(rows) < 36 {
		t.Errorf("the table has %d rows, and %d mistakes can be made", len(rows), len(known))
	}
	own := ownPostgres(t)
	for _, row := range rows {
		t.Run(strconv.Itoa(row.number), func(t *testing.T) {
			m, ok := known[row.number]
			if !ok {
				t.Fatal("nobody knows how to make it")
			}
			if m.root && os.Geteuid() != 0 {
				t.Skip("only root can make it")
			}
			socket := db.SocketDir
			if m.own {
				socket = own.SocketDir
			} else {
				t.Parallel()
			}
			l := newMistakeLab(t, socket)
			if m.own {
				m.onServer(l, own)
			} else {
				m.make(l)
			}
			l.compare(row)
		})
	}
}

// ownPostgres has two slots for everybody, and can be stopped.
func ownPostgres(t *testing.T) *pgtest.Server {
	t.Helper()
	s, err := pgtest.Start(context.Background(), pgtest.Options{
		Settings: []string{"max_connections=5", "superuser_reserved_connections=3", "max_wal_senders=0"},
		SQL:      fmt.Sprintf("create role %s login; create database %[1]s owner %[1]s; create database closed allow_connections false", role),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// mistake is how one is made.
type mistake struct {
	make     func(*mistakeLab)
	onServer func(*mistakeLab, *pgtest.Server) // in place of make, one after the other
	own      bool
	root     bool
}

func onServer(f func(*mistakeLab, *pgtest.Server)) mistake { return mistake{onServer: f, own: true} }

// mistakes are by their number in the table.
func mistakes() map[int]mistake {
	all := map[int]mistake{}
	maps.Copy(all, fileMistakes())
	maps.Copy(all, formMistakes())
	maps.Copy(all, accountMistakes())
	maps.Copy(all, clientMistakes())
	maps.Copy(all, serverMistakes())
	return all
}

func fileMistakes() map[int]mistake {
	expired := func(c *x509.Certificate) {
		c.ExtKeyUsage, c.DNSNames = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []string{"localhost"}
		c.NotBefore, c.NotAfter = time.Now().AddDate(0, 0, -9), time.Now().AddDate(0, 0, -1)
	}
	return map[int]mistake{
		1: {make: func(l *mistakeLab) { l.config("tls.cert_file=gone.crt").refuses() }},
		2: {make: func(l *mistakeLab) { l.config("tls.cert_file=server.key", "tls.key_file=server.crt").refuses() }},
		3: {make: func(l *mistakeLab) { l.config("tls.key_file=client.key").refuses() }},
		4: {make: func(l *mistakeLab) {
			l.write("ca.crt", l.ca.Intermediate("issuing CA").Server("localhost").CertPEM(), 0o644)
			l.config().refuses()
		}},
		5: {make: func(l *mistakeLab) {
			l.must(l.ca.Client("localhost", expired).WriteFiles(l.path("server.crt"), l.path("server.key")))
			l.config().check().serve().psql()
		}},
		6: {make: func(l *mistakeLab) {
			l.must(os.Chmod(l.path("server.key"), 0o644))
			l.config().refuses()
		}},
		7: {make: func(l *mistakeLab) {
			l.must(l.ca.Intermediate("issuing CA").Client(role).WriteFiles(l.path("client.crt"), l.path("client.key")))
			l.config().check().serve().psql()
		}},
		8: {make: func(l *mistakeLab) {
			l.write("ca.crl", l.ca.CRL(func(c *tlstest.CRL) { c.NextUpdate = time.Now().Add(-time.Minute) }), 0o644)
			l.config().check().serve().psql()
		}},
		9: {make: func(l *mistakeLab) { l.config("backend.host=" + l.path("nowhere")).check().serve().psql() }},
	}
}

func formMistakes() map[int]mistake {
	bad := func(changes ...string) mistake {
		return mistake{make: func(l *mistakeLab) { l.config(changes...).refuses() }}
	}
	raw := func(replace, with string) mistake {
		return mistake{make: func(l *mistakeLab) {
			text, err := os.ReadFile(l.config().path("pgwicket.yaml"))
			l.must(err)
			l.write("pgwicket.yaml", bytes.Replace(text, []byte(replace), []byte(with), 1), 0o644)
			l.refuses()
		}}
	}
	return map[int]mistake{
		10: bad("acl.alow=[127.0.0.0/8]"),
		11: raw("\n  key_file", "\n\tkey_file"),
		12: bad("acl.allow=127.0.0.0/8"),
		13: bad("listen=[{address: [::1]:5432}]"),
		14: bad("acl.allow=[10.0.0.5/8]"),
		15: bad(`listen=[{address: "localhost:5432"}]`),
		16: {make: func(l *mistakeLab) {
			l.env = []string{"PGWICKET_TLS_CRT_FILE=x"}
			l.config().refuses()
		}},
		17: {make: func(l *mistakeLab) {
			_, port, _ := strings.Cut(l.gate, ":")
			l.config(fmt.Sprintf(`listen=[{address: %q}, {address: "0.0.0.0:%s"}]`, l.gate, port), fmt.Sprintf("admin.address=%q", l.gate)).refuses()
		}},
		18: {make: func(l *mistakeLab) {
			l.config().serve()
			other := newMistakeLab(l.T, l.socket)
			other.config("listen=" + l.keys["listen"]).check().serve()
			l.said += other.says()
		}},
		19: {make: func(l *mistakeLab) {
			lowest, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
			if n, err := strconv.Atoi(strings.TrimSpace(string(lowest))); err == nil && n <= 432 {
				l.Skip("everybody may open the port 432 here")
			}
			if _, err := exec.LookPath("setpriv"); err != nil && os.Geteuid() == 0 {
				l.Skip("there is no setpriv")
			}
			if os.Geteuid() == 0 {
				l.before = []string{"setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"}
			}
			l.gate = "127.0.0.1:432"
			l.config(fmt.Sprintf("listen=[{address: %q}]", l.gate)).check().serve().psql()
		}},
		36: bad("tls.ciphers=[HIGH]"),
	}
}

func accountMistakes() map[int]mistake {
	return map[int]mistake{
		20: {root: true, make: func(l *mistakeLab) {
			st, err := os.Stat(l.socket)
			l.must(err)
			u, err := user.LookupId(strconv.Itoa(int(st.Sys().(*syscall.Stat_t).Uid)))
			l.must(err)
			l.must(os.Chown(l.dir, int(st.Sys().(*syscall.Stat_t).Uid), -1)) // for the admin socket
			l.config("user=" + u.Username).check().serve().psql().hangUp()
		}},
		21: {root: true, make: func(l *mistakeLab) { l.config("user=nobody", "admin.socket=").check().serve().psql() }},
		22: {make: func(l *mistakeLab) {
			l.config().serve()
			l.config("tls.cert_file=gone.crt").hangUp()
			l.psql()
		}},
		35: {root: true, make: func(l *mistakeLab) {
			l.must(os.Chown(l.path("server.key"), 12345, -1))
			l.config("user=nobody").refuses()
		}},
	}
}

func clientMistakes() map[int]mistake {
	connects := func(changes ...string) mistake {
		return mistake{make: func(l *mistakeLab) { l.config().serve().psql(changes...) }}
	}
	return map[int]mistake{
		23: {make: func(l *mistakeLab) {
			l.config().serve().psql("sslcert=none", "sslkey=none").psql("sslmode=disable")
		}},
		24: connects("host=db2.example.com"),
		25: {make: func(l *mistakeLab) {
			l.write("other.crt", tlstest.NewCA("another CA").CertPEM(), 0o644)
			l.config().serve().psql("sslrootcert=" + l.path("other.crt"))
		}},
		26: {make: func(l *mistakeLab) {
			pair := l.ca.Client(role)
			l.must(pair.WriteFiles(l.path("client.crt"), l.path("client.key")))
			l.write("ca.crl", l.ca.CRL(func(c *tlstest.CRL) { c.Revoke(pair.Leaf()) }), 0o644)
			l.config().serve().psql()
		}},
		27: {make: func(l *mistakeLab) { l.config("acl.allow=[10.0.0.0/9]").serve().psql() }},
		28: {make: func(l *mistakeLab) {
			l.config("limits.max_auth_failures=1").serve()
			l.env = []string{"PGPASSWORD=wrong"}
			l.psql().psql()
			l.run("backoffs", "--config", "pgwicket.yaml")
			l.run("backoffs", "lift", "--user", role, "--config", "pgwicket.yaml")
		}},
		33: {make: func(l *mistakeLab) {
			l.config("acl.rules=[{name: other, action: allow, users: [other]}]").serve().psql()
		}},
		34: connects("channel_binding=require"),
	}
}

func serverMistakes() map[int]mistake {
	return map[int]mistake{
		29: onServer(func(l *mistakeLab, s *pgtest.Server) {
			l.config().serve()
			s.Kill()
			l.psql()
			l.run("doctor", "--session-user", role, "--session-cert", "client.crt", "--session-key", "client.key", "--config", "pgwicket.yaml")
			l.must(s.Restart(context.Background()))
		}),
		30: onServer(func(l *mistakeLab, _ *pgtest.Server) { l.config().serve().psql("dbname=closed") }),
		31: onServer(func(l *mistakeLab, s *pgtest.Server) {
			l.config("limits.authentication_timeout=10s").serve()
			l.must(syscall.Kill(s.PID(), syscall.SIGSTOP))
			l.psql("connect_timeout=2").psql() // the line of the first does not wait for that limit
			l.must(syscall.Kill(s.PID(), syscall.SIGCONT))
		}),
		32: onServer(func(l *mistakeLab, s *pgtest.Server) {
			l.config().serve()
			holdSlots(l, s)
			l.psql()
			_, err := s.SQL("select pg_terminate_backend(pid) from pg_stat_activity where usename = '" + role + "'")
			l.must(err)
		}),
	}
}

// holdSlots takes the two slots of ownPostgres. A session of another mistake may have
// one for a moment.
func holdSlots(l *mistakeLab, s *pgtest.Server) {
	l.Helper()
	hold := func(done <-chan struct{}) {
		for {
			holder := exec.Command("psql", "-XAtq", "-h", s.SocketDir, "-p", strconv.Itoa(s.Port), "-U", role, "-d", role, "-c", "select pg_sleep(600)")
			holder.Env = pgtest.Environ()
			if holder.Start() != nil {
				return
			}
			_ = holder.Wait() // ended by pg_terminate_backend, or for want of a slot
			select {
			case <-done:
				return
			default:
			}
		}
	}
	done := make(chan struct{})
	for range 2 {
		go hold(done)
	}
	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		n, err := s.SQL("select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and usename = '" + role + "'")
		if err == nil && n == "2" {
			close(done)
			return
		}
		if time.Now().After(end) {
			close(done)
			l.Fatalf("the slots are not taken: %q, %v", n, err)
		}
	}
}
