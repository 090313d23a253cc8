package main

import (
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/handover"
)

// A signal that stops the gate while a new process takes over ends the upgrade, or stops the new process, too.
func TestStopDuringUpgrade(t *testing.T) {
	t.Parallel()
	failed := func(n *candidate) {
		n.u.t.Helper()
		if text := string(n.until(handover.Failed).Text); !strings.Contains(text, "the gate is shutting down") {
			n.u.t.Error(text)
		}
	}
	for _, c := range []struct {
		name   string
		stop   func(first *instance, n *candidate)
		status int
	}{
		{"before the new process is prepared", func(first *instance, n *candidate) {
			n.hello(handover.Version)
			n.sockets()
			first.signal(syscall.SIGTERM)
			failed(n)
		}, 0},
		{"before it has taken over", func(first *instance, n *candidate) {
			claim := n.prepared()
			first.signal(syscall.SIGTERM)
			failed(n)
			if claim.Take() {
				t.Error("it could have taken over")
			}
		}, 0},
		{"when it has", func(first *instance, n *candidate) {
			if !n.prepared().Take() {
				t.Error("it cannot take over")
			}
			first.signal(syscall.SIGTERM)
			first.logs("it is told to stop")
			first.check(n.Send(handover.Serving, nil, nil))
			if text := string(n.until(handover.Signal).Text); text != `{"signal":15}` {
				t.Error(text)
			}
			n.until(handover.End)
		}, 0},
		{"twice", func(first *instance, n *candidate) {
			n.prepared().Take()
			first.signal(syscall.SIGTERM)
			first.logs("it is told to stop")
			first.signal(syscall.SIGTERM)
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUnit(t)
			first := u.startUpgradable()
			n := u.candidate()
			defer n.Close()
			c.stop(first, n)
			first.ends(c.status)
		})
	}
}

// The new process may have loaded its files before the old one was told to reload.
func TestReloadDuringUpgrade(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first := u.startUpgradable()
	n := u.candidate()
	defer n.Close()
	n.hello(handover.Version)
	n.sockets()
	first.signal(syscall.SIGHUP)
	first.logs(`"msg":"configuration reloaded"`)
	if !n.goes().Take() {
		t.Fatal("the claim is taken")
	}
	u.check(n.Send(handover.Serving, nil, nil))
	if text := string(n.until(handover.Signal).Text); text != `{"signal":1}` {
		t.Error(text)
	}
}

// Whenever the processes of an upgrade are told to stop, as a service manager tells all of a service, both end. The same holds for the old process alone, until it has handed over.
func TestStoppedUpgrades(t *testing.T) {
	t.Parallel()
	for round := range 16 {
		u := newUnit(t)
		first := u.startUpgradable()
		c := u.talk()
		c.asks("select 'first';", "first")
		cmd := exec.Command("pgwicket", "upgrade", "--config", u.config)
		u.check(cmd.Start())
		u.eventually("no new process", func() bool {
			return slices.ContainsFunc(u.gates(), func(pid int) bool { return pid != first.cmd.Process.Pid })
		})
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // the moment is what is random
		all := round%2 == 0
		if all {
			for _, pid := range u.gates() {
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
		} else {
			_ = first.cmd.Process.Signal(syscall.SIGTERM)
		}
		_ = c.in.Close() // or the gate waits until the client has closed
		_ = cmd.Wait()
		u.eventually("the old process does not end", func() bool {
			select {
			case <-first.ended:
				return true
			default:
				return false
			}
		})
		text := first.text()
		// A signal that comes when it has ended in order may find a process without a handler.
		if state := first.cmd.ProcessState; !state.Success() && (state.String() != "signal: terminated" || !strings.Contains(text, `"msg":"stopped"`)) {
			t.Errorf("round %d: the old process has ended with %v", round, state)
		}
		if !all && !strings.Contains(text, "it is told to stop") && strings.Contains(text, "sessions handed over") {
			if got, err := u.psql("select 'new'"); err != nil || got != "new\n" {
				t.Errorf("round %d: the new process does not serve: %v, %s", round, err, got)
			}
			continue
		}
		u.eventually("a gate still runs", func() bool { return len(u.gates()) == 0 })
	}
}
