package main

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/gate"
	"pgwicket/internal/handover"
	"pgwicket/internal/lock"
)

// newLog waits until the new process of hands has logged a text, and returns its log.
func (u *unit) newLog(text string) string {
	u.t.Helper()
	var all []byte
	u.eventually("no "+text+" in the log of the new process", func() bool {
		all, _ = os.ReadFile(u.path("new.log"))
		return strings.Contains(string(all), text)
	})
	return string(all)
}

// An old process that a second signal ends, when the new one has taken over, leaves the admin socket to it, and passes the
// signal on.
func TestKilledWhenAnotherHasTakenOver(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first := u.startUpgradable()
	n := u.candidate()
	defer n.Close()
	if !n.prepared().Take() {
		t.Fatal("the claim is taken")
	}
	first.signal(syscall.SIGTERM)
	first.logs("it is told to stop")
	first.signal(syscall.SIGTERM)
	first.ends(1)
	if _, err := os.Lstat(u.path("admin.sock")); err != nil {
		t.Error("the admin socket of the new process: ", err)
	}
	if text := string(n.until(handover.Signal).Text); text != `{"signal":15}` {
		t.Error(text)
	}
}

// A service manager sends SIGTERM to both processes, and the old one passes its own on: the new one has got the same
// signal twice, and must still drain.
func TestSignalThatComesTwice(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.replace("drain_timeout: 1m", "drain_timeout: 1m, drain_delay: 20s")
	done := make(chan struct{})
	p := &oldProcess{serving: func(c *handover.Conn, _ net.Conn) error {
		err := errors.Join(said(c), c.Send(handover.Rest, map[string]int{"moved": 0, "stay": 0}, nil), c.Send(handover.Signal, map[string]int{"signal": 15}, nil))
		<-done
		return err
	}}
	defer close(done)
	u.upgradesFrom(p)
	u.newLog(`"msg":"shutting down"`)
	pid := u.gates()[0]
	u.check(syscall.Kill(pid, syscall.SIGTERM))
	if text := u.newLog(`"signal":"terminated"`); strings.Contains(text, "second signal") {
		t.Fatal("it exits at once")
	}
	u.newLog("the process before has passed the same signal on")
	u.check(syscall.Kill(pid, syscall.SIGTERM))
	u.newLog("second signal, exiting at once")
}

// A lock that is made after the new process has read the file of the locks is in force when that one serves.
func TestLockWhileAnUpgradeIsPrepared(t *testing.T) {
	t.Parallel()
	u := newUnit(t, "")
	u.write("state_dir: " + u.dir)
	done := make(chan struct{})
	defer close(done)
	u.upgradesFrom(&oldProcess{
		prepared: func() error {
			table, err := lock.Open(u.dir)
			if err == nil {
				var filter lock.Filter
				if filter, err = lock.ParseFilter(url.Values{"user": {role}}); err != nil {
					return err
				}
				_, _, err = table.Add(lock.Lock{Filter: filter, Reason: "while another process was prepared"}, time.Now())
			}
			return err
		},
		serving: func(c *handover.Conn, _ net.Conn) error {
			// At once: some time later the new process reads the file again in any case.
			_, refused := u.psql("select 1")
			if refused == nil {
				u.t.Error("a user who is locked was admitted")
			}
			err := errors.Join(said(c), c.Send(handover.Rest, map[string]int{"moved": 0, "stay": 0}, nil))
			<-done
			return err
		},
	})
}

// A command that is on its way to the process before, when that one has just ended, has not failed: there is nothing left
// for it to do.
func TestCommandForAProcessThatEnds(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	u.upgradesFrom(&oldProcess{serving: func(c *handover.Conn, commands net.Conn) error {
		err := errors.Join(said(c), c.Send(handover.Rest, map[string]int{"moved": 0, "stay": 0}, nil))
		if err == nil {
			_, err = http.ReadRequest(bufio.NewReader(commands))
		}
		err = errors.Join(err, commands.Close())
		time.Sleep(100 * time.Millisecond) // between the two is what is tested
		return errors.Join(err, c.Send(handover.End, nil, nil))
	}})
	status, body := u.halfCommand(gate.UnlockPath + "?id=00000000")() // this one forwards nothing
	if status != http.StatusConflict {
		t.Errorf("%d: %s", status, body)
	}
	if status, body := u.halfCommand(gate.LockPath + "?user=nobody&for=1h&yes=1")(); status != http.StatusOK {
		t.Errorf("%d: %s", status, body)
	}
}

// A reload holds in the process before, too, while that one drains: a revocation must not wait for the end of it.
func TestReloadWhileTheProcessBeforeDrains(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	first, _ := u.startStaying("begin; ")
	first.signal(syscall.SIGTERM)
	first.logs("ends its sessions as they become idle")
	u.replace("127.0.0.0/8", "192.0.2.0/24")
	if out, err := u.run("reload"); err != nil || strings.Contains(out, "has not done it") {
		t.Errorf("%v: %s", err, out)
	}
	first.ends(0)
}
