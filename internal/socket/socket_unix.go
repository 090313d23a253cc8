//go:build unix

package socket

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptor is what the system calls a socket by.
type Descriptor = int

// SharePort sets SO_REUSEPORT on a socket that is not yet bound.
func SharePort(c syscall.RawConn) error {
	return Control(c, func(fd Descriptor) error {
		return os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
}

// acceptsConnections reports whether listen has been called on the socket.
func acceptsConnections(fd Descriptor) (bool, error) {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return n != 0, err
}
