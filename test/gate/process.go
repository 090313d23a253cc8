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

	cmd     *exec.Cmd
	logFile string
	exited  chan struct{}
	stopped bool // Stop or Kill was called
}

// Run starts a process. The caller must call Stop or Kill.
func Run(c Command) (*Process, error) {
	p := &Process{logFile: filepath.Join(c.Dir, "log"), exited: make(chan struct{})}
	p.cmd = exec.Command(c.Argv[0], c.Argv[1:]...)
	p.cmd.Dir, p.cmd.Env = c.Dir, c.Env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.Account, Setpgid: true}
	p.cmd.Stderr = c.Stderr
	if c.Stderr == nil {
		log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		p.cmd.Stdout, p.cmd.Stderr = log, log
	}
	p.Started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

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
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill kills the process group and waits. It may be called more than once.
func (p *Process) Kill() {
	p.stopped = true
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// Stop sends a signal and waits. It fails if the process does not exit within that
// time, in which case it is killed, or if its status is not 0. A process that has
// exited before is no error.
func (p *Process) Stop(sig syscall.Signal, within time.Duration) error {
	if p.HasExited() {
		return nil
	}
	p.stopped = true
	if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
	case <-time.After(within):
		p.Kill()
		return p.failure(fmt.Errorf("no exit within %v of %v", within, sig))
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return p.failure(fmt.Errorf("exit status %d", code))
	}
	return nil
}

// Unexpected returns an error if the process has exited and neither Stop nor Kill
// was called.
func (p *Process) Unexpected() error {
	if !p.HasExited() || p.stopped {
		return nil
	}
	return p.failure(fmt.Errorf("unexpected exit: %v", p.cmd.ProcessState))
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
