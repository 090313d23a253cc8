//go:build unix

package pgtest

import (
	"os"
	"os/exec"
	"syscall"
)

// account is an operating system account that the server runs as.
type account struct{ uid, gid uint32 }

// setProcess makes cmd run as a, or as the own account if a is nil, in its own process group.
func setProcess(cmd *exec.Cmd, a *account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
}

// killGroup ends the process group that setProcess has made for p.
func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
