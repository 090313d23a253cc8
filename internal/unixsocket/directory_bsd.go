//go:build unix && !linux

package unixsocket

import (
	"golang.org/x/sys/unix"

	"pgwicket/internal/account"
)

const openPath = unix.O_RDONLY

// link returns "": not every system has a name of an open directory.
func (d *directory) link() string { return "" }

// restrict gives a socket that this process has just made to the account, and to nobody
// else.
func (d *directory) restrict(name string, a *account.Account) error {
	err := unix.Fchmodat(d.fd, name, ownerOnly, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && a != nil {
		err = unix.Fchownat(d.fd, name, a.UID, a.GID, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}
