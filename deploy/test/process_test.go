package deploy_test

import (
	"bytes"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// deadline is how long anything may take that a test waits for. It only bounds a
// failure: the machine may be slow and shared.
const deadline = time.Minute

// process is a program that runs until the end of the test, and what it has written.
type process struct {
	*exec.Cmd
	exited chan struct{}

	mu      sync.Mutex
	written bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written.String()
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.Process.Signal(syscall.SIGKILL)
	<-p.exited
}

// wait waits until the condition holds, or fails with what the process has written.
func (p *process) wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !holds(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-p.exited:
			t.Fatalf("waiting for %s: it has ended: %s", what, p.output())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("waited for %s: %s", what, p.output())
		}
	}
}

func waitReady(t *testing.T, p *process, admin string) {
	t.Helper()
	p.wait(t, "readiness at "+admin, func() bool {
		r, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}
