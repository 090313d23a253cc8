package deploy_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// machine is a systemd that runs in namespaces of its own, on files that are this
// machine's, or a fresh Debian's, but for what it has changed.
type machine struct {
	*process
	init int // the process id of systemd
}

// disk is what a machine has: the files of a tree, copies of directories as DIR=TARGET, and
// files in /stage. Its file setup is run before the machine starts.
type disk struct {
	tree   string
	copies []string
	stage  map[string]string // the contents by name
}

// boot starts a machine.
func boot(t *testing.T, d disk) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can boot a machine")
	}
	need(t, "unshare", "nsenter")
	stage := t.TempDir()
	if err := os.Mkdir(filepath.Join(stage, "disk"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range d.stage {
		write(t, filepath.Join(stage, name), text)
	}
	group := controlGroup(t)
	cmd := exec.Command("unshare", append([]string{
		"--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup",
		"/bin/bash", "testdata/machine", stage, d.tree,
	}, d.copies...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	m := &machine{process: start(t, cmd)}
	m.wait(t, "systemd", func() bool {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", m.Process.Pid))
		m.init, _ = strconv.Atoi(strings.TrimSpace(string(children)))
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.init))
		return strings.TrimSpace(string(name)) == "systemd"
	})
	m.wait(t, "the end of its start", func() bool {
		out, _ := m.command("systemctl", "is-system-running").Output()
		return strings.TrimSpace(string(out)) == "running" || strings.TrimSpace(string(out)) == "degraded"
	})
	return m
}

// controlGroup makes one for the machine, below the root of the version 2 hierarchy.
func controlGroup(t *testing.T) *os.File {
	t.Helper()
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(hierarchy, "cgroup.controllers")); err != nil {
			continue
		}
		dir, err := os.MkdirTemp(hierarchy, "pgwicket-test-")
		if err != nil {
			t.Skipf("no control group for systemd: %v", err)
		}
		t.Cleanup(func() { removeGroup(t, dir) })
		if err := os.Chmod(dir, 0o755); err != nil { // as the root of a hierarchy, which every account reads
			t.Fatal(err)
		}
		file, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		return file
	}
	t.Skip("no control groups of version 2")
	return nil
}

// removeGroup removes the group with those below it, as soon as their processes are gone,
// which the end of the first one ends.
func removeGroup(t *testing.T, dir string) {
	var err error
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var groups []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for _, g := range slices.Backward(groups) {
			err = os.Remove(g)
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	t.Error(err)
}

func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.init), "--all", "--root", "--wd"}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd
}

// run runs a command on the machine, which must succeed.
func (m *machine) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s\n%s", args, err, out, m.journal())
	}
	return strings.TrimSpace(string(out))
}

// journal is what the service has said.
func (m *machine) journal() string {
	out, _ := m.command("journalctl", "--no-pager", "--output=cat", "--unit=pgwicket.service").Output()
	return string(out)
}

// setup gives the gate certificates, with the key where no account can read it, and
// enables it.
const setup = `
cd /etc/pgwicket
cat >server.crt <<'END'
%sEND
cat >ca.crt <<'END'
%sEND
cat >ca.crl <<'END'
%sEND
install -d -m 0700 /etc/credstore
touch /etc/credstore/pgwicket.key
chmod 0600 /etc/credstore/pgwicket.key
cat >/etc/credstore/pgwicket.key <<'END'
%sEND
sed -i -e 's|10.0.0.5:5432|127.0.0.1:5432|' -e 's|^  key_file: server.key|  key_file: /run/credentials/pgwicket.service/server.key|' \
	-e 's|^  socket: ""|  socket: /run/pgwicket/admin.sock|' pgwicket.yaml
systemctl enable pgwicket.service
`

// gateDisk has a package, and what sets it up. It skips the test where there is no systemd.
func gateDisk(t *testing.T, version string) disk {
	t.Helper()
	need(t, "dpkg", "systemctl")
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Skip("systemd is not installed")
	}
	dir := t.TempDir()
	pki(t, dir, dir)
	var texts []any
	for _, name := range []string{"server.crt", "ca.crt", "ca.crl", "server.key"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	deb, err := os.ReadFile(makePackage(t, "deb", version))
	if err != nil {
		t.Fatal(err)
	}
	return disk{tree: "/", stage: map[string]string{
		"setup":        fmt.Sprintf("dpkg --install /stage/pgwicket.deb\n"+setup, texts...),
		"pgwicket.deb": string(deb),
	}}
}

