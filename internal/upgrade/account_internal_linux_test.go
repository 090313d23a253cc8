package upgrade

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// process starts one of an account that waits.
func process(t *testing.T, c *syscall.Credential) int {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

// The kernel says which account a new process gets, and not who listens at the admin socket.
func TestAccountOf(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other accounts")
	}
	const account, group, other = 65001, 65002, 65003
	pid := process(t, &syscall.Credential{Uid: account, Gid: group, Groups: []uint32{other, group}})
	for _, listener := range []int{0, account} {
		a, err := AccountOf(pid, listener)
		if slices.Sort(a.Groups); err != nil || a.UID != account || a.GID != group || !slices.Equal(a.Groups, []int{group, other}) {
			t.Errorf("%v: %+v", err, a)
		}
	}
	root := process(t, &syscall.Credential{Gid: 0})
	for _, c := range []struct {
		name          string
		pid, listener int
		want          string
	}{
		{"another account listens", pid, other, "the account 65003 listens at admin.socket"},
		{"an account names a process of root", root, account, "process "},
		{"there is no such process", 1 << 30, account, "is not known"},
	} {
		if a, err := AccountOf(c.pid, c.listener); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %+v", c.name, err, a)
		}
	}
}

// A program that is set-group-ID has the group of its file, so its caller must not name it.
func TestAccountOfSetgidProgram(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can change groups")
	}
	pid := make(chan int)
	done := make(chan struct{})
	defer close(done)
	go func() {
		runtime.LockOSThread() // for ever, if it does not get its groups back
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, 65001, 65002, 65002); e != 0 {
			t.Error(e)
		}
		pid <- unix.Gettid()
		<-done
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); e == 0 {
			runtime.UnlockOSThread()
		}
	}()
	if a, err := AccountOf(<-pid, 0); err == nil || !strings.Contains(err.Error(), "has taken another account") {
		t.Errorf("%v, %+v", err, a)
	}
}
