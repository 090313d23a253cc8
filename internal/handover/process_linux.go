package handover

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process of which the kernel tells when it has ended.
type Process struct {
	pid int
	fd  int // a pidfd; -1: the system has none
}

// ProcessOf returns the process at the other end of a socket, as PeerOf does. Close frees it.
func ProcessOf(u *net.UnixConn) (Process, Peer, error) {
	peer, err := PeerOf(u)
	if err != nil {
		return Process{fd: -1}, peer, err
	}
	fd := -1
	raw, err := u.SyscallConn()
	if err == nil {
		// Only this cannot name another process that has got the pid since (Linux 6.5).
		_ = raw.Control(func(socket uintptr) { fd, err = unix.GetsockoptInt(int(socket), unix.SOL_SOCKET, unix.SO_PEERPIDFD) })
	}
	if err != nil || fd < 0 {
		return OpenProcess(peer.PID), peer, nil
	}
	return Process{peer.PID, fd}, peer, nil
}

// Process returns the process that has made the channel.
func (c *Conn) Process() (Process, Peer, error) { return ProcessOf(c.socket) }

// OpenProcess returns the process with a pid.
func OpenProcess(pid int) Process {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fd = -1
	}
	return Process{pid, fd}
}

// Ended waits until the process has ended, for at most so long, and reports whether it has. A process whose end
// cannot be known has not.
func (p Process) Ended(within time.Duration) bool {
	const slice = 100 * time.Millisecond // without a pidfd
	all := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for end := time.Now().Add(within); ; {
		left := max(time.Until(end), 0)
		if p.fd < 0 {
			if p.pid > 0 && errors.Is(unix.Kill(p.pid, 0), unix.ESRCH) {
				return true
			}
			left = min(left, slice)
		}
		if n, err := unix.Poll(all, int(left.Milliseconds())); err == nil && n > 0 {
			return true
		}
		if !time.Now().Before(end) {
			return false
		}
	}
}

// Close frees what the process is known by.
func (p Process) Close() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
	}
}
