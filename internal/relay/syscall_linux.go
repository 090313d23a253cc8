package relay

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of a loop. None of them ever blocks, so they are made with
// RawSyscall, which does not tell the scheduler: the ordinary form wakes the
// runtime's monitor thread out of its sleep, to watch for a call that might
// block. Each passes the address of a Go slice that lives across the call,
// because the conversion to uintptr stands in the call itself (unsafe.Pointer,
// rule 4).

// read reads from a socket, or an eventfd, without waiting. errno is 0 if it has.
func read(fd int, p []byte) (n int, errno syscall.Errno) {
	for {
		r, _, e := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch e {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return 0, e
		}
	}
}

// write writes to a socket without waiting, and without the signal for one
// whose peer has gone.
func write(fd int, p []byte) (n int, errno syscall.Errno) {
	for {
		r, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return 0, e
		}
	}
}

// epollWait returns how many events are ready now.
func epollWait(epoll int, events []unix.EpollEvent) int {
	for {
		n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
		if e != syscall.EINTR {
			return max(int(n), 0) // any other error would be a bug of ours, and -1
		}
	}
}
