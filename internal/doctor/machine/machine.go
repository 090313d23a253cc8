// Package machine examines what lies around a PostgreSQL and a gate on their machine: the
// files of their accounts, their services, and sudo. It reads files and runs nothing.
//
// Each file is opened without following a symbolic link in a home directory, only if it is
// a regular file, and read up to a bound. No finding has a password, or a line that has one.
package machine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/printable"
	"pgwicket/internal/statefile"
)

// Bounds of an examination.
const (
	maxFile    = 1 << 20  // bytes of a configuration file
	maxHistory = 16 << 20 // of a history
	maxFiles   = 1000     // that one pattern may match
	maxProcs   = 32768    // processes, as many as a Linux has without a setting
)

// Account is one that PostgreSQL or a gate runs as.
type Account struct {
	Name, Home string
	UID        string
	Shell      string // of a login; empty: not known
}

// System is where the files of a machine are.
type System struct {
	Etc   string   // /etc
	Units []string // directories of systemd's units, /etc/systemd/system first
	Proc  string   // /proc; empty: processes are not examined
	Hosts []string // the names and addresses of this machine, the short name first; empty: not known
}

// This returns the System of this machine.
func This() *System {
	return &System{Etc: "/etc", Units: []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}, Proc: "/proc", Hosts: hosts()}
}

// hosts returns the names and addresses of this machine.
func hosts() (all []string) {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return nil
	}
	short, _, _ := strings.Cut(name, ".")
	all = append(all, short, name)
	addresses, _ := net.InterfaceAddrs() // without them, rules for addresses are not for this machine
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			all = append(all, n.IP.String())
		}
	}
	return all
}

// Accounts looks up names, each once. One that does not exist is left out.
func (s *System) Accounts(names ...string) (all []Account) {
	shells := s.shells()
	for _, name := range names {
		if name == "" || name == "root" || slices.ContainsFunc(all, func(a Account) bool { return a.Name == name }) {
			continue
		}
		if u, err := user.Lookup(name); err == nil && filepath.IsAbs(u.HomeDir) {
			all = append(all, Account{Name: u.Username, Home: u.HomeDir, UID: u.Uid, Shell: shells[u.Username]})
		}
	}
	return all
}

// shells returns the login shells, by account.
func (s *System) shells() map[string]string {
	all := make(map[string]string)
	text, _ := readFollowing(filepath.Join(s.Etc, "passwd"))
	for line := range strings.Lines(text) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) == 7 {
			all[f[0]] = f[6]
		}
	}
	return all
}

// check is one check of a machine.
type check struct {
	id      string
	heading report.Heading
	cis     string // number in the CIS PostgreSQL 17 Benchmark
	why     string
	run     func(examination) []report.Finding
	passed  string
}

func checks() []check {
	return []check{
		{"pgpassword", report.Authentication, "1.6, 1.7", "Every program of the account and its children get the password, and everybody who can read the file.", examination.pgpassword, "no PGPASSWORD in profiles, services and their processes"},
		{"password_files", report.Authentication, "2.4", "A password that other accounts can read is theirs, too.", examination.passwordFiles, "password files are for their account alone, and service files have no password"},
		{"psql_history", report.Authentication, "2.3", "A password in a statement stays in the history of psql, in clear.", examination.history, "no history of psql has a password"},
		{"sudo_accounts", report.Roles, "4.2", "Who becomes this account without a password has all that it has: the data, or the keys of the gate.", examination.sudo, "nobody becomes these accounts by sudo without a password"},
		{"account_umask", report.Physical, "2.1", "Dumps and scripts that this account writes can be read by every account. PostgreSQL itself sets its own umask.", examination.umask, "new files of these accounts are for them alone, or nobody logs in as them"},
	}
}

// Names returns the id of every check.
func Names() (names []string) {
	for _, c := range checks() {
		names = append(names, c.id)
	}
	return names
}

// examination is what the checks look at.
type examination struct {
	*System
	accounts []Account
}

// Examine makes all checks for these accounts.
func (s *System) Examine(accounts []Account) (all []report.Finding) {
	e := examination{s, accounts}
	for _, c := range checks() {
		found := fewSkips(c.run(e))
		if len(found) == 0 {
			found = []report.Finding{report.Passed("%s", c.passed)}
		}
		for _, f := range found {
			f.Group, f.Check, f.Heading, f.CIS, f.Why = "machine", c.id, c.heading, c.cis, c.why
			all = append(all, f)
		}
	}
	return all
}

// fewSkips leaves one of the findings that a file could not be read: for another account they
// are all the same.
func fewSkips(found []report.Finding) (out []report.Finding) {
	skipped := 0
	for _, f := range found {
		if f.Status == report.Skip {
			if skipped++; skipped > 1 {
				continue
			}
		}
		out = append(out, f)
	}
	if skipped > 1 {
		i := slices.IndexFunc(out, func(f report.Finding) bool { return f.Status == report.Skip })
		out[i].Reason += fmt.Sprintf(" (and %d more)", skipped-1)
	}
	return out
}

// unread returns a finding about a file that could not be read, unless there is none.
func unread(path string, err error) []report.Finding {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return []report.Finding{report.New(report.Skip, printable.Text(path), printable.Text(err.Error()), "run doctor as root")}
}

// readOwn reads a file in a home directory, where the account decides what it is.
func readOwn(path string, limit int64) (string, error) {
	f, err := statefile.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return read(f, limit)
}

// readFollowing reads a file of the administrator, which may be a symbolic link to a regular file.
func readFollowing(path string) (string, error) {
	text, err := statefile.Read(path, maxFile)
	return string(text), err
}

func read(f *os.File, limit int64) (string, error) {
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if st.Size() > limit {
		return "", fmt.Errorf("it has more than %d MiB, and is not read", limit>>20)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit))
	return string(text), err
}

// glob returns the files of a pattern, at most maxFiles.
func glob(parts ...string) []string {
	all, _ := filepath.Glob(filepath.Join(parts...)) // fails only for a wrong pattern
	return all[:min(len(all), maxFiles)]
}

// numbers returns the lines, counted from 1, for which matches returns true.
func numbers(text string, matches func(line string) bool) (all []int) {
	n := 0
	for line := range strings.Lines(text) {
		if n++; matches(strings.TrimSuffix(line, "\n")) {
			all = append(all, n)
		}
	}
	return all
}

// quote quotes a path for sh. What is not printable is shown, not passed on.
func quote(path string) string {
	if regexp.MustCompile(`^[A-Za-z0-9_./-]+$`).MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(printable.Text(path), "'", `'\''`) + "'"
}
