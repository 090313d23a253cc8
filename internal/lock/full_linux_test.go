package lock_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pgwicket/internal/lock"
)

// On a full disk the old file stays, the command fails with the reason, and the locks in
// force are the same.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("cannot mount a small file system: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	table := open(t, dir)
	add(t, table, "cn=alice")
	before := read(t, dir)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	_, s, err := table.Add(lock.Lock{Filter: filter(t, "cn=bob"), By: "uid 0"}, noon)
	if !errors.Is(err, unix.ENOSPC) || s != nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v", err)
	}
	if read(t, dir) != before || table.Set().Len() != 1 {
		t.Error("the locks have changed")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	add(t, table, "cn=bob")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || table.Set().Len() != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}
