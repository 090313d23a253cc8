//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"pgwicket/internal/upgrade"
)

// detachAs has a process run in a session of its own, without a terminal that could end it, as the account
// of a gate.
func detachAs(cmd *exec.Cmd, account upgrade.Account) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	switch euid := os.Geteuid(); euid {
	case account.UID:
		return nil
	case 0:
		groups := make([]uint32, len(account.Groups))
		for i, g := range account.Groups {
			groups[i] = uint32(g)
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(account.UID), Gid: uint32(account.GID), Groups: groups}
		return nil
	default:
		return fmt.Errorf("the gate has the account %d, and this command has %d; run it as that account or as root", account.UID, euid)
	}
}

func closeOnExec(fd int) { syscall.CloseOnExec(fd) }

// hangUp has a gate reload.
func hangUp(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	return nil
}
