// Package deploy_test holds the files of this directory to the programs that
// will read them.
package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSandboxLetsTheGateWork: a sandbox that is too tight breaks the connection to
// PostgreSQL's socket or the reload of certificates without a word (pitfall 44,
// ghostunnel#742). What the gate needs must not be taken away.
func TestSandboxLetsTheGateWork(t *testing.T) {
	text, err := os.ReadFile("systemd/pgwicket.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			unit[key] += " " + value
		}
	}
	for _, family := range []string{"AF_UNIX", "AF_INET", "AF_INET6"} {
		if !strings.Contains(unit["RestrictAddressFamilies"]+" ", " "+family+" ") {
			t.Errorf("%s is not allowed", family)
		}
	}
	for _, key := range []string{"PrivateNetwork", "InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "IPAddressDeny", "PrivateMounts", "MountAPIVFS"} {
		if v, ok := unit[key]; ok {
			t.Errorf("%s=%s hides the sockets or files of the gate", key, v)
		}
	}
	// Without a word the gate would do without its own sandbox.
	for _, call := range []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} {
		if !strings.Contains(unit["SystemCallFilter"]+" ", " "+call+" ") {
			t.Errorf("%s is not allowed", call)
		}
	}
	// notify, or systemd would take the gate for ready too early; notify-reload is unknown before 253.
	if unit["Type"] != " notify" || unit["WatchdogSec"] == "" {
		t.Errorf("Type=%s WatchdogSec=%s", unit["Type"], unit["WatchdogSec"])
	}
	if !strings.Contains(unit["ExecReload"], "-HUP $MAINPID") {
		t.Errorf("systemctl reload does not reload: %q", unit["ExecReload"])
	}
	if !strings.Contains(unit["RestartPreventExitStatus"], "78") {
		t.Error("a wrong configuration would be tried again for ever")
	}
}

// TestSystemdUnit: the unit parses without a complaint, and its sandbox is as
// tight as the documentation says.
func TestSystemdUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	text, err := os.ReadFile("systemd/pgwicket.service")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := os.ReadFile("systemd/pgwicket.socket")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(socket), "Accept=yes") {
		t.Error("the gate wants listening sockets")
	}
	// verify looks for the programs, which a source tree has not installed, and
	// for the service of the socket.
	dir := t.TempDir()
	unit, sockets := filepath.Join(dir, "pgwicket.service"), filepath.Join(dir, "pgwicket.socket")
	if err := os.WriteFile(sockets, socket, 0o600); err != nil {
		t.Fatal(err)
	}
	installed := strings.ReplaceAll(string(text), "/usr/bin/pgwicket", "/bin/true")
	if err := os.WriteFile(unit, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", unit, sockets},
		{"security", "--offline=yes", "--no-pager", "--threshold=20", unit},
	} {
		out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}
