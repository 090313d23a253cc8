package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// pseudoTerminal is a terminal (pty(7)) with a program on it.
type pseudoTerminal struct {
	t        *testing.T
	us, them *os.File // them stays open: else the system would reset the terminal
	before   unix.Termios
	cmd      *exec.Cmd
	exited   chan struct{}

	mu    sync.Mutex
	shown bytes.Buffer
}

// onTerminal starts a program on a new terminal, which is its controlling one (/dev/tty) if
// controlling is set.
func onTerminal(t *testing.T, controlling bool, environ []string, name string, args ...string) *pseudoTerminal {
	t.Helper()
	us, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = us.Close() })
	if err := unix.IoctlSetPointerInt(int(us.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(us.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	them, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = them.Close() })
	p := &pseudoTerminal{t: t, us: us, them: them, exited: make(chan struct{}), cmd: exec.Command(name, args...)}
	p.before = p.termios()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = them, them, them
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: controlling}
	p.cmd.Env = append(pgtest.Environ("PATH="+programDir(t)+":"+os.Getenv("PATH"), "LC_ALL=C"), environ...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buffer := make([]byte, 1<<10)
		for {
			n, err := us.Read(buffer)
			p.mu.Lock()
			p.shown.Write(buffer[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
	})
	return p
}

func (p *pseudoTerminal) termios() unix.Termios {
	p.t.Helper()
	s, err := unix.IoctlGetTermios(int(p.them.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *s
}

func (p *pseudoTerminal) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown.String()
}

func (p *pseudoTerminal) wait(what string, holds func() bool) {
	p.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited for %s: %s", what, p.output())
		}
	}
}

// asks waits until a text has been shown so many times and the echo is off.
func (p *pseudoTerminal) asks(text string, times int) {
	p.t.Helper()
	p.wait(text, func() bool {
		return strings.Count(p.output(), text) == times && p.termios().Lflag&unix.ECHO == 0
	})
}

func (p *pseudoTerminal) enter(text string) {
	p.t.Helper()
	if _, err := p.us.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// ends waits for the end of the program, and checks that the terminal is as it was.
func (p *pseudoTerminal) ends() syscall.WaitStatus {
	p.t.Helper()
	p.wait("the end", func() bool {
		select {
		case <-p.exited:
			return true
		default:
			return false
		}
	})
	if p.termios() != p.before {
		p.t.Errorf("the terminal has the settings %+v, and had %+v", p.termios(), p.before)
	}
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return status
}

// A signal at a prompt ends the program, and the terminal has its echo back.
func TestPromptSignals(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(p *pseudoTerminal){
		"Ctrl-C":  func(p *pseudoTerminal) { p.enter("secr\x03") },
		"Ctrl-\\": func(p *pseudoTerminal) { p.enter("secr\x1c") },
		"SIGINT":  func(p *pseudoTerminal) { _ = p.cmd.Process.Signal(syscall.SIGINT) },
		"SIGTERM": func(p *pseudoTerminal) { _ = p.cmd.Process.Signal(syscall.SIGTERM) },
		"SIGQUIT": func(p *pseudoTerminal) { _ = p.cmd.Process.Signal(syscall.SIGQUIT) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "ca")
			p := onTerminal(t, true, nil, "pgwicket", "ca", "init", "--dir", dir)
			p.asks("Passphrase of ", 1)
			send(p)
			status := p.ends()
			quit := name == "SIGQUIT" || name == "Ctrl-\\" // Go's runtime exits with 2
			if !quit && !status.Signaled() || quit && status.ExitStatus() != 2 {
				t.Errorf("%v: %s", status, p.output())
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("there is a CA")
			}
		})
	}
}

