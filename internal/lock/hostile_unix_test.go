//go:build unix

package lock_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/lock"
)

// hold locks a file or directory as another process does, until the test ends.
func hold(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// Any account that may open the directory can lock it (flock); that stops nothing.
func TestDirectoryIsHeld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := open(t, dir)
	hold(t, dir)
	done := make(chan error, 1)
	go func() {
		_, _, err := table.Add(lock.Lock{Filter: filter(t, "cn=alice"), By: "uid 0"}, noon)
		done <- errors.Join(err, table.CheckWritable())
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a lock of the directory stops the gate")
	}
}

// While another process holds the gate's own lock, a change fails after a time that an
// operator can wait for, and neither Set nor Refresh waits.
func TestLockIsHeld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := open(t, dir)
	add(t, table, "cn=alice")
	hold(t, filepath.Join(dir, lockName))
	done := make(chan error, 1)
	begun := time.Now()
	go func() {
		_, _, err := table.Add(lock.Lock{Filter: filter(t, "cn=bob"), By: "uid 0"}, noon)
		done <- err
	}()
	for looks := 0; ; looks++ {
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "another process holds it") || time.Since(begun) < time.Second || looks < 100 {
				t.Errorf("%v after %v and %d looks", err, time.Since(begun), looks)
			}
			if err := table.CheckWritable(); err == nil || !strings.Contains(err.Error(), "another process holds it") {
				t.Errorf("a gate that could lock nothing starts: %v", err)
			}
			return
		case <-time.After(time.Millisecond):
		}
		if s, err := table.Refresh(); s != nil || err != nil || table.Set().Len() != 1 {
			t.Fatalf("%v, %v", s, err)
		}
		if time.Since(begun) > time.Minute {
			t.Fatal("the change waits forever")
		}
	}
}

// A link, a pipe or a directory is not the file of the locks, neither at the start nor
// later, and none makes the gate wait.
func TestNotAFile(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(path string) error{
		"a symbolic link": func(path string) error {
			return errors.Join(os.WriteFile(path+".other", []byte(`{"version":1,"locks":[]}`), 0o600), os.Symlink(path+".other", path))
		},
		"a device, pipe or socket": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory":              func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, lock.FileName)
		table := open(t, dir)
		add(t, table, "cn=alice")
		if err := errors.Join(os.Remove(path), make(path)); err != nil {
			t.Fatal(err)
		}
		done := time.AfterFunc(time.Minute, func() { panic(name + " makes the gate wait") })
		want := path + " is " + name + ", not a regular file"
		if _, err := table.Refresh(); err == nil || !strings.Contains(err.Error(), want) || table.Set().Len() != 1 {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := lock.Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s at the start: %v", name, err)
		}
		done.Stop()
	}
}

// What a gate that was killed has left beside the file is removed at the next start, and
// nothing else.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"." + lock.FileName + "-123", lock.FileName + ".backup"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(t, dir).CheckWritable(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Name() != lockName || entries[1].Name() != lock.FileName+".backup" {
		t.Errorf("%v, %v", entries, err)
	}
}

// A change whose directory cannot be synced is in force all the same, and the error says
// that it is.
func TestNotSynced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := open(t, dir)
	const nobody = 65534
	if err := os.Chmod(dir, 0o300); err != nil { // it can be written, but not opened for a sync
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) }) // before that of TempDir, which reads it
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chown(dir, nobody, nobody), os.Chmod(filepath.Dir(dir), 0o711)); err != nil { // TempDir's parent is private
			t.Fatal(err)
		}
		becomeForFiles(t, nobody)
	}
	l, s, err := table.Add(lock.Lock{Filter: filter(t, "cn=alice"), By: "uid 0"}, noon)
	if !errors.Is(err, lock.ErrNotSynced) || s.Len() != 1 || table.Set().Len() != 1 {
		t.Fatalf("%v, %d locks", err, table.Set().Len())
	}
	if _, s, err := open(t, dir).Remove(l.ID); !errors.Is(err, lock.ErrNotSynced) || s.Len() != 0 {
		t.Errorf("%v", err)
	}
}

// becomeForFiles makes the thread of this test open files as another account until the
// test ends.
func becomeForFiles(t *testing.T, uid int) {
	t.Helper()
	runtime.LockOSThread()
	if err := setFileAccount(uid); err != nil {
		t.Skip("cannot open files as another account: ", err)
	}
	t.Cleanup(func() { // before that of TempDir
		if err := setFileAccount(0); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}
