//go:build unix

package tlsconfig

import (
	"os/exec"
	"syscall"
)

// killWithChildren makes a command run in a process group, which is killed as a whole.
func killWithChildren(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
