//go:build unix

package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgwicket/internal/doctor/report"
)

// Each file says what others may do, in a form of sudoers(5). visudo, where it is installed, finds no mistake in
// it, before and after the fix.
func TestSudoers(t *testing.T) {
	t.Parallel()
	const web = "web1"
	for name, c := range map[string]struct {
		text string
		want []string // status, line and reason
	}{
		"aliases": {
			"User_Alias OPS = alice, %dba : DEVS = carol\nRunas_Alias DB = postgres, backup\nCmnd_Alias SQL = /usr/bin/psql, /usr/bin/pg_dump\nOPS ALL = (DB) NOPASSWD: SQL\n",
			[]string{"warn 4 alice, %dba become postgres without a password"},
		},
		"used before it is defined": {
			"OPS ALL = (DB) NOPASSWD: ALL\nUser_Alias OPS = alice\nRunas_Alias DB = OTHERS, BACK\nRunas_Alias BACK = postgres\nRunas_Alias OTHERS = mail\n",
			[]string{"warn 1 alice becomes postgres without a password"},
		},
		"alias of every command":    {"Cmnd_Alias ANY = ALL\nalice ALL = NOPASSWD: ANY\n", []string{"note 2 alice becomes every account without a password, and so postgres"}},
		"alias of everybody":        {"Runas_Alias ANYBODY = ALL\nalice ALL = (ANYBODY) NOPASSWD: ALL\n", []string{"note 2 alice becomes every account"}},
		"everybody but this":        {"Runas_Alias OURS = postgres\nalice ALL = (ALL, !OURS) NOPASSWD: ALL\n", nil},
		"users without one":         {"User_Alias OPS = alice, bob\nOPS, !bob ALL = (postgres) NOPASSWD: ALL\n", []string{"warn 2 alice becomes postgres"}},
		"itself and root":           {"User_Alias OWN = postgres, root\nOWN ALL = (postgres) NOPASSWD: ALL\n", nil},
		"another machine":           {"Host_Alias WEB = web2, 192.0.2.0/24\nalice WEB = (postgres) NOPASSWD: ALL\n", nil},
		"this machine":              {"Host_Alias WEB = web1.example.com\nalice WEB = (postgres) NOPASSWD: ALL\n", []string{"warn 2 alice becomes postgres"}},
		"its network":               {"alice 10.1.0.0/16, !10.1.2.0/24 = (postgres) NOPASSWD: ALL\n", []string{"warn 1 alice becomes postgres"}},
		"several machines":          {"alice web2 = NOPASSWD: ALL : web1 = (postgres) NOPASSWD: /bin/sh\n", []string{"warn 1 alice becomes postgres"}},
		"the tag holds on":          {"alice ALL = (backup) NOPASSWD: /bin/a, (postgres) /bin/b\n", []string{"warn 1 alice becomes postgres"}},
		"another tag":               {"alice ALL = (backup) NOPASSWD: /bin/a, (postgres) PASSWD: /bin/b\n", nil},
		"two tags":                  {"alice ALL = (postgres) SETENV:NOPASSWD : /bin/a, (backup) NOPASSWD:ALL\n", []string{"warn 1 alice becomes postgres"}},
		"options":                   {"alice ALL = (postgres:postgres) CWD=/tmp TIMEOUT=1h NOPASSWD: sha256:LPCl+KXcmVUDUIXBLwIcVA18pD/K/U5yQJzJFqiVyCg= /bin/a\n", []string{"warn 1 alice becomes postgres"}},
		"arguments":                 {"alice ALL = (postgres) NOPASSWD: /bin/a b\\,c\\=d, /bin/e ^x,y=(z|:)$, /bin/c\n", []string{"warn 1 alice becomes postgres"}},
		"by number":                 {"#1000 ALL = (#UID) NOPASSWD: ALL # not a number\n", []string{"warn 1 #1000 becomes postgres"}},
		"continued":                 {"User_Alias OPS = \\\n  alice\nOPS ALL = \\\n (postgres) \\\n NOPASSWD: ALL\n", []string{"warn 3 alice becomes postgres"}},
		"only a group":              {"alice ALL = (:postgres) NOPASSWD: ALL\n", nil},
		"accounts of a group":       {"alice ALL = (%dba) NOPASSWD: ALL\n", []string{"skip 1 a line of sudoers that is not looked at: it has the accounts of a group"}},
		"no password at all":        {"Defaults env_reset, !authenticate\nalice ALL = (postgres) ALL\nbob ALL = (postgres) PASSWD: ALL\n", []string{"warn 1 alice becomes postgres"}},
		"a password after all":      {"Defaults !authenticate\nDefaults authenticate\nalice ALL = (postgres) ALL\n", nil},
		"no password for some":      {"Defaults:alice !authenticate\nalice ALL = (postgres) ALL\n", []string{"skip 1 a line of sudoers that is not looked at: !authenticate for some users"}},
		"a program that is no list": {"Cmnd_Alias SH = /bin/sh : SU = /bin/su\nalice ALL = NOPASSWD: SH, SU\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.Hosts = []string{web, web + ".example.com", "10.1.3.4"}
			sudoers := filepath.Join(l.dir, "etc", "sudoers")
			check := func() {
				t.Helper()
				if visudo, err := exec.LookPath("visudo"); err == nil {
					if out, err := exec.Command(visudo, "-c", "-f", sudoers).CombinedOutput(); err != nil {
						t.Errorf("%v: %s", err, out)
					}
				}
			}
			l.write("etc/sudoers", "root ALL = (ALL:ALL) NOPASSWD: ALL\n"+strings.ReplaceAll(c.text, "#UID", "#"+l.account.UID))
			l.must(os.Chmod(sudoers, 0o440))
			check()
			found := l.found()
			var got []string
			for _, f := range found {
				_, at, _ := strings.Cut(f.Where, ":")
				line, err := strconv.Atoi(at)
				l.must(err)
				got = append(got, fmt.Sprintf("%s %d %s", f.Status, line-1, f.Reason)) // the first line is root's
				if f.Name == "" {
					t.Errorf("no name: %+v", f)
				}
			}
			if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
				t.Fatalf("%q, not %q", got, c.want)
			}
			for _, f := range found {
				if f.Status != report.Skip {
					l.shell(f.Fix)
				}
			}
			check()
			for _, f := range l.found() {
				if f.Status != report.Skip {
					t.Errorf("still there: %+v", f)
				}
			}
		})
	}
}

// What cannot be read is named, and the other lines hold.
func TestSudoersUnread(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.write("etc/sudoers", "@include extra\nalice ALL = (postgres NOPASSWD: ALL\n")
	l.write("etc/extra", "#includedir /etc/more\nbob ALL = (postgres) NOPASSWD: ALL\n")
	l.must(os.Mkdir(filepath.Join(l.dir, "etc/more"), 0o755))
	l.write("etc/more/x", "User_Alias A = B : B = A, carol\nA ALL = (postgres) NOPASSWD: ALL\n@include /etc/extra\n")
	l.write("etc/more/x.old", "dave ALL = (postgres) NOPASSWD: ALL\n")
	l.write("etc/nsswitch.conf", "passwd: files\nsudoers: files [NOTFOUND=continue] sss\n")
	var got []string
	for _, f := range l.found() {
		got = append(got, f.Reason)
	}
	want := []string{"bob becomes postgres", "carol becomes postgres", "a line of sudoers that is not looked at: a parenthesis is not closed (and 1 more)"}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("%q, not %q", got, want)
	}
}
