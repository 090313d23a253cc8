//go:build unix

package audit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pgwicket/internal/audit"
)

// hold locks a file as another process does.
func hold(t *testing.T, path string) (release func()) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Close() }
}

// An account that may read the trail can lock it (flock); that stops nothing. The file of
// the lock is private, and a process that holds it for long makes the trail fail, which
// ends when the process does.
func TestHeld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, private := filepath.Join(dir, "audit.log"), filepath.Join(dir, ".audit.log.lock")
	w := open(t, path)
	defer hold(t, path)()
	defer hold(t, dir)()
	record(t, w, 2)
	if st, err := os.Stat(private); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	release := hold(t, private)
	w.Record("admitted", nil)
	eventually(t, "it fails", func() bool { return w.Err() != nil })
	if !strings.Contains(w.Err().Error(), "another process holds it") {
		t.Error(w.Err())
	}
	if _, err := audit.Open(path, audit.Observer{}); err == nil || !strings.Contains(err.Error(), "another process holds it") {
		t.Errorf("a second gate: %v", err)
	}
	release()
	eventually(t, "the line is written", func() bool { return w.Err() == nil && w.Head().Sequence == 3 })
}

// A pipe in the place of the trail is refused, and makes nobody wait.
func TestPipe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{audit.Check(path), func() error { _, err := audit.Open(path, audit.Observer{}); return err }()} {
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Error(err)
		}
	}
}
