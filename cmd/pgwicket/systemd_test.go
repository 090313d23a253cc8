//go:build unix

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// unit is what a service manager runs: a configuration, and gates that serve by
// it, one after the other or at once.
type unit struct {
	t              *testing.T
	dir            string
	address, admin string
	config         string
}

// newUnit has these lines in its configuration besides the usual ones.
func newUnit(t *testing.T, lines ...string) *unit {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgw-unit-") // the name of a test is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	u := &unit{t: t, dir: dir, address: freeTestAddress(t), admin: freeTestAddress(t)}
	u.config = u.path("pgwicket.yaml")
	ca := tlstest.NewCA("unit CA")
	u.check(ca.Server("localhost", "127.0.0.1").WriteFiles(u.path("server.crt"), u.path("server.key")))
	u.check(ca.Client(role).WriteFiles(u.path("client.crt"), u.path("client.key")))
	u.check(os.WriteFile(u.path("ca.crt"), ca.CertPEM(), 0o600))
	u.write(lines...)
	return u
}

// moveTo has another directory hold that of u.
func (u *unit) moveTo(parent string) {
	u.t.Helper()
	dir, err := os.MkdirTemp(parent, "pgw-unit-")
	u.check(err)
	u.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	files, err := os.ReadDir(u.dir)
	u.check(err)
	for _, f := range files {
		u.check(exec.Command("mv", u.path(f.Name()), dir).Run())
	}
	u.dir, u.config = dir, filepath.Join(dir, filepath.Base(u.config))
}

func (u *unit) path(name string) string { return filepath.Join(u.dir, name) }

func (u *unit) check(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *unit) write(lines ...string) {
	u.t.Helper()
	db, err := database.get()
	u.check(err)
	text := fmt.Sprintf(`listen: [{address: %q}]
admin: {address: %q}
tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt}
acl: {allow: [127.0.0.0/8]}
backend: {host: %s}
limits: {connection_rate: 0, drain_timeout: 1m}
log: {level: debug, format: json}
watch_files: false
`, u.address, u.admin, db.SocketDir) + strings.Join(lines, "\n") + "\n"
	u.check(os.WriteFile(u.config, []byte(text), 0o600))
}

// replace changes the configuration.
func (u *unit) replace(old, by string) {
	u.t.Helper()
	text, err := os.ReadFile(u.config)
	u.check(err)
	u.check(os.WriteFile(u.config, []byte(strings.Replace(string(text), old, by, 1)), 0o600))
}

