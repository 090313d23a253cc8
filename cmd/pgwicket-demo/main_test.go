//go:build unix

package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"pgwicket/internal/pgtest"
)

// deadline bounds every wait of a test; it only matters for one that fails.
const deadline = 5 * time.Minute

// TestMain makes this test binary the program that the scripts run.
func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"pgwicket-demo": main})
}

// tests builds the program that the demo runs.
type tests struct{ *testing.M }

func (t tests) Run() int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "pgw-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "pgwicket"), "pgwicket/cmd/pgwicket")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	psql, err := pgtest.Program("psql")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// The scripts run the gate as another account, too.
	_ = os.Chmod(dir, 0o755)
	_ = os.Setenv("PATH", strings.Join([]string{dir, os.Getenv("PATH"), filepath.Dir(psql)}, string(os.PathListSeparator)))
	return t.M.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values[processKey{}] = make(map[string]*process)
			e.Setenv("LC_ALL", "C")
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			case "proc":
				_, err := os.Stat("/proc/self/cmdline")
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"empty":    cmdEmpty,    // empty DIR: it has no entries
			"exited":   cmdExited,   // exited NAME STATUS: wait for its end
			"process":  cmdProcess,  // [!] process TEXT: wait until a command line has it, or none
			"sessions": cmdSessions, // sessions LOG PATTERN: wait until the command that the log proposes lists such a line
			"signal":   cmdSignal,   // signal NAME HUP|INT|TERM|KILL
			"start":    cmdStart,    // start NAME PROGRAM [ARG...]: in the background, output to NAME.log
			"tmpdir":   cmdTmpDir,   // tmpdir: set TMPDIR to a directory like /tmp
			"waitlog":  cmdWaitLog,  // waitlog FILE TEXT: wait until the file has it
		},
	})
}

type processKey struct{}

// process is a program in the background.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func processOf(ts *testscript.TestScript, name string) *process {
	p := ts.Value(processKey{}).(map[string]*process)[name]
	if p == nil {
		ts.Fatalf("nothing has been started as %q", name)
	}
	return p
}

func need(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func wait(ts *testscript.TestScript, holds func() bool, what func() string) {
	for end := time.Now().Add(deadline); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("after %v: %s", deadline, what())
		}
	}
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 2, "start NAME PROGRAM [ARG...]")
	log, err := os.Create(ts.MkAbs(args[0] + ".log"))
	ts.Check(err)
	defer log.Close()
	path := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err = exec.LookPath(filepath.Join(dir, args[1])); err == nil {
			break
		}
	}
	ts.Check(err)
	p := &process{cmd: exec.Command(path, args[2:]...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), log, log
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LC_ALL"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	ts.Check(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	ts.Value(processKey{}).(map[string]*process)[args[0]] = p
	ts.Defer(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
}

func cmdExited(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "exited NAME STATUS")
	p := processOf(ts, args[0])
	select {
	case <-p.ended:
	case <-time.After(deadline):
		ts.Fatalf("%s still runs after %v:\n%s", args[0], deadline, ts.ReadFile(args[0]+".log"))
	}
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s ended with %v, want status %s:\n%s", args[0], p.cmd.ProcessState, args[1], ts.ReadFile(args[0]+".log"))
	}
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	need(ts, !neg && len(args) == 2 && signals[args[1]] != 0, "signal NAME HUP|INT|TERM|KILL")
	ts.Check(processOf(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
}

var proposed = regexp.MustCompile(`(?m)^Its sessions: *(.*)$`)

func cmdSessions(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "sessions LOG PATTERN")
	line := regexp.MustCompile(args[1])
	command := proposed.FindStringSubmatch(ts.ReadFile(args[0]))
	need(ts, command != nil, "a log that proposes a command")
	var out []byte
	wait(ts, func() bool {
		out, _ = exec.Command("sh", "-c", command[1]).CombinedOutput()
		return line.Match(out)
	}, func() string { return string(out) })
}

func cmdWaitLog(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "waitlog FILE TEXT")
	wait(ts, func() bool { return strings.Contains(ts.ReadFile(args[0]), args[1]) },
		func() string { return fmt.Sprintf("no %q in %s:\n%s", args[1], args[0], ts.ReadFile(args[0])) })
}

// cmdTmpDir makes a directory that other accounts can enter, with a name that is
// short enough for the path of a socket.
func cmdTmpDir(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "tmpdir")
	dir, err := os.MkdirTemp("", "pgw-")
	ts.Check(err)
	ts.Check(os.Chmod(dir, 0o777|os.ModeSticky))
	ts.Defer(func() {
		for pid := range processes(dir) { // of a demo that has failed
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = os.RemoveAll(dir)
	})
	ts.Setenv("TMPDIR", dir)
}

func cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 1, "empty DIR")
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(entries) > 0 {
		ts.Fatalf("%s has %v", args[0], entries)
	}
}

func cmdProcess(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 1 && args[0] != "", "[!] process TEXT")
	wait(ts, func() bool { return (len(processes(args[0])) > 0) != neg },
		func() string { return fmt.Sprintf("processes with %q: %v", args[0], processes(args[0])) })
}

// processes returns the command lines that have a text, by process.
func processes(part string) map[int]string {
	found := make(map[int]string)
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, _ := os.ReadFile(f) // empty if the process has ended
		text := string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		if pid, err := strconv.Atoi(strings.Split(f, "/")[2]); err == nil && strings.Contains(text, part) {
			found[pid] = text
		}
	}
	return found
}

// Wrong usage is one line on standard error with the way to help.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--twice"}, {"now"}, {"--pgwicket"}} {
		var stderr bytes.Buffer
		if status := run(args, io.Discard, &stderr); status != exitUsage || strings.Count(stderr.String(), "\n") != 1 || !strings.Contains(stderr.String(), "--help") {
			t.Errorf("%q: status %d, %q", args, status, stderr.String())
		}
	}
}

// The shipped program has nothing of the tests' and the demo's.
func TestShippedProgramHasNoTestCode(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "pgwicket/cmd/pgwicket").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), "pgwicket/proxy\n") {
		t.Fatalf("go list names no package of its own:\n%s", out)
	}
	for _, name := range []string{"pgwicket/internal/pgtest", "pgwicket/internal/tlstest"} {
		if strings.Contains(string(out), name+"\n") {
			t.Errorf("cmd/pgwicket depends on %s", name)
		}
	}
}
