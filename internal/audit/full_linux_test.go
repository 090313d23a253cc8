package audit_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"pgwicket/internal/audit"
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

// While another process holds the lock of the file, nothing is written: the trail is too slow
// long before a line is lost, and the observer is told once.
func TestSlow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	var lost, failing, works atomic.Int64
	w, err := audit.Open(path, audit.Observer{Lost: func() { lost.Add(1) }, Failing: func(error) { failing.Add(1) }, Works: func() { works.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	record(t, w, 1)
	f, err := os.Open(filepath.Join(filepath.Dir(path), ".audit.log.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	text := slog.String("text", strings.Repeat("x", 20<<10))
	for range 150 {
		w.Record("refused", []slog.Attr{text})
	}
	if err := w.Err(); err == nil || !strings.Contains(err.Error(), "too slow") || failing.Load() != 1 || lost.Load() != 0 {
		t.Errorf("%v, told %d times, %d lines lost", err, failing.Load(), lost.Load())
	}
	_ = f.Close()
	eventually(t, "it works again", func() bool { return w.Err() == nil && works.Load() == 1 })
	w.Close()
	if v := verify(t, []string{path}); v.Lines != 151 || failing.Load() != 1 {
		t.Errorf("%+v, told %d times", v, failing.Load())
	}
}

// A gate that writes nothing knows the last line of a file that another gate has filled and rotated when its next
// line is the first of another, also if it has never had that file open.
func TestQuietGateFollows(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	quiet, busy := open(t, path), open(t, path)
	var files []string
	rotate := func() {
		files = append(files, fmt.Sprintf("%s.%d", path, len(files)+1))
		if err := os.Rename(path, files[len(files)-1]); err != nil {
			t.Fatal(err)
		}
	}
	record(t, busy, 2)
	rotate()
	record(t, busy, 2)
	rotate()
	quiet.Record("admitted", nil)
	eventually(t, "its line is written", func() bool { return quiet.Head().Sequence == 5 })
	if v := verify(t, append(files, path)); v.Lines != 5 || v.Trails != 1 {
		t.Errorf("%+v", v)
	}
}
