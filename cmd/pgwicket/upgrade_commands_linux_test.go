package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/gate"
	"pgwicket/internal/handover"
	"pgwicket/internal/upgrade"
)

// halfCommand sends a command to the admin socket but for its last two bytes, and returns what sends them and reads the answer.
func (u *unit) halfCommand(path string) (finish func() (status int, body string)) {
	u.t.Helper()
	conn, err := net.Dial("unix", u.path("admin.sock"))
	u.check(err)
	u.t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: pgwicket\r\nContent-Length: 0\r\nConnection: close\r\n")
	u.check(err)
	return func() (int, string) {
		u.t.Helper()
		_, err := io.WriteString(conn, "\r\n")
		u.check(err)
		u.check(conn.SetReadDeadline(time.Now().Add(deadline)))
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		u.check(err)
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		u.check(err)
		return r.StatusCode, string(body)
	}
}

// A command that has come to the old process, and is read when that has handed over, does not seem to have been carried
// out: the new process would know nothing of it.
func TestCommandsReadDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.startUpgradable()
	n := u.candidate()
	defer n.Close()
	n.hello(handover.Version)
	n.sockets()
	var all []func() (int, string)
	for _, path := range []string{
		gate.LockPath + "?user=nobody&for=1h&yes=1", gate.UnlockPath + "?id=00000000", gate.TerminatePath + "?user=nobody&yes=1",
		gate.LiftBackoffsPath, gate.ReloadPath,
	} {
		all = append(all, u.halfCommand(path))
	}
	starting, err := net.Dial("tcp", u.address) // the old process keeps it, and so lives
	u.check(err)
	defer starting.Close()
	u.eventually("it is not counted", func() bool { return u.metrics()["pgwicket_connections_starting"] == 1 })
	claim := n.goes()
	if !claim.Take() {
		t.Fatal("the claim is taken")
	}
	u.check(n.Send(handover.Serving, nil, nil))
	for i, finish := range all {
		if i == len(all)-1 {
			n.until(handover.Rest) // before that the new process would be told to reload
		}
		if status, body := finish(); status != http.StatusServiceUnavailable || !strings.Contains(body, "repeat the command") {
			t.Errorf("%d: %s", status, body)
		}
	}
}

// A process before that has hung carries commands out again when it goes on.
func TestCommandsAfterAStuckProcess(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first, _ := u.startStaying()
	first.signal(syscall.SIGSTOP)
	out, err := u.run("lock", "--yes", "--user", "nobody", "--for", "1h")
	first.signal(syscall.SIGCONT)
	if err == nil || !strings.Contains(out, "has not done it") {
		t.Errorf("%v: %s", err, out)
	}
	u.eventually("it carries nothing out", func() bool {
		out, err := u.run("terminate", "--yes", "--user", role)
		return err == nil && strings.Contains(out, "terminated 1 session")
	})
	first.ends(0)
}

// What a process before carries out has one line in the audit trail, with who has asked for it. A client of the admin
// socket cannot have a command carried out without a line.
func TestAuditOfForwardedCommands(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.write("audit: {file: " + u.path("audit.log") + "}")
	first, _ := u.startStaying()
	out, err := u.run("lock", "--yes", "--user", "nobody", "--for", "1h")
	_, after, _ := strings.Cut(out, "locked: lock ")
	id, _, _ := strings.Cut(after, " ")
	u.check(err)
	if out, err := u.run("unlock", id); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	u.halfCommand(gate.LockPath + "?user=nobody&for=1h&yes=1&id=0badcafe")()
	_, body := u.halfCommand(gate.LockPath + "?user=nobody&for=1h&yes=1")()
	var own gate.Locked
	u.check(json.Unmarshal([]byte(body), &own))
	u.halfCommand(gate.UnlockPath + "?yes=1&id=" + own.Lock.ID)()
	if out, err := u.run("terminate", "--yes", "--user", role); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first.ends(0)
	u.eventually("the audit trail is not complete", func() bool {
		text, err := os.ReadFile(u.path("audit.log"))
		return err == nil && strings.Contains(string(text), `"event":"stopped"`)
	})
	text, err := os.ReadFile(u.path("audit.log"))
	u.check(err)
	for event, want := range map[string]int{"locked": 3, "unlocked": 2, "terminated": 1} {
		if n := strings.Count(string(text), `"event":"`+event+`"`); n != want {
			t.Errorf("%d lines %q, want %d", n, event, want)
		}
	}
	if strings.Contains(string(text), "0badcafe") || strings.Contains(string(text), "unknown") || !strings.Contains(string(text), "terminated by uid ") {
		t.Errorf("the audit trail: %s", text)
	}
}

// Root opens no file that a program at the admin socket names, and prints no control characters of it.
func TestUpgradeWithHostileAnswers(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	ln, err := net.Listen("unix", u.path("admin.sock"))
	u.check(err)
	defer ln.Close()
	u.check(unix.Mkfifo(u.path("fifo"), 0o600))
	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(upgrade.Plan{
				PID: os.Getpid(), UID: os.Geteuid(), Version: "\x1b]0;title\a", Format: handover.Version, Credentials: []string{u.path("fifo")},
			})
		}))
	}()
	program := u.path("program")
	u.check(os.WriteFile(program, []byte("#!/bin/sh\nexit 3\n"), 0o755))
	for _, args := range [][]string{{"--dry-run"}, {"--binary", program}} {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		out, err := exec.CommandContext(ctx, "pgwicket", append([]string{"upgrade", "--config", u.config}, args...)...).CombinedOutput()
		if ctx.Err() != nil || err == nil || bytes.ContainsAny(out, "\x1b\a") {
			t.Errorf("%v: %v: %q", args, err, out)
		}
	}
}

// A new process that may open fewer files than the sessions need raises its limit, or does not take over: their
// descriptors would be lost on their way.
func TestUpgradeWithFewFiles(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can raise a limit")
	}
	u := newUnit(t)
	u.startUpgradable()
	few := func(program ...string) (string, error) {
		out, err := exec.Command("prlimit", append(append([]string{"--nofile=500:500"}, program...), "pgwicket", "upgrade", "--config", u.config)...).CombinedOutput()
		return string(out), err
	}
	if out, err := few("setpriv", "--bounding-set=-sys_resource"); err == nil || !strings.Contains(out, "the new process may open 500 files, and needs 1000") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := few(); err != nil {
		if !strings.Contains(out, "the new process may open 500 files") {
			t.Fatalf("%v: %s", err, out)
		}
		t.Skip("this root cannot raise a limit")
	}
	u.onlyOne()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", u.gates()[0]))
	u.check(err)
	if !regexp.MustCompile(`Max open files +1000 `).Match(text) {
		t.Errorf("%s", text)
	}
}

// Locks go along where the new process has another state_dir, or none.
func TestUpgradeWithAnotherStateDir(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.write("state_dir: " + u.dir)
	u.startUpgradable()
	out, err := u.run("lock", "--yes", "--user", "nobody", "--for", "1h")
	_, after, _ := strings.Cut(out, "locked: lock ")
	id, _, _ := strings.Cut(after, " ")
	u.check(err)
	u.check(os.Mkdir(u.path("other"), 0o700))
	for _, change := range [][2]string{{"state_dir: " + u.dir, "state_dir: " + u.path("other")}, {"state_dir: " + u.path("other"), ""}} {
		u.replace(change[0], change[1])
		u.upgradeWhenAlone()
		u.onlyOne()
		if out, err := u.run("locks"); err != nil || !strings.Contains(out, id) {
			t.Errorf("%q: %v: %s", change[1], err, out)
		}
	}
}
