package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"pgwicket/internal/doctor/report"
	"pgwicket/internal/phrase"
	"pgwicket/internal/printable"
)

// setsPassword matches a line of a profile, of a file of environment variables, or of a unit.
// A comment does not, nor does the value of the variable.
var setsPassword = regexp.MustCompile(`^\s*(?:[^#;\s$\w{]|[^#;\s][^#]*[^$#{\w])?PGPASSWORD\s*=`)

// setsOnlyPassword matches those that do nothing else.
var setsOnlyPassword = regexp.MustCompile(`^\s*(?:export\s+|Environment\s*=\s*)?["']?PGPASSWORD\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"';]*)["']?\s*$`)

// profiles are the files that a shell or a login reads.
func profiles() []string {
	return []string{".profile", ".bash_profile", ".bash_login", ".bashrc", ".zshenv", ".zprofile", ".zshrc", ".pam_environment"}
}

// pgpassword looks for PGPASSWORD in profiles, in the units of PostgreSQL and the gate with
// the files that they name, and in the processes of the accounts.
func (e examination) pgpassword() (out []report.Finding) {
	found := func(path, text string) {
		if lines := numbers(text, setsPassword.MatchString); len(lines) > 0 {
			fix := removal(path, lines)
			if !slices.Equal(lines, numbers(text, setsOnlyPassword.MatchString)) {
				fix = "# take PGPASSWORD out of the line"
			}
			out = append(out, report.New(report.Warn, fmt.Sprintf("%s:%d", printable.Text(path), lines[0]), "PGPASSWORD is set here, in clear",
				fix+"\n# and name a file of mode 0600 with PGPASSFILE, or use peer or a certificate; then start what has read it again").WithName(path))
		}
	}
	for _, a := range e.accounts {
		for _, name := range profiles() {
			path := filepath.Join(a.Home, name)
			text, err := readOwn(path, maxFile)
			if err != nil {
				out = append(out, unread(path, err)...)
			}
			found(path, text)
		}
	}
	files := []string{filepath.Join(e.Etc, "environment"), filepath.Join(e.Etc, "profile"), filepath.Join(e.Etc, "bash.bashrc"), filepath.Join(e.Etc, "bashrc")}
	files = slices.Concat(files, glob(e.Etc, "profile.d", "*.sh"), glob(e.Etc, "environment.d", "*.conf"), glob(e.Etc, "postgresql", "*", "*", "environment"))
	files = append(files, e.unitFiles()...)
	slices.Sort(files)
	for _, path := range slices.Compact(files) {
		text, err := readFollowing(path)
		if err != nil {
			out = append(out, unread(path, err)...)
		}
		found(path, text)
	}
	return append(out, e.processes()...)
}

// removal returns the command that deletes lines of a file.
func removal(path string, lines []int) string {
	var edits []string
	for _, n := range lines {
		edits = append(edits, strconv.Itoa(n)+"d")
	}
	return "sed -i '" + strings.Join(edits, ";") + "' " + quote(path)
}

var environmentFile = regexp.MustCompile(`(?m)^\s*EnvironmentFile\s*=\s*-?(/\S+)`)

// unitFiles returns the units of PostgreSQL and the gate, what is added to them, and the
// files that they take variables from.
func (e examination) unitFiles() (all []string) {
	seen := make(map[string]bool) // the first directory with a unit counts
	for _, dir := range e.Units {
		for _, prefix := range []string{"postgresql", "pgwicket", "patroni", "pgbouncer"} {
			for _, unit := range glob(dir, prefix+"*.service") {
				if name := filepath.Base(unit); !seen[name] {
					seen[name] = true
					all = append(all, unit)
				}
			}
			all = append(all, glob(dir, prefix+"*.service.d", "*.conf")...)
		}
	}
	for _, unit := range all {
		text, _ := readFollowing(unit)
		for _, m := range environmentFile.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
	}
	return all
}

