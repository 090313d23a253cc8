package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/test/harness"
)

// What the log says of the steps of an upgrade. The first two have the pid of the new process.
const (
	MessageUpgradeBegins = "upgrade begins"
	MessageUpgraded      = "upgraded: a new process accepts the connections"
	MessageHandedOver    = "sessions handed over"
)

// adoptOrphans has the kernel give this program the processes that its children leave behind, so that it can
// wait for them.
func adoptOrphans() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// Upgrade is one run of "pgwicket upgrade". Its methods are for one goroutine.
type Upgrade struct {
	gate    *Gate
	command *exec.Cmd
	output  bytes.Buffer
	ended   chan struct{}
	err     error // when ended is closed
	log     *os.File
	rest    string // of the log, that is no whole line yet
	seen    []Record
}

// BeginUpgrade starts the command: command is the program that runs it, and binary the one that is to take
// over; empty: that of the gate. The caller must call Wait.
func (g *Gate) BeginUpgrade(ctx context.Context, command, binary string) (*Upgrade, error) {
	if err := adoptOrphans(); err != nil {
		return nil, err
	}
	if binary == "" {
		binary = g.options.Binary
	}
	u := &Upgrade{gate: g, ended: make(chan struct{})}
	var err error
	if u.log, err = os.Open(g.logFile); err != nil {
		return nil, err
	}
	if _, err := u.log.Seek(0, io.SeekEnd); err != nil {
		return nil, err
	}
	u.command = exec.CommandContext(ctx, command, "upgrade", "--binary", binary, "--config", filepath.Join(g.Dir, "pgwicket.yaml"))
	u.command.Env = g.environment()
	u.command.Stdout, u.command.Stderr = &u.output, &u.output
	harness.Bound(u.command)
	g.leaving.Store(true)
	if err := u.command.Start(); err != nil {
		g.leaving.Store(false)
		_ = u.log.Close()
		return nil, err
	}
	go func() {
		u.err = u.command.Wait()
		close(u.ended)
	}()
	return u, nil
}

// Wait waits until the command has ended, and returns what it has printed.
func (u *Upgrade) Wait() (string, error) {
	<-u.ended
	u.read()
	_ = u.log.Close()
	text := strings.TrimSpace(u.output.String())
	if u.err != nil {
		u.gate.leaving.Store(false)
		return text, fmt.Errorf("pgwicket upgrade: %w: %s", u.err, text)
	}
	return text, nil
}

// Await waits until the log has such a line of this upgrade, or until the command has ended. It returns false
// then.
func (u *Upgrade) Await(message string) bool {
	for {
		u.read()
		if u.Logged(message) {
			return true
		}
		select {
		case <-u.ended:
			u.read()
			return u.Logged(message)
		case <-time.After(time.Millisecond):
		}
	}
}

// read takes what the log has got.
func (u *Upgrade) read() {
	more, _ := io.ReadAll(u.log)
	u.rest += string(more)
	for {
		line, rest, whole := strings.Cut(u.rest, "\n")
		if !whole {
			return
		}
		u.rest = rest
		var r Record
		if json.Unmarshal([]byte(line), &r) == nil && (r.Is(MessageUpgradeBegins) || r.Is(MessageUpgraded) || r.Is(MessageHandedOver)) {
			u.seen = append(u.seen, r)
		}
	}
}

// Logged says whether the log has had such a line up to now.
func (u *Upgrade) Logged(message string) bool {
	for _, r := range u.seen {
		if r.Is(message) {
			return true
		}
	}
	return false
}

// PID is that of the new process, when the log has a line of the upgrade; 0: it has none.
func (u *Upgrade) PID() int {
	for _, r := range u.seen {
		if pid, ok := r["pid"].(float64); ok {
			return int(pid)
		}
	}
	return 0
}

// Successor returns the gate with its new process, after Wait. The old gate keeps its old process.
func (u *Upgrade) Successor() (*Gate, error) {
	next := *u.gate
	var err error
	next.Process, err = adopt(u.PID(), next.Dir)
	return &next, err
}
