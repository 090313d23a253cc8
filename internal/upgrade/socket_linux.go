package upgrade

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// CheckSocket returns why root must not start a program as a, which the process at an admin socket has named: another
// account could have put a socket there while no gate ran. That is so unless the socket, and each directory on its way, is
// root's or the account's, and nobody else can write there but a group of the account. For root there is nothing to check:
// only root can be root at the other end.
func (a Account) CheckSocket(path string) error {
	if a.UID == 0 {
		return nil
	}
	dir := filepath.Dir(path)
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	socket, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !a.owns(socket) {
		return a.distrusts(path, path)
	}
	for _, from := range []string{dir, target} { // links on the way, too, must be root's or the account's
		for at := from; ; at = filepath.Dir(at) {
			st, err := os.Stat(at)
			if err != nil {
				return err
			}
			if !a.owns(st) || a.othersWrite(st) {
				return a.distrusts(path, at)
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	return nil
}

func (a Account) distrusts(path, why string) error {
	return fmt.Errorf("another account than root and %d can write to %s, and so answer at admin.socket (%s): run the command as the account of the gate, or name a socket in a directory that only root and that account can write to, such as /run/pgwicket, and restart the gate",
		a.UID, why, path)
}

// owns reports whether a file is root's or the account's.
func (a Account) owns(f os.FileInfo) bool {
	st := f.Sys().(*syscall.Stat_t)
	return st.Uid == 0 || int(st.Uid) == a.UID
}

// othersWrite reports whether another account can write to a directory.
func (a Account) othersWrite(dir os.FileInfo) bool {
	group := int(dir.Sys().(*syscall.Stat_t).Gid)
	ours := group == 0 || group == a.GID || slices.Contains(a.Groups, group)
	return dir.Mode().Perm()&0o002 != 0 || dir.Mode().Perm()&0o020 != 0 && !ours
}