// processes looks for PGPASSWORD in the services of the accounts: processes whose parent is the
// first one. A command of a moment, such as psql in a backup, is none. Those that this process may
// not read have another account, and so this is no finding.
func (e examination) processes() (out []report.Finding) {
	if e.Proc == "" {
		return nil
	}
	entries, _ := os.ReadDir(e.Proc)
	for _, entry := range entries[:min(len(entries), maxProcs)] {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		account, command, parent := e.process(entry.Name())
		if account == "" || pid != 1 && parent != "1" {
			continue
		}
		environ, _ := readProc(filepath.Join(e.Proc, entry.Name(), "environ"))
		if strings.HasPrefix(environ, "PGPASSWORD=") || strings.Contains(environ, "\x00PGPASSWORD=") {
			out = append(out, report.New(report.Warn, fmt.Sprintf("process %d", pid), fmt.Sprintf("PGPASSWORD is in the environment of process %d (%s) of %s", pid, printable.Text(command), account),
				"start it without PGPASSWORD, and name a file of mode 0600 with PGPASSFILE"))
		}
	}
	return out[:min(len(out), report.MaxNames)]
}

// process returns which of the accounts a process has, "" if none, its command and its parent.
func (e examination) process(pid string) (account, command, parent string) {
	status, _ := readProc(filepath.Join(e.Proc, pid, "status"))
	uid := ""
	for line := range strings.Lines(status) {
		switch f := strings.Fields(line); {
		case len(f) > 1 && f[0] == "Name:":
			command = f[1]
		case len(f) > 1 && f[0] == "PPid:":
			parent = f[1]
		case len(f) > 1 && f[0] == "Uid:":
			uid = f[1]
		}
	}
	for _, a := range e.accounts {
		if a.UID == uid {
			account = a.Name
		}
	}
	return account, command, parent
}

// readProc reads a file of /proc, whose size is 0 by stat.
func readProc(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return read(f, maxFile)
}

// servicePassword matches a password in a connection service file.
var servicePassword = regexp.MustCompile(`^\s*password\s*=`)

// passwordFiles looks at .pgpass, which libpq ignores if others may read it, and at
// passwords in connection service files.
func (e examination) passwordFiles() (out []report.Finding) {
	services := []string{filepath.Join(e.Etc, "pg_service.conf"), filepath.Join(e.Etc, "postgresql-common", "pg_service.conf")}
	for _, a := range e.accounts {
		services = append(services, filepath.Join(a.Home, ".pg_service.conf"))
		path := filepath.Join(a.Home, ".pgpass")
		st, err := os.Lstat(path)
		switch {
		case err != nil:
			out = append(out, unread(path, err)...)
		case st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0:
			out = append(out, report.New(report.Fail, printable.Text(path), fmt.Sprintf("mode %04o: other accounts can read or change the passwords, and libpq ignores the file", st.Mode().Perm()), "chmod 0600 "+quote(path)))
		}
	}
	for _, path := range services {
		text, err := readOwn(path, maxFile)
		if err != nil {
			out = append(out, unread(path, err)...)
		}
		if lines := numbers(text, servicePassword.MatchString); len(lines) > 0 {
			out = append(out, report.New(report.Warn, fmt.Sprintf("%s:%d", printable.Text(path), lines[0]), "a service has its password here",
				removal(path, lines)+"\n# and put it into a .pgpass of mode 0600").WithName(path))
		}
	}
	return out
}

// historyPassword matches a statement that sets a password, or a connection string with one. psql
// writes a line end within a statement as control-A.
var historyPassword = regexp.MustCompile(`(?i)\bpassword(\s|\x01)*(=(\s|\x01)*[^\s\x01]|(e|u&)?['$])`)

// hasPassword looks for the word before it matches: a history is long, and expressions are slow.
func hasPassword(line string) bool {
	return strings.Contains(strings.ToLower(line), "password") && historyPassword.MatchString(line)
}

func (e examination) history() (out []report.Finding) {
	for _, a := range e.accounts {
		if _, err := os.Lstat(filepath.Join(a.Home, ".psql_history")); err != nil {
			out = append(out, unread(filepath.Join(a.Home, ".psql_history"), err)...)
		}
		for _, path := range glob(a.Home, ".psql_history*") {
			if target, err := os.Readlink(path); err == nil && target == os.DevNull {
				continue
			}
			text, err := readOwn(path, maxHistory)
			if err != nil {
				out = append(out, unread(path, err)...)
			}
			if lines := numbers(text, hasPassword); len(lines) > 0 {
				out = append(out, report.New(report.Warn, printable.Text(path), fmt.Sprintf("%s with a password, the first is line %d", phrase.Count(len(lines), "statement"), lines[0]),
					"rm "+quote(path)+" && ln -s /dev/null "+quote(path)+"\n# and change these passwords, with \\password, which leaves no trace"))
			}
		}
	}
	return out
}
