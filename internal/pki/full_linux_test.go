package pki_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"pgwicket/internal/pki"
)

// The disk is full after any number of files: the command fails, no certificate is there
// that index.txt does not name, and the next command works.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=400k,mode=0700"); err != nil {
		t.Skip("cannot mount a small file system: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, 0) })
	o := pki.Options{Dir: filepath.Join(disk, "ca"), Secrets: secrets()}
	if err := pki.Init(pki.InitOptions{Options: o, Name: "x"}); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(disk, "ballast")
	failed := 0
	for pages := range 12 {
		c := open(t, o)
		client(t, c, "old") // a serial number of its own, and what Revoke revokes
		fill(t, ballast, pages)
		r, err := pki.ClientRequest("app", "")
		if err != nil {
			t.Fatal(err)
		}
		r.Again = true
		before := len(c.List())
		_, issueErr := c.Issue(r)
		_, revokeErr := c.Revoke("old", "", 0)
		c.Close()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		c = open(t, o)
		if issueErr != nil {
			failed++
			if !errors.Is(issueErr, unix.ENOSPC) {
				t.Errorf("%d pages: %v", pages, issueErr)
			}
		} else if len(c.List()) != before+1 {
			t.Errorf("%d pages: it is issued, and not in the list", pages)
		}
		checkStored(t, o, c)
		if _, err := c.Revoke("old", "", 0); err != nil && revokeErr != nil {
			t.Errorf("%d pages: revoke: %v, and again: %v", pages, revokeErr, err)
		}
		if c.Unlisted() != 0 {
			t.Errorf("%d pages: %d revoked certificates are in no list", pages, c.Unlisted())
		}
		c.Close()
	}
	if failed == 0 || failed == 12 {
		t.Errorf("%d of 12 have failed", failed)
	}
}

// fill leaves so many pages free.
func fill(t *testing.T, path string, pages int) {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, max(0, st.Size()-int64(pages)*4096)); err != nil {
		t.Fatal(err)
	}
}

// checkStored: the copies of certificates and index.txt name the same.
func checkStored(t *testing.T, o pki.Options, c *pki.CA) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(o.Dir, "newcerts"))
	if err != nil {
		t.Fatal(err)
	}
	stored := make(map[string]bool)
	for _, e := range entries {
		stored[e.Name()] = true
	}
	for _, e := range c.List() {
		if !stored[e.Serial+".pem"] {
			t.Errorf("%s is in index.txt only", e.Serial)
		}
		delete(stored, e.Serial+".pem")
	}
	for name := range stored {
		t.Errorf("%s is not in index.txt", name)
	}
}
