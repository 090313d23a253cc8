package main

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/upgrade"
)

// upgrade runs the command, and returns what it prints.
func (u *unit) upgrade(args ...string) (string, error) {
	u.t.Helper()
	out, err := exec.Command("pgwicket", append([]string{"upgrade", "--config", u.config}, args...)...).CombinedOutput()
	return string(out), err
}

// plan is what an upgrade would do now.
func (u *unit) plan() (p upgrade.Plan, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", u.path("admin.sock"))
	}}}
	r, err := client.Get("http://pgwicket" + upgrade.Path)
	if err != nil {
		return p, err
	}
	defer r.Body.Close()
	return p, json.NewDecoder(r.Body).Decode(&p)
}

// gates returns the processes that have the configuration of u.
func (u *unit) gates() (pids []int) {
	u.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	u.check(err)
	for _, name := range all {
		if args, _ := os.ReadFile(name); strings.Contains(string(args), "\x00serve\x00") && strings.Contains(string(args), u.config) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// endGates ends them when the test is over.
func (u *unit) endGates() {
	u.t.Cleanup(func() {
		for _, pid := range u.gates() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

// onlyOne waits until the processes before the last one have ended.
func (u *unit) onlyOne() {
	u.t.Helper()
	u.eventually("a process before still lives", func() bool { return len(u.gates()) == 1 })
}

// Clients that connect all the time notice nothing of twenty upgrades, and counters do not jump back.
func TestUpgrade(t *testing.T) {
	u := newUnit(t)
	u.write(fmt.Sprintf("state_dir: %s", u.dir), fmt.Sprintf("audit: {file: %s}", u.path("audit.log")))
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	u.endGates()
	first := u.start("first", nil)
	come := u.bench("-C", "-c", "4", "-j", "4", "-T", "600")
	first.served(20)
	for range 20 {
		before := strings.Count(first.text(), `"msg":"session ended"`)
		u.upgradeWhenAlone()
		first.served(before + 5)
	}
	come.stop()
	u.onlyOne()
	text := first.text()
	if strings.Contains(text, "refused") || strings.Contains(text, "DATA RACE") || strings.Contains(text, `"level":"ERROR"`) {
		t.Error("a client was refused, or something has failed")
	}
	t.Log(strings.Count(text, "upgraded from another process"))
}

// upgradeWhenAlone upgrades the gate as soon as it knows that the process before it has ended.
func (u *unit) upgradeWhenAlone() {
	u.t.Helper()
	var out string
	u.eventually("no upgrade", func() bool {
		var err error
		out, err = u.upgrade()
		return err == nil || !strings.Contains(out, "the process before this one still has")
	})
	if !strings.HasPrefix(out, "upgraded in ") {
		u.t.Fatal(out)
	}
}

// startUpgradable starts a gate that can be upgraded.
func (u *unit) startUpgradable() *instance {
	u.t.Helper()
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	u.endGates()
	return u.start("first", nil)
}

// psql runs a script, with the session in %[1]s.
func (u *unit) psql(script string) (string, error) {
	u.t.Helper()
	path, err := pgtest.Program("psql")
	u.check(err)
	cmd := exec.Command(path, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", u.conninfo())
	cmd.Env, cmd.Stdin = pgtest.Environ(), strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A session goes on inside its transaction, with the same backend, while the process that served it ends.
func TestUpgradeInTransaction(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first := u.startUpgradable()
	upgrade := fmt.Sprintf(`\! pgwicket upgrade --config %s; while kill -0 %d 2>/dev/null; do sleep 0.05; done`, u.config, first.cmd.Process.Pid)
	out, err := u.psql(`
create temp table kept(x int);
begin;
insert into kept values (1);
select pg_backend_pid() as before \gset
` + upgrade + `
insert into kept values (2);
commit;
select pg_backend_pid() = :before, count(*) from kept;
select length(string_agg(md5(i::text), '')) from generate_series(1, 65536) i;
\copy kept from program 'seq 100000'
select count(*) from kept;
`)
	if err != nil || !strings.Contains(out, ", with 1 session\n") || !strings.HasSuffix(out, "COMMIT\nt|2\n2097152\nCOPY 100000\n100002\n") {
		t.Errorf("%v\n%s", err, out)
	}
	first.ends(0)
	u.eventually("the end of the session", func() bool { return strings.Contains(first.text(), `"msg":"session ended"`) })
	if text := first.text(); strings.Count(text, `"msg":"session began"`) != 1 || strings.Count(text, `"msg":"session ended"`) != 1 {
		t.Error("the session has not begun and ended once")
	}
}

// upgrades upgrades again and again until stop is called, which returns how often.
func (u *unit) upgrades() (stop func() int) {
	u.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			out, err := u.upgrade()
			switch {
			case err == nil:
				n++
			case !strings.Contains(out, "the process before this one still has"):
				u.t.Errorf("upgrade %d: %v: %s", n, err, out)
			}
			time.Sleep(20 * time.Millisecond)
		}
		done <- n
	}()
	return sync.OnceValue(func() int {
		cancel()
		return <-done
	})
}

// What clients do goes on through many upgrades, to the byte: a COPY each way, transactions in a pipeline, and
// a base backup that streams.
func TestUpgradesUnderLoad(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first := u.startUpgradable()
	stop := u.upgrades()
	defer stop()
	const rows = 2_000_000
	var wg sync.WaitGroup
	run := func(name, script, want string) {
		wg.Go(func() {
			if out, err := u.psql(script); err != nil || out != want {
				t.Errorf("%s: %v\n%.500s\nwant %s", name, err, out, want)
			}
		})
	}
	run("copy out", fmt.Sprintf("\\copy (select i, md5(i::text) from generate_series(1, %d) i) to program 'md5sum >%s'\n", rows, u.path("out.md5")), fmt.Sprintf("COPY %d\n", rows))
	run("copy in", fmt.Sprintf(`create temp table t(x int);
\copy t from program 'seq %d'
select count(*), sum(x) from t;
`, rows), fmt.Sprintf("CREATE TABLE\nCOPY %d\n%[1]d|%d\n", rows, rows*(rows+1)/2))
	pipeline := u.path("pipeline.sql")
	u.check(os.WriteFile(pipeline, []byte("\\startpipeline\n"+strings.Repeat("select 1;\n", 200)+"\\endpipeline\n"), 0o600))
	for _, args := range [][]string{
		{"-M", "extended", "-f", pipeline, "-c", "2", "-j", "2", "-t", "100"},
		{"-c", "8", "-j", "2", "-t", "3000"},
	} {
		b := u.bench(args...)
		wg.Go(b.succeeds)
	}
	wg.Wait()
	n := stop()
	t.Logf("%d upgrades", n)
	if n < 5 {
		t.Errorf("%d upgrades", n)
	}
	got, err := os.ReadFile(u.path("out.md5"))
	u.check(err)
	sum := md5.New()
	for i := 1; i <= rows; i++ {
		fmt.Fprintf(sum, "%d\t%x\n", i, md5.Sum([]byte(strconv.Itoa(i))))
	}
	if want := hex.EncodeToString(sum.Sum(nil)); !strings.HasPrefix(string(got), want) {
		t.Errorf("copied out %s, want %s", got, want)
	}
	u.onlyOne()
	if text := first.text(); strings.Contains(text, `"level":"ERROR"`) || strings.Contains(text, "DATA RACE") {
		t.Error("something has failed")
	}
}

// copyProgram returns a copy of the program that every account can run.
func (u *unit) copyProgram() string {
	u.t.Helper()
	path, err := exec.LookPath("pgwicket")
	u.check(err)
	u.check(exec.Command("install", "-m", "0755", path, u.path("pgwicket")).Run())
	return u.path("pgwicket")
}

// A gate that root has started, and that gave its privileges up, is upgraded by root without getting them
// back, and keeps its port below 1024.
func TestUpgradeKeepsNoPrivileges(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give privileges up")
	}
	db, err := database.get()
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(db.SocketDir)
	if err != nil {
		t.Fatal(err)
	}
	uid := strconv.Itoa(int(st.Sys().(*syscall.Stat_t).Uid))
	account, err := user.LookupId(uid)
	if err != nil {
		t.Fatal(err)
	}
	u := newUnit(t)
	u.moveTo("/var") // root upgrades no gate of another account from a directory of everybody
	u.address = "127.0.7.17:998"
	u.write("user: "+account.Username, "landlock: false")
	binary := u.copyProgram()
	u.check(exec.Command("chown", "-R", account.Username, u.dir).Run())
	first := u.startUpgradable()
	c := u.talk()
	c.asks("begin; select 1;", "1")
	for n := range 3 {
		if out, err := u.upgrade("--binary", binary); err != nil {
			t.Fatalf("upgrade %d: %v: %s", n, err, out)
		}
		u.onlyOne()
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", u.gates()[0]))
		u.check(err)
		for _, want := range []string{fmt.Sprintf("Uid:\t%s\t%[1]s\t%[1]s\t%[1]s\n", uid), "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("after upgrade %d: no %q in\n%s", n, want, status)
			}
		}
		c.asks("select 2;", "2")
		if out, err := u.psql("select 'new'"); err != nil || out != "new\n" {
			t.Errorf("a new client: %v, %s", err, out)
		}
	}
	first.ends(0)
	nobody := exec.Command(binary, "upgrade", "--config", u.config)
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	u.check(os.Chmod(u.dir, 0o755))
	u.check(os.Chmod(u.config, 0o644))
	if out, err := nobody.CombinedOutput(); err == nil || !strings.Contains(string(out), "only root and the account of the gate can open it") {
		t.Errorf("another account: %v: %s", err, out)
	}
}

// The service manager hears of the new main process from the old one, and that it is ready from the new one.
func TestUpgradeNotifies(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	u.endGates()
	n := u.notifications()
	first := u.start("first", nil, n.env(), "WATCHDOG_USEC=400000")
	n.wait("WATCHDOG=1", 2)
	if out, err := u.upgrade(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first.ends(0)
	n.wait("READY=1", 2)
	u.onlyOne()
	if main := fmt.Sprintf("MAINPID=%d", u.gates()[0]); n.count(main) != 1 {
		t.Errorf("not %s in %s", main, n.states())
	}
	if got := n.states(); !strings.Contains(got, "MAINPID") || strings.Index(got, "MAINPID") > strings.LastIndex(got, "READY=1") {
		t.Errorf("it said %s", got)
	}
	pings := n.count("WATCHDOG=1")
	n.wait("WATCHDOG=1", pings+3) // the new process lives
	if strings.Contains(first.text(), "not alive") {
		t.Error("the watchdog has failed")
	}
}

// Sessions with CBC cannot be handed over. They are counted before, end where they are, and go on until then.
func TestUpgradeWithSessionsThatStay(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.replace("tls: {", "tls: {max_protocol_version: TLSv1.2, ciphers: [TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA], ")
	first := u.startUpgradable()
	c := u.talk()
	c.asks("select 1;", "1")
	if out, err := u.upgrade("--dry-run"); err != nil || !strings.Contains(out, "would hand 0 sessions over; 1 session and 0 connections in startup would stay, for at most 1m0s\n") {
		t.Errorf("%v: %s", err, out)
	}
	out, err := u.upgrade()
	if err != nil || !strings.Contains(out, "with 0 sessions\n") || !strings.Contains(out, "finishes 1 session and 0 connections in startup, for at most 1m0s\n") {
		t.Errorf("%v: %s", err, out)
	}
	c.asks("select 2;", "2")
	if out, err := exec.Command("pgwicket", "sessions", "--config", u.config).CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 2 {
		t.Errorf("the list of sessions: %v: %s", err, out)
	}
	if out, err := u.upgrade(); err == nil || !strings.Contains(out, "the process before this one still has sessions") {
		t.Errorf("a second upgrade: %v: %s", err, out)
	}
	if out, err := u.psql("select 'new'"); err != nil || out != "new\n" {
		t.Errorf("a new client: %v, %s", err, out)
	}
	u.eventually("the new client's session goes on", func() bool {
		out, err := exec.Command("pgwicket", "sessions", "--config", u.config).CombinedOutput()
		return err == nil && strings.Count(string(out), "\n") == 2
	})
	if out, err := exec.Command("pgwicket", "terminate", "--config", u.config, "--yes", "--user", role).CombinedOutput(); err != nil || !strings.Contains(string(out), "1") {
		t.Errorf("terminate: %v: %s", err, out)
	}
	first.ends(0)
}

// A logical subscriber, a standby's stream of WAL and a base backup live through ten upgrades: they are not
// connected again, and lose nothing.
func TestUpgradesOfReplication(t *testing.T) {
	t.Parallel()
	db, err := pgtest.Start(context.Background(), pgtest.Options{
		HBA:      "local replication all trust\nlocal all all trust",
		Settings: []string{"wal_level=logical", "max_wal_senders=10"},
		SQL:      "create table t (n int); create table big as select i, md5(i::text) from generate_series(1, 300000) i; select pg_create_logical_replication_slot('slot', 'test_decoding')",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	shared, err := database.get()
	if err != nil {
		t.Fatal(err)
	}
	u := newUnit(t)
	u.replace(shared.SocketDir, db.SocketDir)
	u.startUpgradable()
	conninfo := strings.Replace(u.conninfo(), "user="+role, "user="+pgtest.Superuser, 1)
	said, err := os.Create(u.path("said"))
	u.check(err)
	t.Cleanup(func() { _ = said.Close() })
	run := func(name string, args ...string) *exec.Cmd {
		path, err := pgtest.Program(name)
		u.check(err)
		cmd := exec.Command(path, args...)
		cmd.Env, cmd.Stderr = pgtest.Environ(), said
		u.check(cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd
	}
	u.check(os.Mkdir(u.path("wal"), 0o700))
	logical := run("pg_recvlogical", "-d", conninfo+" dbname=postgres", "-S", "slot", "--start", "-f", u.path("rows"), "--fsync-interval=1", "--status-interval=1", "--no-loop")
	wal := run("pg_receivewal", "-d", conninfo, "-D", u.path("wal"), "--status-interval=1", "--no-loop")
	backup := run("pg_basebackup", "-d", conninfo, "-D", u.path("backup"), "-X", "stream", "--max-rate=8M", "-c", "fast")
	sql := func(text string) {
		cmd := exec.Command("psql", "-X", "-q", "-h", db.SocketDir, "-U", pgtest.Superuser, "-d", "postgres", "-c", text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	for n := range 10 {
		sql(fmt.Sprintf("insert into t select %d * 1000 + i from generate_series(1, 1000) i", n))
		u.upgradeWhenAlone()
	}
	sql("insert into t values (-1)")
	u.eventually("not every row", func() bool {
		rows, _ := os.ReadFile(u.path("rows"))
		return strings.Contains(string(rows), "n[integer]:-1\n")
	})
	rows, err := os.ReadFile(u.path("rows"))
	u.check(err)
	if got := strings.Count(string(rows), "INSERT: "); got != 10*1000+1 {
		t.Errorf("%d rows", got)
	}
	if err := backup.Wait(); err != nil {
		t.Errorf("pg_basebackup: %v", err)
	}
	verify, err := pgtest.Program("pg_verifybackup")
	u.check(err)
	if out, err := exec.Command(verify, u.path("backup")).CombinedOutput(); err != nil {
		t.Errorf("pg_verifybackup: %v: %s", err, out)
	}
	text, err := os.ReadFile(said.Name())
	u.check(err)
	for _, cmd := range []*exec.Cmd{logical, wal} {
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Errorf("%s has ended: %v", cmd.Path, err)
		}
		_ = cmd.Wait()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
			t.Errorf("%s has ended: %v", cmd.Path, cmd.ProcessState)
		}
	}
	if len(text) > 0 {
		t.Errorf("a client says: %s", text)
	}
}
