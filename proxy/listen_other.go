//go:build !linux

package proxy

import (
	"net"
	"syscall"
	"time"
)

// setUserTimeout does nothing where the system has no TCP_USER_TIMEOUT.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }

// acceptQueued does nothing: what waits to be accepted is reset.
func acceptQueued(net.Listener, func(*net.TCPConn)) {}
