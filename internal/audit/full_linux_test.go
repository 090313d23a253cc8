package audit_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// On a full disk no part of a line stays in the file, and what has waited is written as
// soon as there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skip("cannot mount a small file system: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	path := filepath.Join(dir, "audit.log")
	w := open(t, path)
	record(t, w, 3)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	for range 40 { // more than the rest of the page that the file has
		w.Record("refused", nil)
	}
	eventually(t, "it fails", func() bool { return errors.Is(w.Err(), unix.ENOSPC) })
	if v := verify(t, []string{path}); v.Head != w.Head() {
		t.Errorf("the file ends with %+v, and the head is %+v", v.Head, w.Head())
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it works again", func() bool { return w.Err() == nil })
	w.Close()
	if v := verify(t, []string{path}); v.Lines != 43 {
		t.Errorf("%+v", v)
	}
}
