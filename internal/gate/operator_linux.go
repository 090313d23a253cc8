package gate

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerOf returns the account and the process that have opened the other end of a socket.
func peerOf(c *net.UnixConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return unknownOperator
	}
	text := unknownOperator
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			text = fmt.Sprintf("uid %d, pid %d", peer.Uid, peer.Pid)
		}
	})
	return text
}
