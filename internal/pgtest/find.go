// Package pgtest starts a throw-away PostgreSQL that listens on a Unix socket
// and nowhere else. Tests and the demo command share it, so it must not import
// testing.
package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// ErrNotFound says that PostgreSQL is not installed, and how to install it.
var ErrNotFound = errors.New("no PostgreSQL server programs (initdb, postgres) found in PATH or the usual directories; " +
	"install them with «apt-get install postgresql» (Debian, Ubuntu), «dnf install postgresql-server postgresql» (Fedora, RHEL), " +
	"«apk add postgresql postgresql-client» (Alpine) or «brew install postgresql» (macOS)")

// usual are the directories in which packages install the server programs,
// which most of them keep out of PATH.
var usual = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/usr/local/pgsql/bin",
}

// Find returns the directory with the server programs: that of PATH, else the
// one of the newest release in the usual places. The error is ErrNotFound.
func Find() (bindir string, err error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil && complete(filepath.Dir(p)) {
			return filepath.Dir(p), nil
		}
	}
	var found []string
	for _, pattern := range usual {
		dirs, _ := filepath.Glob(pattern)
		found = append(found, slices.DeleteFunc(dirs, func(d string) bool { return !complete(d) })...)
	}
	if len(found) == 0 {
		return "", ErrNotFound
	}
	return slices.MaxFunc(found, func(a, b string) int { return release(a) - release(b) }), nil
}

func complete(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// release reads the major release out of a directory's name, 0 if there is none.
func release(dir string) int {
	digits := ""
	for _, c := range dir {
		if c >= '0' && c <= '9' {
			digits += string(c)
		} else if digits != "" {
			break
		}
	}
	n, _ := strconv.Atoi(digits)
	return n
}

// Program returns the path of a PostgreSQL program: client programs such as
// psql and pgbench stand beside the server's or in PATH.
func Program(name string) (string, error) {
	if dir, err := Find(); err == nil {
		if p := filepath.Join(dir, name); executable(p) {
			return p, nil
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return "", errors.New(name + " not found in PATH or beside the PostgreSQL server programs; install PostgreSQL's client programs («apt-get install postgresql-client» on Debian)")
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}
