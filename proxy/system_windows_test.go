package proxy_test

import (
	"errors"
	"net"
	"os/exec"
	"syscall"
	"testing"
)

func limitDescriptors(t *testing.T, _ int) {
	t.Helper()
	t.Skip("Windows has no limit for descriptors")
}

func socketOption(fd uintptr, level, option int) (int, error) {
	return syscall.GetsockoptInt(syscall.Handle(fd), level, option)
}

func ownGroup(*exec.Cmd) {}

func fillQueue(t *testing.T, _ string) {
	t.Helper()
	t.Skip("Windows does not refuse a connection to a full queue")
}

// readable fails: Windows cannot wait for input without reading it.
func readable(*net.UnixConn) error { return errors.ErrUnsupported }
