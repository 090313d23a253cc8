package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pgwicket/internal/handover"
	"pgwicket/internal/upgrade"
)

// A new process that fails when it has everything but the sessions leaves the admin socket to the old one.
func TestFailedUpgradeKeepsTheAdminSocket(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.startUpgradable()
	u.replace("watch_files: false", "watch_files: false\nstate_dir: "+u.dir)
	u.check(os.WriteFile(u.path("locks.json"), []byte("damaged"), 0o600)) // read when the sockets are there
	if out, err := u.upgrade(); err == nil || !strings.Contains(out, "locks.json") {
		t.Fatalf("an upgrade with a damaged file of the locks: %v: %s", err, out)
	}
	if p, err := u.plan(); err != nil || p.Problem != "" {
		t.Errorf("the admin socket after it: %v, %q", err, p.Problem)
	}
}

// startStaying starts a gate whose sessions cannot be handed over, and upgrades it while it has one. It returns
// the process before and the new one. The session does something first.
func (u *unit) startStaying(something ...string) (first *instance, next int) {
	u.t.Helper()
	u.replace("tls: {", "tls: {max_protocol_version: TLSv1.2, ciphers: [TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA], ")
	u.replace("drain_timeout: 1m", "drain_timeout: 10m")
	first = u.startUpgradable()
	u.talk().asks(strings.Join(something, "")+"select 1;", "1")
	if out, err := u.upgrade(); err != nil || !strings.Contains(out, "finishes 1 session") {
		u.t.Fatalf("%v: %s", err, out)
	}
	for _, pid := range u.gates() {
		if pid != first.cmd.Process.Pid {
			next = pid
		}
	}
	return first, next
}

// SIGHUP for the new process ends the sessions of the one before that would not be admitted any more.
func TestReloadOfTheProcessBefore(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first, next := u.startStaying()
	u.replace("127.0.0.0/8", "192.0.2.0/24")
	u.check(syscall.Kill(next, syscall.SIGHUP))
	first.ends(0)
}

// A gate that is told to stop soon after an upgrade stops: the process before does not accept again.
func TestStopSoonAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first, next := u.startStaying()
	u.check(syscall.Kill(next, syscall.SIGTERM))
	first.ends(0)
	if _, err := net.Dial("tcp", u.address); err == nil {
		t.Error("somebody still accepts connections")
	}
	u.eventually("a gate still runs", func() bool { return len(u.gates()) == 0 })
}

// run runs a command of pgwicket.
func (u *unit) run(args ...string) (string, error) {
	u.t.Helper()
	out, err := exec.Command("pgwicket", append(args, "--config", u.config)...).CombinedOutput()
	return string(out), err
}

// A command that the process before cannot carry out fails in words, though this process has carried it out.
func TestCommandsForAStuckProcess(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first, _ := u.startStaying()
	first.signal(syscall.SIGSTOP)
	u.t.Cleanup(func() { first.signal(syscall.SIGCONT) })
	stuck := fmt.Sprintf("process %d, which finishes sessions after an upgrade, has not done it", first.cmd.Process.Pid)
	var id string
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"terminate", "--yes", "--user", role}, "0 sessions terminated, but " + stuck},
		{[]string{"lock", "--yes", "--user", "nobody", "--for", "1h"}, "is in force, but " + stuck},
		{[]string{"unlock", "ID"}, "has ended, but " + stuck},
	} {
		if c.args[1] == "ID" {
			c.args[1] = id
		}
		out, err := u.run(c.args...)
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() != 1 || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v: %s", c.args[0], err, out)
		}
		if _, after, ok := strings.Cut(out, "lock "); ok {
			id, _, _ = strings.Cut(strings.TrimPrefix(after, "lock "), " ")
		}
	}
}

