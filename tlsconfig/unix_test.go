//go:build unix

package tlsconfig

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestReadFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	huge := keep(t, "huge", nil)
	if err := os.Truncate(huge, fileLimit+1); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(keep(t, "target", []byte("text")), link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, want string }{
		{link, ""},
		{dir, "is not a regular file"},
		{fifo, "is not a regular file"},
		{huge, "the limit is"},
		{filepath.Join(dir, "none"), "no such file or directory"},
		{"two\nlines", `cannot read "two\nlines": no such file`},
	} {
		_, err := readFile(c.file, fileLimit, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.file, err, c.want)
		}
	}
	if _, err := readKey(keep(t, "server.key", nil), passphrases{}); err == nil {
		t.Error("an empty key file passes")
	}
}

func TestLoadCRLFileUnreadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "not a regular file",
		fifo:                       "not a regular file",
	} {
		set, problems := loadClientCRLs(Options{CRLFile: file}, nil, nil, time.Now())
		checkTexts(t, file, texts(problems), want)
		if set == nil {
			t.Error("a nil set would be no revocation checking")
		}
	}
}
