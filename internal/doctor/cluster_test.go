//go:build unix

package doctor

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/pgtest"
)

// TestFaultsOfReleases makes the same faults in the other releases, which "make interop"
// installs.
func TestFaultsOfReleases(t *testing.T) {
	t.Parallel()
	releases := pgtest.Releases("../..")
	if len(releases) == 0 {
		t.Skip("no other release is installed; make interop-quick installs them")
	}
	for major, o := range releases {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			o.Settings = []string{"timezone=UTC"}
			testFaultsOfServer(t, o, major)
		})
	}
}

// hostileNames are names that could leave their quotes in SQL, in psql, in HTML or in a
// terminal. The last has 63 bytes.
func hostileNames() []string {
	return []string{
		`a"b`, "it's", "new\nline", "%s%I%n", "🐘 elephant", "esc\x1b[2J\x07", "<script>alert(1)</script>", "host=evil dbname=x", "x; drop role app; --",
		`\! touch /tmp/owned`, `:var :'var'`, "select", "{} {}", "\u202egnp", "$(reboot)`id`", "a,b c", strings.Repeat("x", 60) + "\u20ac",
	}
}

// What hostile names are in comes out whole: the text has no control characters, the page no
// markup of theirs, and the statements mend exactly these objects.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	l := newFaultLab(t, pgtest.Options{})
	l.mustSQL(`create database model; \connect model
		create table open (id int); grant update on open to public`)
	quote := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	for _, name := range hostileNames() {
		q := quote(name)
		l.mustSQL("create database " + q + " template model; create role " + q + " login bypassrls; grant pg_execute_server_program to " + q + "; grant create on database " + q + " to public")
		l.mustSQL("create schema " + q + "; grant create on schema " + q + " to public; " +
			"create table " + q + "." + q + " (" + q + " int); grant insert on " + q + "." + q + " to public; grant select (" + q + ") on " + q + "." + q + " to public; " +
			"create policy " + q + " on " + q + "." + q + " using (true); alter table " + q + "." + q + " owner to " + q + "; " +
			"create function " + q + "." + q + "(" + q + "." + q + ") returns int security definer language sql as 'select 1'")
	}
	r := report.Report{Findings: l.examine()}
	checks := []string{
		"role_bypassrls", "role_power", "database_public_create", "schema_public_create", "table_public_write", "table_public_read", "definer_search_path", "definer_public",
		"row_security_off", "policy_true",
	}
	r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return !slices.Contains(checks, f.Check) })
	if r.Count(Pass) > 0 || len(r.Findings) != len(checks) {
		t.Errorf("%d findings, %d passed", len(r.Findings), r.Count(Pass))
	}
	var text, page, machine, metrics bytes.Buffer
	l.must(r.WriteText(&text, true))
	l.must(r.WriteHTML(&page))
	l.must(r.WriteJSON(&machine))
	l.must(r.WriteMetrics(&metrics))
	for name, out := range map[string]string{"text": text.String(), "page": page.String(), "JSON": machine.String(), "metrics": metrics.String()} {
		if i := strings.IndexFunc(out, func(c rune) bool { return c != '\n' && c != '€' && !unicode.IsPrint(c) }); i >= 0 {
			t.Errorf("the %s has %q", name, out[i:min(i+8, len(out))])
		}
	}
	if strings.Contains(page.String(), "<script") {
		t.Error("the page has a script")
	}
	if !strings.Contains(text.String(), `U&"esc\001B[2J\0007".U&"esc\001B[2J\0007"`) {
		t.Error("a name with control characters is not named:\n" + text.String())
	}
	// Ten objects at a time.
	for range 2*len(hostileNames())/report.MaxNames + 2 {
		for _, f := range l.examine() {
			if slices.Contains(checks, f.Check) && f.Status != Pass {
				l.mustSQL(f.Fix)
			}
		}
	}
	for _, f := range l.examine() {
		if slices.Contains(checks, f.Check) && f.Status != Pass {
			t.Errorf("still there: %+v", f)
		}
	}
	if _, err := os.Stat("/tmp/owned"); err == nil {
		t.Error("a fix has run a command")
	}
}

func (l *faultLab) mustSQL(sql string) {
	l.Helper()
	if _, err := l.SQL(sql); err != nil {
		l.Fatalf("%v\n%s", err, sql)
	}
}

// TestBigCluster bounds CPU time and memory where there is much to look at. Ten seconds are more than
// twice what it takes; how long that is by the clock depends on what else runs.
func TestBigCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 tables take a while")
	}
	const databases, tables, roles = 20, 500, 1000
	l := newFaultLab(t, pgtest.Options{Settings: []string{"max_locks_per_transaction=512"}})
	l.mustSQL(fmt.Sprintf("do $$begin for i in 1..%d loop execute format('create role member_%%s login in role app password %%L', i, i || 'x8Uq0'); end loop; end$$", roles))
	l.mustSQL(fmt.Sprintf(`create database big; \connect big
		do $$begin for i in 1..%d loop execute format('create table t_%%s (id int primary key, password text); grant select, insert on t_%%s to public; create view v_%%s as select * from t_%%s; grant select on v_%%s to app', i, i, i, i, i); end loop; end$$`, tables))
	for i := range databases - 4 { // besides postgres, app, template1 and big
		l.mustSQL(fmt.Sprintf("create database big_%d template big", i))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start, used, served := time.Now(), usedCPU(t), childrenCPU(l.PID())
	r := l.alone()
	took := time.Since(start)
	used, served = usedCPU(t)-used, childrenCPU(l.PID())-served
	runtime.ReadMemStats(&after)
	if n := r.Count(Skip); n > 0 {
		t.Errorf("%d skipped", n)
	}
	allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
	t.Logf("%v, CPU time of doctor %v and of PostgreSQL %v, %d MiB allocated in all", took, used, served, allocated)
	if used+served > 10*time.Second || allocated > 100 {
		t.Errorf("CPU time of doctor %v and of PostgreSQL %v, %d MiB", used, served, allocated)
	}
	for _, f := range r.Findings {
		if f.Check == "table_public_write" && (f.Count != (databases-3)*tables || len(f.Objects) != report.MaxNames) {
			t.Errorf("%d tables, %d names", f.Count, len(f.Objects))
		}
	}
}

// usedCPU returns the CPU time of this process.
func usedCPU(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// childrenCPU returns the CPU time of the ended children of a process, on Linux.
func childrenCPU(pid int) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after) // cutime and cstime are the 16th and 17th field of proc_pid_stat(5)
	if len(fields) < 15 {
		return 0
	}
	user, _ := strconv.Atoi(fields[13])
	system, _ := strconv.Atoi(fields[14])
	return time.Duration(user+system) * 10 * time.Millisecond
}