// TestMachine: the package, installed by dpkg on a machine that systemd 252 or later
// runs, makes the account and a service that starts in its sandbox, with its key from
// systemd, reloads, restarts by itself, stays for an upgrade and goes with its removal.
func TestMachine(t *testing.T) {
	d := gateDisk(t, "1.2.3")
	next, err := os.ReadFile(makePackage(t, "deb", "1.2.4"))
	if err != nil {
		t.Fatal(err)
	}
	d.stage["next.deb"] = string(next)
	m := boot(t, d)

	if got := m.show(t, "ActiveState"); got != "active" {
		t.Fatalf("it is %s: %s", got, m.journal())
	}
	if got := m.run(t, "stat", "--format=%a %U", "/run/credentials/pgwicket.service/server.key"); got != "400 pgwicket" && got != "440 root" {
		t.Errorf("the key is %s", got)
	}

	m.run(t, "systemctl", "reload", "pgwicket.service")
	m.wait(t, "the reload", func() bool { return strings.Contains(m.journal(), `"msg":"configuration reloaded"`) })

	if got := m.run(t, "pgwicket", "reload"); !strings.Contains(got, "reloaded; no file has changed") {
		t.Errorf("by the socket in the directory of the service: %s", got)
	}

	first := m.show(t, "MainPID")
	m.run(t, "kill", "-KILL", first)
	m.wait(t, "the restart after its death", func() bool { return m.show(t, "NRestarts") == "1" && m.show(t, "ActiveState") == "active" })

	// A key from systemd is not there for ExecReload=, so an upgrade needs a file.
	if out, err := m.command("runuser", "-u", "pgwicket", "--", "pgwicket", "upgrade", "--dry-run").CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "systemd gives /run/credentials/pgwicket.service/server.key") {
		t.Errorf("an upgrade with a key from systemd: %v: %s", err, out)
	}
	m.run(t, "install", "-o", "pgwicket", "-m", "0600", "/etc/credstore/pgwicket.key", "/etc/pgwicket/server.key")
	m.run(t, "sed", "-i", "s|/run/credentials/pgwicket.service/server.key|server.key|", "/etc/pgwicket/pgwicket.yaml")
	m.run(t, "pgwicket", "reload")

	second := m.show(t, "MainPID")
	// Both the example and the administrator's copy have changed. dpkg fails where it cannot ask.
	m.run(t, "dpkg", "--install", "/stage/next.deb")
	if got := m.run(t, "dpkg-query", "--show", "--showformat=${Version}", "pgwicket"); got != "1.2.4" {
		t.Errorf("after the upgrade it is %s", got)
	}
	m.run(t, "grep", "-q", "127.0.0.1:5432", "/etc/pgwicket/pgwicket.yaml")
	if got := m.show(t, "MainPID"); got == second || m.show(t, "ActiveState") != "active" || m.show(t, "NRestarts") != "1" {
		t.Errorf("after the upgrade it is process %s: %s", got, m.journal())
	}
	if journal := m.journal(); !strings.Contains(journal, `"msg":"upgraded from another process"`) || strings.Contains(journal, "SIGTERM") {
		t.Errorf("the new version has not taken over: %s", journal)
	}
	m.wait(t, "the end of the process before", func() bool { return m.command("kill", "-0", second).Run() != nil })
	m.run(t, "systemctl", "reload", "pgwicket.service") // the program is the same: nothing but a reload
	if fourth := m.show(t, "MainPID"); fourth == second || m.run(t, "systemctl", "show", "--value", "--property=Result", "pgwicket.service") != "success" {
		t.Errorf("after a reload it is process %s", fourth)
	}

	// A configuration that is wrong is not tried again.
	m.run(t, "sed", "-i", "s/^listen:/lissten:/", "/etc/pgwicket/pgwicket.yaml")
	third := m.show(t, "MainPID")
	m.run(t, "dpkg", "--install", "/stage/pgwicket.deb")
	if got := m.show(t, "MainPID"); got != third {
		t.Errorf("an upgrade has stopped a gate that will not start: %s", m.journal())
	}
	if out, err := m.command("systemctl", "restart", "pgwicket.service").CombinedOutput(); err == nil {
		t.Errorf("it starts all the same: %s", out)
	}
	if state, status := m.show(t, "ActiveState"), m.show(t, "ExecMainStatus"); state != "failed" || status != "78" {
		t.Errorf("it is %s, with status %s: %s", state, status, m.journal())
	}

	m.run(t, "sed", "-i", "s/^lissten:/listen:/", "/etc/pgwicket/pgwicket.yaml")
	m.run(t, "systemctl", "restart", "pgwicket.service")
	m.run(t, "dpkg", "--remove", "pgwicket")
	if state, load := m.show(t, "ActiveState"), m.show(t, "LoadState"); state != "inactive" || load != "not-found" {
		t.Errorf("after its removal it is %s, %s", state, load)
	}
	m.run(t, "test", "-f", "/etc/pgwicket/pgwicket.yaml")
	m.run(t, "dpkg", "--purge", "pgwicket")
	m.run(t, "test", "!", "-e", "/etc/pgwicket/pgwicket.yaml")
	m.run(t, "test", "-f", "/etc/pgwicket/server.crt")
}

// show is a property of the service.
func (m *machine) show(t *testing.T, property string) string {
	t.Helper()
	return m.run(t, "systemctl", "show", "--value", "--property="+property, "pgwicket.service")
}
