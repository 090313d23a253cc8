package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain is a process that hides its memory, if the environment asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_HIDE_MEMORY") == "" {
		os.Exit(m.Run())
	}
	if err := HideMemory(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	own, listed := os.ReadDir("/proc/self/fd") // for the process_ metrics
	fmt.Println(dumpable, err, limit.Cur, limit.Max, len(own) > 0, listed)
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// Another account than root, and no privilege, is enough to hide the memory.
func TestHideMemory(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "TEST_HIDE_MEMORY=1")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Error(err)
	}
	if got, want := strings.TrimSpace(line), "0 <nil> 0 0 true <nil>"; got != want {
		t.Errorf("dumpable, limits of dumps, own descriptors: %q, want %q", got, want)
	}
	if st, err := os.Stat(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid)); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("its memory does not belong to root: %v", err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
