// Package gate runs pgwicket for the programs that measure, break and compare it:
// it configures, starts, waits for, reloads and ends a process, and reads its log
// and its metrics. Process also runs the servers that pgwicket is compared with.
package gate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Command is what a Process runs.
type Command struct {
	Argv    []string
	Dir     string // the process's own: it runs there, and the file "log" is there
	Env     []string
	Account *syscall.Credential // nil: ours
	Stderr  *os.File            // nil: the file "log", which is appended to and gets standard output too
}

// Process is a server in a process group of its own, so that Ctrl-C at a terminal
// reaches only us, who then end it.
type Process struct {
	Started time.Time

	process *os.Process
	logFile string
	exited  chan struct{}
	state   *os.ProcessState // when it has exited
	stopped atomic.Bool      // Stop, Kill or Expect was called
	leaving atomic.Bool      // it is being upgraded
}

// Run starts a process. The caller must call Stop or Kill.
func Run(c Command) (*Process, error) {
	p := &Process{logFile: filepath.Join(c.Dir, "log")}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.Account, Setpgid: true}
	cmd.Stderr = c.Stderr
	if c.Stderr == nil {
		log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	p.Started = time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.watch(cmd.Process, func() *os.ProcessState {
		_ = cmd.Wait()
		return cmd.ProcessState
	})
	return p, nil
}

// adopt returns a process that another one has started and left. The kernel gives it to this program,
// which must have called adoptOrphans. Its log is the file "log" in dir, and it leads its process group.
func adopt(pid int, dir string) (*Process, error) {
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	p := &Process{Started: time.Now(), logFile: filepath.Join(dir, "log")}
	p.watch(process, func() *os.ProcessState {
		state, _ := process.Wait()
		return state
	})
	return p, nil
}

// watch waits for the end of the process.
func (p *Process) watch(process *os.Process, wait func() *os.ProcessState) {
	p.process, p.exited = process, make(chan struct{})
	go func() {
		p.state = wait()
		close(p.exited)
	}()
}

// PID is the process's id.
func (p *Process) PID() int { return p.process.Pid }

// Exited is closed when the process has exited.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// HasExited says whether it has.
func (p *Process) HasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Signal sends a signal to the process, not to its group.
func (p *Process) Signal(sig syscall.Signal) error { return p.process.Signal(sig) }

// Kill kills the process group and waits. It may be called more than once.
func (p *Process) Kill() {
	p.stopped.Store(true)
	_ = syscall.Kill(-p.process.Pid, syscall.SIGKILL)
	<-p.exited
}

// Stop sends a signal and waits. It fails if the process does not exit within that
// time, in which case it is killed, or if its status is not 0. A process that has
// exited before is no error.
func (p *Process) Stop(sig syscall.Signal, within time.Duration) error {
	if p.HasExited() {
		return nil
	}
	p.stopped.Store(true)
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := p.Expect(within); err != nil {
		return fmt.Errorf("after %v: %w", sig, err)
	}
	return nil
}

// Expect waits for the end of a process that is about to exit. It fails if the process does not within that
// time, in which case it is killed, or if its status is not 0.
func (p *Process) Expect(within time.Duration) error {
	p.stopped.Store(true)
	select {
	case <-p.exited:
	case <-time.After(within):
		p.Kill()
		return p.failure(fmt.Errorf("no exit within %v", within))
	}
	if code := p.state.ExitCode(); code != 0 {
		return p.failure(fmt.Errorf("exit status %d", code))
	}
	return nil
}

// Unexpected returns an error if the process has exited and neither Stop nor Kill
// was called, and no upgrade has begun.
func (p *Process) Unexpected() error {
	if !p.HasExited() || p.stopped.Load() || p.leaving.Load() {
		return nil
	}
	return p.failure(fmt.Errorf("unexpected exit: %v", p.state))
}

// RawLog returns the log so far.
func (p *Process) RawLog() []byte {
	b, _ := os.ReadFile(p.logFile)
	return b
}

// Tail returns the end of the log, for error messages.
func (p *Process) Tail() string {
	b := p.RawLog()
	return strings.TrimSpace(string(b[max(0, len(b)-600):]))
}

// failure adds the end of the log to an error.
func (p *Process) failure(err error) error {
	if tail := p.Tail(); tail != "" {
		return fmt.Errorf("%w; the log ends with: %s", err, tail)
	}
	return err
}
