package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// upgrade runs the command, and returns what it prints.
func (u *unit) upgrade(args ...string) (string, error) {
	u.t.Helper()
	out, err := exec.Command("pgwicket", append([]string{"upgrade", "--config", u.config}, args...)...).CombinedOutput()
	return string(out), err
}

// Clients that connect all the time notice nothing of twenty upgrades, and counters do not jump back.
func TestUpgrade(t *testing.T) {
	u := newUnit(t)
	u.write(fmt.Sprintf("state_dir: %s", u.dir), fmt.Sprintf("audit: {file: %s}", u.path("audit.log")))
	u.replace("admin: {", fmt.Sprintf("admin: {socket: %s, ", u.path("admin.sock")))
	gate := u.start("first", nil)
	come := u.bench("-C", "-c", "4", "-j", "4", "-T", "600")
	gate.served(20)
	for n := range 20 {
		before := strings.Count(gate.text(), `"msg":"session ended"`)
		var out string
		u.eventually("no upgrade", func() bool {
			var err error
			out, err = u.upgrade()
			return err == nil || !strings.Contains(out, "the process before this one still has")
		})
		if !strings.HasPrefix(out, "upgraded in ") {
			_ = exec.Command("cp", gate.log, "/tmp/x-upgrade17/gate.log").Run(); t.Fatalf("upgrade %d: %s", n, out)
		}
		gate.served(before + 5)
	}
	come.stop()
	text := gate.text()
	if strings.Contains(text, "refused") || strings.Contains(text, "DATA RACE") || strings.Contains(text, `"level":"ERROR"`) {
		t.Error("a client was refused, or something has failed")
	}
	t.Log(strings.Count(text, "upgraded from another process"))
}
