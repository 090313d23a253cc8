package socket

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SetUserTimeout sets TCP_USER_TIMEOUT, in whole milliseconds; 0 leaves it to the system.
func SetUserTimeout(c syscall.RawConn, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	return Control(c, func(fd Descriptor) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// AcceptQueued takes the connections that wait to be accepted, which would be
// reset if ln was closed now. Those of an inherited listener wait on for the
// next process.
func AcceptQueued(ln net.Listener, take func(*net.TCPConn)) {
	l, ok := ln.(*net.TCPListener)
	var userTimeout time.Duration // of a listener, its connections have it
	if a, is := ln.(*adopted); is {
		l, ok, userTimeout = a.TCPListener, true, a.userTimeout
	}
	if !ok {
		return
	}
	c, err := l.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(listener uintptr) {
		for {
			fd, _, err := unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			switch {
			case errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED):
				continue
			case err != nil: // EAGAIN: there is none left
				return
			}
			f := os.NewFile(uintptr(fd), "")
			conn, err := net.FileConn(f)
			_ = f.Close()
			tcp, ok := conn.(*net.TCPConn)
			switch {
			case err != nil || !ok:
			case tcp.RemoteAddr() == nil: // it has been reset already
				_ = tcp.Close()
			default:
				_ = tcp.SetKeepAliveConfig(Keepalive)
				if c, err := tcp.SyscallConn(); err == nil {
					_ = SetUserTimeout(c, userTimeout)
				}
				take(tcp)
			}
		}
	})
}
