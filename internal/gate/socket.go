package gate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pgwicket/internal/sandbox"
)

// listenSocket makes a Unix socket that only the account (nil: this one) can open. A
// rename puts it in place, so it never has another mode there, it replaces one that a
// killed gate has left, and with shared it takes over from another gate without a gap.
func listenSocket(path string, a *sandbox.Account, shared bool) (ln net.Listener, err error) {
	if err := checkVacant(path, shared); err != nil {
		return nil, err
	}
	temporary := filepath.Join(filepath.Dir(path), fmt.Sprintf(".pgwicket-%d", os.Getpid()))
	_ = os.Remove(temporary) // of a killed process with this number
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// Linux creates the file with the mode of the socket; elsewhere the chmod below
		// sets it.
		return c.Control(func(fd uintptr) { restrictMode(fd) })
	}}
	if ln, err = lc.Listen(context.Background(), "unix", temporary); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; name a directory that this account may write to", err)
		}
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // it would remove the old name
	err = os.Chmod(temporary, ownerOnly)
	if err == nil && a != nil {
		err = os.Lchown(temporary, a.UID, a.GID)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = ln.Close()
		_ = os.Remove(temporary)
		return nil, err
	}
	return ln, nil
}

const ownerOnly = 0o600

// checkVacant returns an error unless a socket can be put at a path: nothing exists
// there, nothing listens there, or shared allows another gate.
func checkVacant(path string, shared bool) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket; remove it, or name another path", path)
	case shared:
		return nil
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return fmt.Errorf("%s is in use by another process; stop it, or name another path", path)
}