// instance is a running gate.
type instance struct {
	*unit
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// start starts a gate and waits until it is ready.
func (u *unit) start(name string, sockets []*os.File, env ...string) *instance {
	u.t.Helper()
	i := u.launch(name, sockets, env...)
	i.logs(`"msg":"ready"`)
	return i
}

func (u *unit) launch(name string, sockets []*os.File, env ...string) *instance {
	u.t.Helper()
	i := &instance{unit: u, log: u.path(name + ".log"), ended: make(chan struct{})}
	log, err := os.Create(i.log)
	u.check(err)
	defer log.Close()
	// As systemd does, these name the process.
	i.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec pgwicket serve --config "$0"`, u.config)
	i.cmd.Env = append(os.Environ(), env...)
	if len(sockets) > 0 {
		i.cmd.ExtraFiles = sockets
		i.cmd.Env = append(i.cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)))
	}
	i.cmd.Stdout, i.cmd.Stderr = log, log
	u.check(i.cmd.Start())
	go func() {
		_ = i.cmd.Wait()
		close(i.ended)
	}()
	u.t.Cleanup(func() {
		_ = i.cmd.Process.Kill()
		<-i.ended
		if u.t.Failed() {
			text, _ := os.ReadFile(i.log)
			u.t.Logf("%s:\n%.2000s\n…\n%s", name, text, text[max(0, len(text)-2000):])
		}
	})
	return i
}

func (u *unit) eventually(what string, holds func() bool) {
	u.t.Helper()
	for end := time.Now().Add(deadline); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			u.t.Fatalf("after %v: %s", deadline, what)
		}
	}
}

func (i *instance) text() string {
	text, _ := os.ReadFile(i.log)
	return string(text)
}

func (i *instance) logs(text string) {
	i.t.Helper()
	i.eventually("no "+text+" in the log", func() bool {
		select {
		case <-i.ended:
			i.t.Fatalf("it has ended (%v) without %s in its log", i.cmd.ProcessState, text)
		default:
		}
		return strings.Contains(i.text(), text)
	})
}

func (i *instance) signal(s syscall.Signal) { i.check(i.cmd.Process.Signal(s)) }

func (i *instance) ends(status int) {
	i.t.Helper()
	select {
	case <-i.ended:
	case <-time.After(deadline + time.Minute): // the drain has its own
		i.t.Fatal("it does not end")
	}
	if got := i.cmd.ProcessState.ExitCode(); got != status {
		i.t.Errorf("it has ended with %v, want status %d", i.cmd.ProcessState, status)
	}
}

// socket listens as a socket unit does.
func (u *unit) socket(address string) *os.File {
	u.t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // Go's default, which systemd does not share
	ln, err := lc.Listen(context.Background(), "tcp", address)
	u.check(err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	u.check(err)
	u.t.Cleanup(func() { _ = f.Close() })
	return f
}

func (u *unit) conninfo() string {
	host, port, _ := net.SplitHostPort(u.address)
	return fmt.Sprintf("host=localhost hostaddr=%s port=%s user=%s dbname=%[3]s password='%s' sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s connect_timeout=60",
		host, port, role, password, u.path("ca.crt"), u.path("client.crt"), u.path("client.key"))
}

// bench is a pgbench under way. Its clients need a thread each: while one waits to
// be accepted, another one of the same thread could not finish its session.
type bench struct {
	u     *unit
	cmd   *exec.Cmd
	out   bytes.Buffer
	ended chan error
}

func (u *unit) bench(args ...string) *bench {
	u.t.Helper()
	path, err := pgtest.Program("pgbench")
	u.check(err)
	script := u.path("script.sql")
	u.check(os.WriteFile(script, []byte("select 1;\n"), 0o600))
	b := &bench{u: u, ended: make(chan error, 1)}
	b.cmd = exec.Command(path, append(append([]string{"-n", "-f", script}, args...), u.conninfo())...)
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	b.cmd.Env = pgtest.Environ()
	u.check(b.cmd.Start())
	go func() { b.ended <- b.cmd.Wait() }()
	u.t.Cleanup(func() { _ = b.cmd.Process.Kill() })
	return b
}

var benchDone = regexp.MustCompile(`number of transactions actually processed: [1-9]`)

// succeeds waits for its end, and for none of its transactions to have failed.
func (b *bench) succeeds() {
	b.u.t.Helper()
	select {
	case err := <-b.ended:
		out := b.out.String()
		if err != nil || !benchDone.MatchString(out) || !strings.Contains(out, "number of failed transactions: 0 ") || strings.Contains(out, "error") {
			b.u.t.Errorf("pgbench: %v\n%s", err, out)
		}
	case <-time.After(2 * deadline):
		b.u.t.Fatal("pgbench does not end")
	}
}

// stop ends a pgbench -T in order: it is the alarm clock that it has set.
func (b *bench) stop() {
	b.u.t.Helper()
	b.u.check(b.cmd.Process.Signal(syscall.SIGALRM))
	b.succeeds()
}

// served waits until an instance has served some sessions.
func (i *instance) served(n int) {
	i.t.Helper()
	i.eventually("no sessions", func() bool { return strings.Count(i.text(), `"msg":"session ended"`) >= n })
}

// With the sockets of the service manager, clients wait while no gate serves them.
func TestRestartWithSocketActivation(t *testing.T) {
	u := newUnit(t)
	socket := u.socket(u.address)
	gate := u.start("first", []*os.File{socket})
	come := u.bench("-C", "-c", "4", "-j", "4", "-T", "600")
	stay := u.bench("-c", "2", "-j", "2", "-R", "100", "-t", "200") // for four seconds at least
	gate.served(20)
	for n := range 3 {
		gate.signal(syscall.SIGTERM)
		gate.ends(0)
		if n == 0 {
			stay.succeeds() // the first gate has waited for it
		}
		gate = u.start(fmt.Sprintf("next%d", n), []*os.File{socket})
		gate.served(20)
	}
	come.stop()
	if text := gate.text(); strings.Contains(text, "refused") || strings.Contains(text, "DATA RACE") {
		t.Error("a client was refused")
	}
}

// The next gate is there before the last one goes.
func TestRestartWithReusePort(t *testing.T) {
	u := newUnit(t, "reuse_port: true")
	sysctl, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	migrates := err != nil || strings.TrimSpace(string(sysctl)) != "0"
	gate := u.start("first", nil)
	come := u.bench("-C", "-c", "4", "-j", "4", "-T", "600")
	stay := u.bench("-c", "2", "-j", "2", "-R", "100", "-t", "200") // for four seconds at least
	gate.served(20)
	for n := range 3 {
		next := u.start(fmt.Sprintf("next%d", n), nil)
		next.served(5)
		gate.signal(syscall.SIGTERM)
		gate.ends(0)
		gate = next
		gate.served(20)
	}
	stay.succeeds()
	come.stop()
	if gives := strings.Contains(gate.text(), "tcp_migrate_req"); gives == migrates {
		t.Errorf("a warning of tcp_migrate_req: %t; it is on: %t", gives, migrates)
	}
}

// What is passed must be what is configured.
func TestPassedSockets(t *testing.T) {
	u := newUnit(t)
	good := u.socket(u.address)
	for name, c := range map[string]struct {
		sockets func() []*os.File
		says    string
	}{
		"stranger": {
			func() []*os.File { return []*os.File{good, u.socket("127.0.0.2:0")} },
			"the service manager has passed sockets that listen does not name: 127.0.0.2:",
		},
		"twice": {
			func() []*os.File { return []*os.File{good, good} },
			u.address + " is passed twice",
		},
		"unix": {
			func() []*os.File {
				ln, err := net.Listen("unix", u.path("socket"))
				u.check(err)
				f, err := ln.(*net.UnixListener).File()
				u.check(err)
				t.Cleanup(func() { _ = f.Close(); _ = ln.Close() })
				return []*os.File{f}
			},
			"is not a TCP socket",
		},
	} {
		gate := u.launch(name, c.sockets())
		gate.ends(cli.BadConfig)
		if text := gate.text(); !strings.Contains(text, c.says) || strings.Count(text, "\n") != 1 {
			t.Errorf("%s: no %q in: %s", name, c.says, text)
		}
	}
}

// notifications are what a service manager hears.
type notifications struct {
	u    *unit
	path string
	mu   sync.Mutex
	all  []string
}

func (u *unit) notifications() *notifications {
	u.t.Helper()
	n := &notifications{u: u, path: u.path("notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	u.check(err)
	u.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for buf := make([]byte, 4096); ; {
			got, err := conn.Read(buf)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.all = append(n.all, string(buf[:got]))
			n.mu.Unlock()
		}
	}()
	return n
}

func (n *notifications) env() string { return "NOTIFY_SOCKET=" + n.path }

func (n *notifications) count(line string) (times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.all {
		for l := range strings.SplitSeq(m, "\n") {
			if strings.HasPrefix(l, line) {
				times++
			}
		}
	}
	return times
}

func (n *notifications) wait(line string, times int) {
	n.u.t.Helper()
	n.u.eventually(fmt.Sprintf("not %d times %s", times, line), func() bool { return n.count(line) >= times })
}

// states are those messages that say more than how it is going.
func (n *notifications) states() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for _, m := range n.all {
		if s, _, _ := strings.Cut(m, "\n"); !strings.HasPrefix(s, "STATUS=") {
			all = append(all, s)
		}
	}
	return strings.Join(all, " ")
}

func TestNotify(t *testing.T) {
	u := newUnit(t)
	n := u.notifications()
	gate := u.start("gate", nil, n.env())
	n.wait("READY=1", 1)
	n.wait("STATUS=0 connections; configuration loaded ", 1)

	gate.signal(syscall.SIGHUP)
	n.wait("READY=1", 2)
	n.wait("MONOTONIC_USEC=", 1)

	u.write("nonsense: true")
	gate.signal(syscall.SIGHUP)
	n.wait("READY=1", 3)
	n.wait("STATUS=0 connections; the last reload failed (", 1)

	gate.signal(syscall.SIGTERM)
	gate.ends(0)
	n.wait("STOPPING=1", 1)
	n.wait("EXTEND_TIMEOUT_USEC=70000000", 1)
	n.wait("STATUS=shutting down, 0 connections left", 1)
	if got, want := n.states(), "READY=1 RELOADING=1 READY=1 RELOADING=1 READY=1 STOPPING=1"; got != want {
		t.Errorf("it said %s, want %s", got, want)
	}
}

// No manager, a manager that has gone, one that does not listen: the gate works.
func TestNotifyWithoutManager(t *testing.T) {
	u := newUnit(t)
	gate := u.start("gate", nil, "NOTIFY_SOCKET="+u.path("nobody"), "WATCHDOG_USEC=1000000")
	gate.logs("cannot notify the service manager")
	gate.signal(syscall.SIGTERM)
	gate.ends(0)
}

// The sandbox leaves the gate its proof, and, where it has to run a command, does
// not name what it leaves alone.
func TestWatchdogWithCommand(t *testing.T) {
	u := newUnit(t)
	n := u.notifications()
	u.check(os.WriteFile(u.config, bytes.Replace(u.read(), []byte("tls: {"), []byte("tls: {passphrase_command: echo, "), 1), 0o600))
	gate := u.start("gate", nil, n.env(), "WATCHDOG_USEC=400000")
	n.wait("WATCHDOG=1", 2)
	gate.signal(syscall.SIGTERM)
	gate.ends(0)
}

// The pings come, leave no trace in log and metrics, and do not depend on the
// allowlist.
func TestWatchdog(t *testing.T) {
	u := newUnit(t)
	n := u.notifications()
	u.check(os.WriteFile(u.config, bytes.Replace(u.read(), []byte("127.0.0.0/8"), []byte("192.0.2.0/24"), 1), 0o600))
	gate := u.start("gate", nil, n.env(), "WATCHDOG_USEC=400000")
	n.wait("WATCHDOG=1", 5)
	if text := gate.text(); strings.Contains(text, "refused") || strings.Contains(text, "not alive") {
		t.Error("there is something of it in the log")
	}
	metrics := (&gateProcess{admin: u.admin}).metrics(t)
	if !strings.Contains(metrics, fmt.Sprintf("pgwicket_connections_accepted_total{listener=%q} 0\n", u.address)) {
		t.Errorf("a proof counts as a connection:\n%s", metrics)
	}
	gate.signal(syscall.SIGTERM)
	gate.ends(0)

	// No watchdog: no pings.
	before := n.count("WATCHDOG=1")
	gate = u.start("without", nil, n.env())
	gate.signal(syscall.SIGTERM)
	gate.ends(0)
	if n.count("WATCHDOG=1") != before {
		t.Error("pings without a watchdog")
	}
}

func (u *unit) read() []byte {
	u.t.Helper()
	text, err := os.ReadFile(u.config)
	u.check(err)
	return text
}