// Ctrl-Z stops the program with the echo on, and fg asks again without it.
func TestPromptSuspended(t *testing.T) {
	t.Parallel()
	p := onTerminal(t, true, nil, "sh", "-c", "set -m; pgwicket ca init --dir "+filepath.Join(t.TempDir(), "ca")+"; echo stopped; read line; fg; echo done $?")
	before := p.before
	p.asks("Passphrase of ", 1)
	p.enter("half\x1a")
	p.wait("the shell", func() bool { return strings.Contains(p.output(), "stopped") })
	if p.termios() != before {
		t.Errorf("it is stopped, and the terminal has the settings %+v, and had %+v", p.termios(), before)
	}
	p.enter("go on\n")
	p.asks("Passphrase of ", 2)
	p.enter("correct horse\n")
	p.asks("The same again: ", 1)
	p.enter("correct horse\n")
	p.wait("the end of init", func() bool { return strings.Contains(p.output(), "done 0") })
	p.ends()
	if strings.Contains(p.output(), "horse") {
		t.Errorf("it shows the passphrase: %s", p.output())
	}
}

// A terminal that is not the controlling one has no /dev/tty, and is asked all the same.
// What is typed wrong, too short or not at all is refused in words.
func TestPromptAnswers(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	ca := func(args ...string) *pseudoTerminal {
		return onTerminal(t, false, []string{"PGWICKET_CA_DIR=" + dir}, "pgwicket", append([]string{"ca"}, args...)...)
	}
	refuses := func(p *pseudoTerminal, want string) {
		t.Helper()
		if status := p.ends(); status.ExitStatus() != 1 {
			t.Errorf("%v: %s", status, p.output())
		}
		p.wait(want, func() bool { return strings.Contains(p.output(), want) })
	}
	p := ca("init")
	p.asks("Passphrase of ", 1)
	p.enter("\n")
	refuses(p, "the passphrase is shorter than 8 bytes")
	p = ca("init")
	p.asks("Passphrase of ", 1)
	p.enter("\x04")
	refuses(p, "the terminal has ended before a line was typed")
	p = ca("init")
	p.asks("Passphrase of ", 1)
	p.enter("correct mouse\x7f\x7f\x7f\x7f\x7fhorse\n") // the terminal's own line editing
	p.asks("The same again: ", 1)
	p.enter("correct horse\n")
	if status := p.ends(); status.ExitStatus() != 0 {
		t.Fatalf("%v: %s", status, p.output())
	}
	p = ca("client", "app")
	for i := range 3 {
		p.asks("Passphrase of ", i+1)
		p.enter("\n")
	}
	refuses(p, "the passphrase is wrong")
	p = ca("client", "app")
	p.asks("Passphrase of ", 1)
	p.enter("correct horse\n")
	if status := p.ends(); status.ExitStatus() != 0 {
		t.Errorf("%v: %s", status, p.output())
	}
}

// A gate that asks for a passphrase in a reload is ended by SIGTERM as ever.
func TestPromptOfServe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := tlstest.NewCA("server CA").Server("localhost")
	for _, name := range []string{"one", "two"} {
		key := filepath.Join(dir, name+".key")
		if err := server.WriteFiles(filepath.Join(dir, "server.crt"), key); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("openssl", "pkcs8", "-topk8", "-in", key, "-passout", "pass:"+name+"-secret", "-out", key+".new").CombinedOutput(); err != nil {
			t.Skipf("%v: %s", err, out)
		}
		if err := os.Rename(key+".new", key); err != nil {
			t.Fatal(err)
		}
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "pgwicket.yaml")
	configure := func(key string) {
		text := fmt.Sprintf("listen: [{address: '127.0.0.1:%d'}]\nbackend: {host: %s}\ntls: {cert_file: server.crt, key_file: %s, client_cert: none}\nacl: {allow: [127.0.0.0/8]}\nadmin: {address: ''}\nwatch_files: false\n",
			port, dir, key)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure("one.key")
	p := onTerminal(t, true, nil, "pgwicket", "serve", "--config", config)
	p.asks("one.key", 1)
	p.enter("one-secret\n")
	p.wait("the gate", func() bool { return strings.Contains(p.output(), "msg=ready") })
	configure("two.key")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.asks("two.key", 1)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.ends(); status.ExitStatus() != 0 {
		t.Errorf("%v: %s", status, p.output())
	}
	p.wait("the log", func() bool { return strings.Contains(p.output(), "reload failed, configuration unchanged") })
}
