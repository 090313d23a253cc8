package main

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"syscall"
)

// dialAs connects as another account, for root to be whom peer lets in: a socket
// keeps the identity that the thread had when it connected.
func dialAs(ctx context.Context, uid int, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// For good: the thread ends with this goroutine. The system call is the
		// thread's own, where syscall.Setreuid would change the whole process.
		runtime.LockOSThread()
		const same = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			done <- result{nil, fmt.Errorf("cannot connect as account %d: %w", uid, errno)}
			return
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
