package pgtest

import (
	"os"
	"os/exec"
)

// account is an operating system account. Windows has no user IDs, so there the server always runs as the own account.
type account struct{ uid, gid uint32 }

func setProcess(*exec.Cmd, *account) {}

// killGroup ends p only: Windows has no process groups to signal.
func killGroup(p *os.Process) error { return p.Kill() }
