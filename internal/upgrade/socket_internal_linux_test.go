package upgrade

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Root believes an answer at a socket only where no third account can have put it.
func TestCheckSocket(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const account, group, other = 65001, 65002, 65003
	top, err := os.MkdirTemp("/var", "pgw-") // each directory above is root's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	a := Account{UID: account, GID: group}
	for _, c := range []struct {
		name           string
		uid, gid, mode int // of the directory
		owner          int // of the socket
		above          os.FileMode
		link           bool // it is reached through a link in a directory of everybody
		account        Account
		trusted        bool
	}{
		{name: "the directory of a unit", uid: account, gid: group, mode: 0o755, owner: account, account: a, trusted: true},
		{name: "a group of the account writes", uid: 0, gid: group, mode: 0o770, owner: account, account: a, trusted: true},
		{name: "made by root", uid: 0, gid: 0, mode: 0o755, owner: 0, account: a, trusted: true},
		{name: "everybody writes", uid: 0, gid: 0, mode: 0o1777, owner: account, account: a},
		{name: "another group writes", uid: 0, gid: other, mode: 0o770, owner: account, account: a},
		{name: "of another account", uid: other, gid: group, mode: 0o755, owner: account, account: a},
		{name: "the socket is another account's", uid: account, gid: group, mode: 0o755, owner: other, account: a},
		{name: "everybody writes above", uid: account, gid: group, mode: 0o700, owner: account, above: 0o777 | os.ModeSticky, account: a},
		{name: "a link of anybody", uid: account, gid: group, mode: 0o700, owner: account, link: true, account: a},
		{name: "root answers", uid: 0, gid: 0, mode: 0o1777, owner: 0, account: Account{}, trusted: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			above, err := os.MkdirTemp(top, "above-")
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(above, "d")
			mode := os.FileMode(c.mode & 0o777)
			if c.mode&0o1000 != 0 {
				mode |= os.ModeSticky
			}
			do := func(err error) {
				if err != nil {
					t.Fatal(err)
				}
			}
			do(os.Chmod(above, 0o755|c.above))
			do(os.Mkdir(dir, 0o700))
			ln, err := net.Listen("unix", filepath.Join(dir, "s"))
			do(err)
			t.Cleanup(func() { _ = ln.Close() })
			do(os.Chown(filepath.Join(dir, "s"), c.owner, 0))
			do(os.Chown(dir, c.uid, c.gid))
			do(os.Chmod(dir, mode))
			path := filepath.Join(dir, "s")
			if c.link {
				everybody := filepath.Join(above, "everybody")
				do(os.Mkdir(everybody, 0o700))
				do(os.Chmod(everybody, 0o777|os.ModeSticky))
				do(os.Symlink(dir, filepath.Join(everybody, "link")))
				path = filepath.Join(everybody, "link", "s")
			}
			err = c.account.CheckSocket(path)
			if trusted := err == nil; trusted != c.trusted || err != nil && !strings.Contains(err.Error(), "such as /run/pgwicket") {
				t.Errorf("trusted: %v, want %v: %v", trusted, c.trusted, err)
			}
		})
	}
}
