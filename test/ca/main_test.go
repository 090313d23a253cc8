package ca_test

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// deadline is how long anything may take that a test waits for. It only bounds a failure: the machine may be slow and shared.
const deadline = time.Minute

// gateBinary is pgwicket, built once for all tests.
var gateBinary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pgwicket-ca-")
	if err != nil {
		log.Print(err)
		return 1
	}
	defer os.RemoveAll(dir)
	gateBinary = filepath.Join(dir, "pgwicket")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", gateBinary, "./cmd/pgwicket")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		log.Printf("%v: %s", err, out)
		return 1
	}
	return m.Run()
}

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
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.exited
	})
	return p
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

// write writes a file of a test's directory in one step, as the gate's watcher wants it.
func write(t *testing.T, name string, data []byte) {
	t.Helper()
	temporary := filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.new", filepath.Base(name)))
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, name); err != nil {
		t.Fatal(err)
	}
}
