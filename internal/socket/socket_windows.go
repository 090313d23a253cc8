package socket

import (
	"errors"
	"syscall"
)

// Descriptor is what the system calls a socket by.
type Descriptor = syscall.Handle

var errNotOnWindows = errors.New("not supported on Windows")

// SharePort fails: Windows has no SO_REUSEPORT, and its SO_REUSEADDR lets other accounts take the port.
func SharePort(syscall.RawConn) error { return errNotOnWindows }

// TryBind fails, as the options of Windows do not tell whether an address is free.
func TryBind(string, bool) error { return errors.ErrUnsupported }

// acceptsConnections fails: on Windows no socket is passed to a process.
func acceptsConnections(Descriptor) (bool, error) { return false, errNotOnWindows }
