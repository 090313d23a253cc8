//go:build unix

package unixsocket

import (
	"context"
	"net"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// directory is an open directory. Its methods take names in it, and follow no link.
type directory struct {
	fd   int
	path string
}

func openDirectory(path string) (*directory, error) {
	fd, err := unix.Open(path, openPath|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &directory{fd, path}, nil
}

func (d *directory) close() { _ = unix.Close(d.fd) }

func (d *directory) remove(name string) error { return unix.Unlinkat(d.fd, name, 0) }

func (d *directory) rename(from, to string) error { return unix.Renameat(d.fd, from, d.fd, to) }

// listen makes a socket that only its owner can open.
func (d *directory) listen(name string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// Linux creates the file with the mode of the socket; elsewhere restrict sets it.
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), ownerOnly) })
	}}
	if link := d.link(); link != "" {
		if ln, err := lc.Listen(context.Background(), "unix", filepath.Join(link, name)); err == nil {
			return ln, nil
		}
	}
	return lc.Listen(context.Background(), "unix", filepath.Join(d.path, name)) // the error has the name that people know
}
