//go:build unix

package passphrase

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"pgwicket/internal/account"
)

// killWithChildren makes a command run in a process group, which is killed as a whole.
func killWithChildren(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// runAs makes a command of root run as the account, with the account's groups.
func (c Command) runAs(cmd *exec.Cmd) error {
	if c.Account == "" || os.Geteuid() != 0 {
		return nil
	}
	a, err := account.Find(c.Account)
	if err != nil {
		return fmt.Errorf("%w (user)", err)
	}
	groups := make([]uint32, len(a.Groups))
	for i, g := range a.Groups {
		groups[i] = uint32(g)
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID), Groups: groups}
	return nil
}
