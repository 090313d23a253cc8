package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pgwicket/internal/gate"
)

// upgrade runs the command, and returns what it prints.
func (u *unit) upgrade(args ...string) (string, error) {
	u.t.Helper()
	out, err := exec.Command("pgwicket", append([]string{"upgrade", "--config", u.config}, args...)...).CombinedOutput()
	return string(out), err
}

// plan is what an upgrade would do now.
func (u *unit) plan() (p gate.UpgradePlan, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", u.path("admin.sock"))
	}}}
	r, err := client.Get("http://pgwicket" + gate.UpgradePath)
	if err != nil {
		return p, err
	}
	defer r.Body.Close()
	return p, json.NewDecoder(r.Body).Decode(&p)
}

// gates returns the processes that have the configuration of u.
func (u *unit) gates() (pids []int) {
	u.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	u.check(err)
	for _, name := range all {
		if args, _ := os.ReadFile(name); strings.Contains(string(args), "\x00serve\x00") && strings.Contains(string(args), u.config) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// endGates ends them when the test is over.
func (u *unit) endGates() {
	u.t.Cleanup(func() {
		for _, pid := range u.gates() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

// onlyOne waits until the processes before the last one have ended.
func (u *unit) onlyOne() {
	u.t.Helper()
	u.eventually("a process before still lives", func() bool { return len(u.gates()) == 1 })
}

// Clients that connect all the time notice nothing of twenty upgrades, and counters do not jump back.
func TestUpgrade(t *testing.T) {
	u := newUnit(t)
	u.write(fmt.Sprintf("state_dir: %s", u.dir), fmt.Sprintf("audit: {file: %s}", u.path("audit.log")))
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	u.endGates()
	first := u.start("first", nil)
	come := u.bench("-C", "-c", "4", "-j", "4", "-T", "600")
	first.served(20)
	for n := range 20 {
		before := strings.Count(first.text(), `"msg":"session ended"`)
		var out string
		u.eventually("no upgrade", func() bool {
			var err error
			out, err = u.upgrade()
			return err == nil || !strings.Contains(out, "the process before this one still has")
		})
		if !strings.HasPrefix(out, "upgraded in ") {
			_ = exec.Command("cp", first.log, "/tmp/x-upgrade17/gate.log").Run()
			t.Fatalf("upgrade %d: %s", n, out)
		}
		first.served(before + 5)
	}
	come.stop()
	u.onlyOne()
	text := first.text()
	if strings.Contains(text, "refused") || strings.Contains(text, "DATA RACE") || strings.Contains(text, `"level":"ERROR"`) {
		t.Error("a client was refused, or something has failed")
	}
	t.Log(strings.Count(text, "upgraded from another process"))
}
