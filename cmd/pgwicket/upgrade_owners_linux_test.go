package main

import (
	"os"
	"strings"
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
