//go:build !linux

package socket

import (
	"net"
	"syscall"
	"time"
)

// SetUserTimeout does nothing where the system has no TCP_USER_TIMEOUT.
func SetUserTimeout(syscall.RawConn, time.Duration) error { return nil }

// AcceptQueued does nothing: what waits to be accepted is reset.
func AcceptQueued(net.Listener, func(*net.TCPConn)) {}
