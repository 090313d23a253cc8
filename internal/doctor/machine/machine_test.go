//go:build unix

package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/doctor/report"
)

// lab is a machine in a directory.
type lab struct {
	*testing.T
	System
	dir, home string
	account   Account
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{t, System{Etc: filepath.Join(dir, "etc"), Units: []string{filepath.Join(dir, "units"), filepath.Join(dir, "more")}}, dir, filepath.Join(dir, "home of postgres"), Account{}}
	l.account = Account{Name: "postgres", Home: l.home, UID: strconv.Itoa(os.Geteuid()), Shell: "/bin/bash"}
	for _, d := range []string{"etc/profile.d", "etc/sudoers.d", "units/postgresql@.service.d", "more", "home of postgres", "bin"} {
		l.must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	l.write("bin/visudo", "#!/bin/sh\n")
	l.must(os.Chmod(filepath.Join(dir, "bin/visudo"), 0o755))
	l.write("home of postgres/.profile", "umask 077\nexport PGHOST=/run/postgresql # PGPASSWORD=none\necho $PGPASSWORD = \"$PGPASSWORD\"\n")
	l.write("home of postgres/.psql_history", "select 1;\nalter role app password null;\n\\password app\n")
	l.write("etc/sudoers", "Defaults env_reset\nroot ALL=(ALL:ALL) NOPASSWD: ALL\n%sudo ALL=(ALL:ALL) ALL\nadmin ALL=(backup) NOPASSWD: ALL\n")
	l.write("etc/login.defs", "UMASK 022\n")
	return l
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) write(name, text string) {
	l.Helper()
	l.must(os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600))
}

