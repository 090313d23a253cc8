//go:build unix

package passphrase

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

// The read end of a FIFO sees end of file when the last process of the command has ended.
func TestTimeout(t *testing.T) {
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
	start := time.Now()
	_, err = Command{Line: "echo s3cret; sleep 60 3>" + fifo + " & sleep 60", Timeout: 80 * time.Millisecond}.Run()
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

// The command of a process of root runs as the account, with its groups alone: what
// the account may change must not run as root.
func TestAccount(t *testing.T) {
	t.Parallel()
	run := func(account, line string) (string, error) {
		secret, err := Command{Line: line, Timeout: Timeout, Account: account}.Run()
		return string(secret), err
	}
	const command = "echo $(id -u) $(id -g) $(id -G)"
	mine, err := run("", command)
	if err != nil || !strings.HasPrefix(mine, strconv.Itoa(os.Getuid())+" ") {
		t.Errorf("without an account: %q, %v", mine, err)
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no account nobody: ", err)
	}
	if os.Geteuid() != 0 {
		if got, err := run("nobody", command); got != mine || err != nil {
			t.Errorf("not as root: %q, %v", got, err)
		}
		return
	}
	if got, err := run("nobody", command); err != nil || got != u.Uid+" "+u.Gid+" "+u.Gid {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := run("no-such-account", command); err == nil || !strings.Contains(err.Error(), `the command is not run: there is no account "no-such-account"`) {
		t.Errorf("%q, %v", got, err)
	}
	file := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(file, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run("nobody", "cat "+file); err == nil || !strings.Contains(err.Error(), "(it runs as the account in user, nobody)") {
		t.Errorf("a file of root: %v", err)
	}
}
