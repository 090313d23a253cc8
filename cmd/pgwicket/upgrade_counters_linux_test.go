package main

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// metrics returns the sum of each series, by its name.
func (u *unit) metrics() map[string]float64 {
	u.t.Helper()
	r, err := http.Get("http://" + u.admin + "/metrics")
	u.check(err)
	defer r.Body.Close()
	all := make(map[string]float64)
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, _, _ = strings.Cut(name, "{")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			all[name] += v
		}
	}
	return all
}

// unaccounted is how many connections have come that are not open, and have no end.
func (u *unit) unaccounted() float64 {
	u.t.Helper()
	m := u.metrics()
	return m["pgwicket_connections_accepted_total"] - m["pgwicket_connections_starting"] - m["pgwicket_connections_refused_total"] -
		m["pgwicket_sessions_open"] - m["pgwicket_sessions_ended_total"] - m["pgwicket_cancel_requests_total"]
}

// Also when a process of an upgrade is killed, each connection that was accepted is open or has an end.
func TestCountersOfAKilledProcess(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"old", "new"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			u := newUnit(t)
			u.replace("drain_timeout: 1m", "drain_timeout: 10m")
			first := u.startUpgradable()
			c := u.talk()
			c.asks("select 1;", "1")
			starting, err := net.Dial("tcp", u.address) // the old process keeps it
			u.check(err)
			defer starting.Close()
			u.eventually("it is not counted", func() bool { return u.metrics()["pgwicket_connections_starting"] == 1 })
			if out, err := u.upgrade(); err != nil || !strings.Contains(out, "with 1 session\n") || !strings.Contains(out, "1 connection in startup") {
				t.Fatalf("%v: %s", err, out)
			}
			if n := u.unaccounted(); n != 0 {
				t.Errorf("%v connections have no end after the upgrade", n)
			}
			open := 1.0
			if victim == "old" {
				first.signal(syscall.SIGKILL)
				u.eventually("the new process does not notice", func() bool { return strings.Contains(first.text(), "the process before is gone") })
				c.asks("select 2;", "2")
			} else {
				for _, pid := range u.gates() {
					if pid != first.cmd.Process.Pid {
						u.check(syscall.Kill(pid, syscall.SIGKILL))
					}
				}
				first.logs("this process accepts connections again")
				open = 0
			}
			u.eventually("a connection has no end, or two", func() bool { return u.unaccounted() == 0 && u.metrics()["pgwicket_sessions_open"] == open })
		})
	}
}
