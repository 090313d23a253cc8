package unixsocket

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgwicket/internal/account"
)

// An account that replaces the socket by a link to another file, while root makes it, does
// not get that file, nor change its mode.
func TestSocketFollowsNoLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes a socket for another account")
	}
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	stop, done, swaps := make(chan struct{}), make(chan struct{}), 0
	go func() { // what the account does
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			found, _ := filepath.Glob(filepath.Join(run, ".pgwicket-*"))
			for _, name := range found {
				if st, err := os.Lstat(name); err == nil && st.Mode().Type() == fs.ModeSocket {
					link := filepath.Join(run, "link")
					_ = os.Remove(link)
					if os.Symlink(victim, link) == nil && os.Rename(link, name) == nil {
						swaps++
					}
				}
			}
		}
	}()
	path := filepath.Join(run, "admin.sock")
	for range 3000 {
		if ln, err := Listen(path, &account.Account{UID: 65534, GID: 65534}, true); err == nil {
			_ = ln.Close()
		}
		_ = os.Remove(path)
	}
	close(stop)
	<-done
	st, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != 0o644 || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("after %d swaps the other file has mode %v and owner %d", swaps, st.Mode(), st.Sys().(*syscall.Stat_t).Uid)
	}
}

// What is not the socket that was just made is not given away.
func TestSocketIsOurs(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root makes a socket for another account")
	}
	name := t.TempDir()
	dir, err := openDirectory(name)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.close()
	at := func(file string) string { return filepath.Join(name, file) }
	ln, err := net.Listen("unix", at("other"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := os.Chmod(at("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Link(at("other"), at("linked")), os.Symlink("other", at("symlink")), os.WriteFile(at("file"), nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"linked", "symlink", "file"} {
		if err := dir.restrict(file, &account.Account{UID: 65534, GID: 65534}); err == nil || !strings.Contains(err.Error(), "another process has replaced") {
			t.Errorf("%s: %v", file, err)
		}
		if st, err := os.Stat(at(file)); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("%s: given away, %v", file, err)
		}
	}
}
