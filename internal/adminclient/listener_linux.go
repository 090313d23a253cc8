package adminclient

import (
	"net"

	"golang.org/x/sys/unix"
)

// listenerOf returns the account that has called listen(2) at the other end of a Unix socket (SO_PEERCRED).
func listenerOf(conn net.Conn) (uid int, known bool) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid, known = int(peer.Uid), true
		}
	})
	return uid, known
}
