// Package unixsocket makes Unix sockets that one account alone can open, such as the admin socket.
package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pgwicket/internal/account"
)

// Listen makes a Unix socket that only the account (nil: this one) can open. A
// rename puts it in place, so it never has another mode there, it replaces one that a
// killed gate has left, and with shared it takes over from another gate without a gap.
//
// The account may write to the directory while root still works in it, and so replace any
// name there at any moment. Root therefore works on the directory that it has opened, and
// changes the owner of a descriptor or of a name that it does not follow.
func Listen(path string, a *account.Account, shared bool) (ln net.Listener, err error) {
	if err := checkVacant(path, shared); err != nil {
		return nil, err
	}
	dir, err := openDirectory(filepath.Dir(path))
	if err != nil {
		return nil, explainDirectory(&fs.PathError{Op: "open", Path: filepath.Dir(path), Err: err})
	}
	defer dir.close()
	temporary := fmt.Sprintf(".pgwicket-%d", os.Getpid())
	_ = dir.remove(temporary) // of a killed process with this number
	if ln, err = dir.listen(temporary); err != nil {
		return nil, explainDirectory(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // it would remove the old name
	if err = dir.restrict(temporary, a); err == nil {
		err = dir.rename(temporary, filepath.Base(path))
	}
	if err != nil {
		_ = ln.Close()
		_ = dir.remove(temporary)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ln, nil
}

// explainDirectory adds to an error what to do about the directory.
func explainDirectory(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; name a directory that this account may write to", err)
	}
	return err
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
