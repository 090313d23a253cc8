//go:build unix

package tlsconfig

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// killWithChildren makes a command run in a process group, which is killed as a whole.
func killWithChildren(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// runAs makes a command of root run as another account, with the groups of that account.
func runAs(cmd *exec.Cmd, account string) error {
	if account == "" || os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(account)
	if err != nil {
		return fmt.Errorf("there is no account %q in /etc/passwd (user)", account)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("the groups of %q cannot be found: %w", account, err)
	}
	numbers := make([]uint32, 0, 2+len(ids))
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return fmt.Errorf("the account %q has no number: %w", account, err)
		}
		numbers = append(numbers, uint32(n))
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: numbers[0], Gid: numbers[1], Groups: numbers[2:]}
	return nil
}
