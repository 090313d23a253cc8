// Package pgtest starts a temporary PostgreSQL server that listens on a Unix socket
// only, unless told otherwise, and a scripted fake of one. Tests and the demo use it, so
// it must not import testing.
package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// ErrNotFound means that PostgreSQL is not installed. Its text tells how to install it.
var ErrNotFound = errors.New("no PostgreSQL server programs (initdb, postgres) found in PATH or the usual directories; " +
	"install them with apt-get install postgresql (Debian, Ubuntu), dnf install postgresql-server postgresql (Fedora, RHEL), " +
	"apk add postgresql postgresql-client (Alpine) or brew install postgresql (macOS)")

// packageDirs are the directories in which packages install the server programs. Most
// of them are not in PATH.
var packageDirs = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/usr/local/pgsql/bin",
}

// Find returns the directory with the server programs: the one in PATH, otherwise the
// one of the newest release in the directories of packages. The error is ErrNotFound.
func Find() (bindir string, err error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil && complete(filepath.Dir(p)) {
			return filepath.Dir(p), nil
		}
	}
	var found []string
	for _, pattern := range packageDirs {
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

// release returns the major release in the name of a directory, or 0.
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

// Program returns the path of a PostgreSQL program, such as psql or pgbench. It looks in
// the directory of the server programs and in PATH.
func Program(name string) (string, error) {
	if dir, err := Find(); err == nil {
		if p := filepath.Join(dir, name); executable(p) {
			return p, nil
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return "", errors.New(name + " not found in PATH or beside the PostgreSQL server programs; install PostgreSQL's client programs (apt-get install postgresql-client on Debian)")
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}
