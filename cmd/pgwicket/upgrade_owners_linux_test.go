package main

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
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
// the process before and the new one.
func (u *unit) startStaying() (first *instance, next int) {
	u.t.Helper()
	u.replace("tls: {", "tls: {max_protocol_version: TLSv1.2, ciphers: [TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA], ")
	u.replace("drain_timeout: 1m", "drain_timeout: 10m")
	first = u.startUpgradable()
	u.talk().asks("select 1;", "1")
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
