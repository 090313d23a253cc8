package doctor

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"syscall"
)

// dialAs connects as another account. PostgreSQL's peer method sees the account that
// the thread had when it connected (SO_PEERCRED, unix(7)), so root can connect as the
// owner of the server.
func dialAs(ctx context.Context, uid int, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// Never unlocked, so that the thread ends with this goroutine. The raw system
		// call changes this thread only; syscall.Setreuid would change all of them.
		runtime.LockOSThread()
		const unchanged = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); errno != 0 {
			done <- result{nil, fmt.Errorf("cannot connect as account %d: %w", uid, errno)}
			return
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
