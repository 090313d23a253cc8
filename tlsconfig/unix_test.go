//go:build unix

package tlsconfig

import (
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
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

// The read end of a FIFO sees end of file when the last process of the command has ended.
func TestPassphraseTimeout(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := passphrases{command: "echo s3cret; sleep 60 3>" + fifo + " & sleep 60", timeout: 80 * time.Millisecond}
	start := time.Now()
	_, err = p.get("server.key")
	if err == nil || !strings.Contains(err.Error(), "did not end within 80ms and was killed") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("a child of the command is alive: %v", err)
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

// The command of a gate that root starts with an account runs as that account, with its
// groups alone: what the account may change must not run as root.
func TestPassphraseAccount(t *testing.T) {
	t.Parallel()
	const command = "echo $(id -u) $(id -g) $(id -G)"
	get := func(account string) (string, error) {
		secret, err := passphrases{command: command, timeout: passphraseTimeout, account: account}.get("server.key")
		return string(secret), err
	}
	mine, err := get("")
	if err != nil || !strings.HasPrefix(mine, strconv.Itoa(os.Getuid())+" ") {
		t.Errorf("without an account: %q, %v", mine, err)
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no account nobody: ", err)
	}
	if os.Geteuid() != 0 {
		if got, err := get("nobody"); got != mine || err != nil {
			t.Errorf("not as root: %q, %v", got, err)
		}
		return
	}
	if got, err := get("nobody"); err != nil || got != u.Uid+" "+u.Gid+" "+u.Gid {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := get("no-such-account"); err == nil || !strings.Contains(err.Error(), `the command is not run: there is no account "no-such-account"`) {
		t.Errorf("%q, %v", got, err)
	}
	p := passphrases{command: "cat " + keep(t, "passphrase", []byte("s3cret")), timeout: passphraseTimeout, account: "nobody"}
	if _, err := p.get("server.key"); err == nil || !strings.Contains(err.Error(), "(it runs as the account in user, nobody)") {
		t.Errorf("a file of root: %v", err)
	}
}