func (l *lab) shell(command string) {
	l.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir, cmd.Env = l.dir, append(os.Environ(), "PATH="+filepath.Join(l.dir, "bin")+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		l.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// found returns the findings that are not Pass.
func (l *lab) found() []report.Finding {
	return slices.DeleteFunc(l.Examine([]Account{l.account}), func(f report.Finding) bool { return f.Status == report.Pass })
}

// TestFaults makes a machine wrong in each way, and right again by what doctor prints.
func TestFaults(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	tried := make(map[string]bool)
	for _, f := range []struct {
		check  string
		status report.Status
		wrong  string // a command
		text   string // in the reason or the place
		mend   string // empty: the fix
	}{
		{"pgpassword", report.Warn, "echo 'export PGPASSWORD=hunter2' >> 'home of postgres/.profile'", ".profile:4", ""},
		{"pgpassword", report.Warn, "echo 'PGHOST=x PGPASSWORD=hunter2 psql' >> 'home of postgres/.bashrc'", ".bashrc:1", "rm 'home of postgres/.bashrc'"},
		{"pgpassword", report.Warn, "echo PGPASSWORD=hunter2 >> etc/environment", "etc/environment:1", ""},
		{"pgpassword", report.Warn, `echo 'export PGPASSWORD="hunter2"' >> etc/profile.d/x.sh`, "x.sh:1", ""},
		{"pgpassword", report.Warn, `printf '[Service]\n;Environment=PGPASSWORD=x\nEnvironment="PGPASSWORD=hunter2"\n' > more/pgwicket.service`, "pgwicket.service:3", ""},
		{"pgpassword", report.Warn, `echo 'PGPASSWORD=hunter2' > "etc/variables" && printf "[Service]\nEnvironmentFile=-$PWD/etc/variables\n" > units/postgresql@.service.d/more.conf`, "etc/variables:1", ""},
		{"password_files", report.Fail, "echo '*:*:*:*:hunter2' > 'home of postgres/.pgpass'; chmod 640 'home of postgres/.pgpass'", "mode 0640", ""},
		{"password_files", report.Warn, `printf '[shop]\nhost=x\npassword=hunter2\n' > etc/pg_service.conf`, "pg_service.conf:3", ""},
		{"psql_history", report.Warn, `echo "alter role app PASSWORD 'hunter2';" >> 'home of postgres/.psql_history'`, "1 statement with a password, the first is line 4", ""},
		{"psql_history", report.Warn, `printf 'create role x\001login password\001$$hunter2$$;\n\\connect "host=x password=hunter2"\n' > 'home of postgres/.psql_history-shop'`, "2 statements", ""},
		{"sudo_accounts", report.Warn, `printf 'deploy ALL=(postgres) NOPASSWD: /usr/bin/psql\n' > etc/sudoers.d/deploy`, "deploy becomes postgres without a password", ""},
		{"sudo_accounts", report.Warn, `printf '%%ops ALL = \\\n (backup, postgres) SETENV: \\\n NOPASSWD:ALL\n' >> etc/sudoers`, "%ops becomes postgres", ""},
		{"sudo_accounts", report.Note, `printf 'ubuntu ALL=(ALL) NOPASSWD:ALL\n' > etc/sudoers.d/90-cloud-init-users`, "ubuntu becomes every account", ""},
		{"sudo_accounts", report.Note, `printf 'ubuntu ALL=NOPASSWD: ALL\n' > etc/sudoers.d/root`, "ubuntu becomes every account", ""},
		{"account_umask", report.Note, "sed -i /umask/d 'home of postgres/.profile'", "postgres is 0022", ""},
		{"account_umask", report.Note, "echo umask 027 > 'home of postgres/.bash_profile'", "postgres is 0027", ""},
	} {
		l := newLab(t)
		for _, before := range l.found() {
			t.Fatalf("before anything is wrong: %+v", before)
		}
		l.shell(f.wrong)
		all := l.found()
		if len(all) != 1 || all[0].Check != f.check || all[0].Status != f.status || !strings.Contains(all[0].Where+" "+all[0].Reason, f.text) {
			t.Errorf("%s: %+v, not %v with %q", f.wrong, all, f.status, f.text)
			continue
		}
		if one := all[0]; strings.Contains(one.Reason+one.Where+one.Fix, secret) || one.Why == "" || one.Heading == "" || one.Fix == "" {
			t.Errorf("%s: the finding shows the password, or lacks something: %+v", f.wrong, one)
		}
		tried[f.check] = true
		if f.mend == "" {
			f.mend = all[0].Fix
		}
		l.shell(f.mend)
		for _, still := range l.found() {
			t.Errorf("%s: still there after its fix %q: %+v", f.wrong, f.mend, still)
		}
	}
	for _, name := range Names() {
		if !tried[name] {
			t.Errorf("no fault for %s", name)
		}
	}
}

// A service of the account that has PGPASSWORD is found, and not shown. What somebody runs for a moment is not found.
func TestProcess(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("there is no /proc")
	}
	l := newLab(t)
	cmd := exec.Command("sleep", "600")
	cmd.Env = []string{"A=b", "PGPASSWORD=hunter2"}
	l.must(cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := strconv.Itoa(cmd.Process.Pid)
	found := func() (reasons []string) {
		for _, f := range l.found() {
			if f.Where == "process "+pid {
				reasons = append(reasons, f.Reason)
			}
		}
		return reasons
	}
	l.Proc = "/proc"
	if all := found(); len(all) > 0 {
		t.Errorf("a process of a test is a service: %q", all)
	}
	// The kernel's files of that process, but for its parent: not every system has the first process adopt one.
	l.Proc = t.TempDir()
	l.must(os.Mkdir(filepath.Join(l.Proc, pid), 0o700))
	for _, name := range []string{"status", "environ"} {
		text, err := os.ReadFile("/proc/" + pid + "/" + name)
		l.must(err)
		text = regexp.MustCompile(`(?m)^PPid:.*$`).ReplaceAll(text, []byte("PPid:\t1"))
		l.must(os.WriteFile(filepath.Join(l.Proc, pid, name), text, 0o600))
	}
	if all := found(); len(all) != 1 || strings.Contains(all[0], "hunter2") || !strings.Contains(all[0], "(sleep) of postgres") {
		t.Errorf("%q", all)
	}
}

// What an account puts into its home directory cannot make doctor wait, read another file or
// use much memory.
func TestHostileHome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ wrong, check string }{
		{"mkfifo 'home of postgres/.psql_history-x'", "psql_history"},
		{"ln -s /dev/zero 'home of postgres/.psql_history-x'", "psql_history"},
		{"ln -s /etc/shadow 'home of postgres/.bashrc'", "pgpassword"},
		{"truncate -s 1T 'home of postgres/.psql_history-x'", "psql_history"},
		{"mkdir 'home of postgres/.zshrc'", "pgpassword"},
		{"ln -s /dev/zero 'home of postgres/.pg_service.conf'", "password_files"},
	} {
		l := newLab(t)
		l.shell(c.wrong)
		began := time.Now()
		all := l.found()
		if len(all) != 1 || all[0].Check != c.check || all[0].Status != report.Skip || all[0].Fix == "" {
			t.Errorf("%s: %+v", c.wrong, all)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: it took %v", c.wrong, took)
		}
	}
}

// Another account's home is one finding of each check, not one of each file.
func TestForeignHome(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	l := newLab(t)
	l.must(os.Chmod(l.home, 0))
	t.Cleanup(func() { _ = os.Chmod(l.home, 0o700) })
	for _, f := range l.found() {
		if f.Status != report.Skip {
			t.Errorf("%+v", f)
		}
	}
	if n := len(l.found()); n != 4 {
		t.Errorf("%d findings", n)
	}
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	all := This().Accounts("root", "", "no such account", "nobody", "nobody")
	if len(all) > 1 || len(all) == 1 && (all[0].Name != "nobody" || all[0].UID == "" || !filepath.IsAbs(all[0].Home)) {
		t.Errorf("%+v", all)
	}
}

// Bounds hold where there is much to look at.
func TestMuch(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.write("home of postgres/.psql_history", strings.Repeat("select 1;\n", maxHistory/10))
	for i := range 2000 {
		l.write("etc/sudoers.d/n"+strconv.Itoa(i), "x ALL=(backup) NOPASSWD: ALL\n")
	}
	began := time.Now()
	for _, f := range l.found() {
		t.Errorf("%+v", f)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	var usage syscall.Rusage
	l.must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	t.Logf("%v, %d MiB of memory at the peak of the process", time.Since(began), usage.Maxrss>>10)
}
