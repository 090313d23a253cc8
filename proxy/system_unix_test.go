//go:build unix

package proxy_test

import (
	"errors"
	"net"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// limitDescriptors lets this process open descriptors up to number n only.
func limitDescriptors(t *testing.T, n int) {
	t.Helper()
	var limit unix.Rlimit
	set(&limit.Cur, n)
	set(&limit.Max, n)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// set is an assignment to a number whose type is not the same on every system.
func set[T int64 | uint64](number *T, n int) { *number = T(n) }

func socketOption(fd uintptr, level, option int) (int, error) {
	return unix.GetsockoptInt(int(fd), level, option)
}

// ownGroup makes cmd the first process of a process group.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// fillQueue listens on a Unix socket whose queue of connections is full.
func fillQueue(t *testing.T, path string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			return
		}
		if err != nil {
			t.Skip("a full queue is not refused here: ", err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
}

// readable waits until there is something to read, and leaves it there.
func readable(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Read(func(fd uintptr) bool {
		_, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return !errors.Is(err, syscall.EAGAIN)
	}); e != nil {
		return e
	}
	return err
}
