package unixsocket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"pgwicket/internal/account"
)

// openPath opens a directory that need not be readable.
const openPath = unix.O_PATH

// link returns a name of the open directory that leads nowhere else.
func (d *directory) link() string { return fmt.Sprintf("/proc/self/fd/%d", d.fd) }

// restrict gives a socket that this process has just made to the account.
func (d *directory) restrict(name string, a *account.Account) error {
	if a == nil {
		return nil
	}
	fd, err := unix.Openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	// A second link could be one to a socket of somebody else.
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != os.Geteuid() || st.Nlink != 1 || st.Mode&0o077 != 0 {
		return errors.New("another process has replaced the socket while it was made")
	}
	return unix.Fchownat(fd, "", a.UID, a.GID, unix.AT_EMPTY_PATH)
}