// Without a state_dir a lock has one id in both processes of an upgrade, and keeps it in the next one, so that it can
// be unlocked.
func TestLocksOfAnUpgrade(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first, next := u.startStaying()
	out, err := u.run("lock", "--yes", "--user", "nobody", "--for", "1h")
	_, after, _ := strings.Cut(out, "locked: lock ")
	id, _, _ := strings.Cut(after, " ")
	if err != nil || id == "" {
		t.Fatalf("%v: %s", err, out)
	}
	inBoth := func(message string) {
		t.Helper()
		u.eventually("not both processes say that they have "+message+" it", func() bool {
			return strings.Count(first.text(), fmt.Sprintf(`"msg":"%s","lock":"%s"`, message, id)) == 2
		})
	}
	inBoth("locked")
	if out, err := u.run("unlock", id); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	inBoth("unlocked")
	out, err = u.run("lock", "--yes", "--user", "nobody", "--for", "1h")
	_, after, _ = strings.Cut(out, "locked: lock ")
	id, _, _ = strings.Cut(after, " ")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := u.run("terminate", "--yes", "--user", role); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	first.ends(0)
	u.upgradeWhenAlone()
	u.eventually("the process before still lives", func() bool { all := u.gates(); return len(all) == 1 && all[0] != next })
	if out, err := u.run("unlock", id); err != nil {
		t.Errorf("after another upgrade: %v: %s", err, out)
	}
}

// listenAs listens on a Unix socket as another account.
func (u *unit) listenAs(uid int, path string) net.Listener {
	u.t.Helper()
	var ln net.Listener
	err := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever, if it does not get its account back
		keep := ^uintptr(0)
		_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep)
		if e != 0 {
			err <- e
			return
		}
		var listenErr error
		ln, listenErr = net.Listen("unix", path)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); e == 0 {
			runtime.UnlockOSThread()
		} else {
			listenErr = errors.Join(listenErr, e)
		}
		err <- listenErr
	}()
	u.check(<-err)
	u.t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// Root does not start a program with the privileges that a program at the admin socket asks for, nor with those of an
// account that has put its socket where every account may.
// It runs alone, since a thread of this process has another account for a moment.
func TestUpgradeOfAnImpostor(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a process another account")
	}
	const nobody = 65534
	u := newUnit(t)
	dir, err := os.MkdirTemp("", "pgw-")
	u.check(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	u.check(os.Chmod(dir, 0o777))
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s/admin.sock, ", dir))
	own := exec.Command("sleep", "600")
	own.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	u.check(own.Start())
	t.Cleanup(func() { _ = own.Process.Kill(); _ = own.Wait() })
	var plan atomic.Pointer[upgrade.Plan]
	ln := u.listenAs(nobody, dir+"/admin.sock")
	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(plan.Load()) }))
	}()
	program := u.path("program")
	u.check(os.WriteFile(program, []byte("#!/bin/sh\nid >"+u.path("started")+"\n"), 0o755))
	u.check(os.Chmod(u.dir, 0o777))
	for _, c := range []struct {
		names upgrade.Plan
		want  string
	}{
		{upgrade.Plan{PID: os.Getpid(), UID: 0, Format: handover.Version}, "the account 65534 listens at admin.socket"},
		{upgrade.Plan{PID: own.Process.Pid, UID: nobody, Format: handover.Version}, "another account than root and 65534 can write to"},
	} {
		plan.Store(&c.names)
		for _, args := range [][]string{{"--dry-run"}, {"--binary", program}} {
			if out, err := u.upgrade(args...); err == nil || !strings.Contains(out, c.want) {
				t.Errorf("%v: %v: %s", args, err, out)
			}
		}
	}
	if text, err := os.ReadFile(u.path("started")); err == nil {
		t.Errorf("the program was started: %s", text)
	}
}

// A unit whose key systemd provides cannot be upgraded, and the command fails before anything happens.
func TestUpgradeWithCredentials(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.check(os.Mkdir(u.path("credentials"), 0o700))
	u.check(os.Rename(u.path("server.key"), u.path("credentials/server.key")))
	u.replace("server.key", u.path("credentials/server.key"))
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	u.endGates()
	first := u.start("first", nil, "CREDENTIALS_DIRECTORY="+u.path("credentials"))
	want := "systemd gives " + u.path("credentials/server.key")
	if out, err := u.upgrade("--dry-run"); err == nil || !strings.Contains(out, want) || strings.Count(out, "systemd gives") != 1 {
		t.Errorf("%v: %s", err, out)
	}
	u.check(os.Rename(u.path("credentials"), u.path("hidden"))) // as for ExecReload=
	if out, err := u.upgrade(); err == nil || !strings.Contains(out, want) || !strings.Contains(out, fmt.Sprintf("process %d goes on", first.cmd.Process.Pid)) {
		t.Errorf("%v: %s", err, out)
	}
	if text := first.text(); strings.Contains(text, "upgrade begins") {
		t.Error("an upgrade has begun")
	}
}
