package harness

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Bound has a command run in its own process group, all of which is killed
// when its context ends. Ctrl-C at a terminal is then for us alone.
func Bound(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
}

// Complete runs a command to its end. It is killed, with all that it has started,
// when ctx ends. What it has printed is in its error.
func Complete(ctx context.Context, env []string, argv ...string) error {
	_, err := Output(ctx, "", env, argv...)
	return err
}

// Output is Complete in dir (empty: ours), and returns what the command has
// printed, both streams in one.
func Output(ctx context.Context, dir string, env []string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, env
	Bound(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(argv[0]), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}
