package socket

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// As calls f as an account, if root may: PostgreSQL's peer method sees the account that the thread
// had when it connected (SO_PEERCRED, unix(7)). f must not leave that to other goroutines.
func As(a Account, f func()) {
	if a.UID == 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked, so that the thread ends with this goroutine. Raw system calls and
		// unix.Setgroups change this thread only; syscall.Setresuid would change all of them. If one
		// fails, f connects as it can, and PostgreSQL decides on that.
		runtime.LockOSThread()
		const unchanged = ^uintptr(0)
		if a.GID != 0 {
			_ = unix.Setgroups(a.Groups)
			_, _, _ = unix.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(a.GID), unchanged)
		}
		_, _, _ = unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(a.UID), unchanged)
		f()
	}()
	<-done
}
