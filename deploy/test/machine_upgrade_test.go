package deploy_test

import (
	"strings"
	"syscall"
	"testing"
)

// TestMachineUpgradeDies: when the new process of an upgrade dies at once, while the one before still has a client, the
// service is there again without a person. The process before accepts again, and is the main one for systemd; or systemd
// has seen the death first, ends what is left and starts the service again.
func TestMachineUpgradeDies(t *testing.T) {
	d := gateDisk(t, "1.2.3")
	d.stage["setup"] += `
install -o pgwicket -m 0600 /etc/credstore/pgwicket.key server.key
sed -i -e 's|/run/credentials/pgwicket.service/server.key|server.key|' -e 's|10.20.0.0/16|127.0.0.0/8|' \
	-e 's|startup_timeout: 10s|startup_timeout: 2m|' -e 's|drain_timeout: 30s|drain_timeout: 4s|' pgwicket.yaml
`
	m := boot(t, d)
	for _, systemdFirst := range []bool{false, true} {
		first, restarts := m.show(t, "MainPID"), m.show(t, "NRestarts")
		client := m.command("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5432; exec sleep 600")
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Process.Kill(); _ = client.Wait() })
		m.wait(t, "a connection in startup", func() bool {
			out, _ := m.command("pgwicket", "upgrade", "--dry-run").Output()
			return strings.Contains(string(out), "1 connection in startup")
		})
		m.run(t, "bash", "-c", "cp -p /usr/bin/pgwicket /usr/bin/next && mv /usr/bin/next /usr/bin/pgwicket")
		m.run(t, "systemctl", "reload", "pgwicket.service")
		second := m.show(t, "MainPID")
		if second == first {
			t.Fatalf("it has not been upgraded: %s", m.journal())
		}
		if systemdFirst {
			m.run(t, "kill", "-STOP", first)
		}
		m.run(t, "kill", "-KILL", second)
		if systemdFirst {
			m.wait(t, "the end of the service", func() bool { return m.show(t, "ActiveState") != "active" })
			_ = m.command("kill", "-CONT", first).Run()
		}
		m.wait(t, "a gate that serves", func() bool {
			out, _ := m.command("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/5432 && printf '\0\0\0\10\4\322\26\57' >&3 && timeout 1 head -c 1 <&3`).Output()
			return string(out) == "S" && m.show(t, "ActiveState") == "active" && m.show(t, "MainPID") != second
		})
		switch now := m.show(t, "MainPID"); {
		case systemdFirst && (now == first || m.show(t, "NRestarts") == restarts):
			t.Errorf("it is process %s, as before: %s", now, m.journal())
		case !systemdFirst:
			t.Logf("process %s before, process %s now, %s restarts", first, now, m.show(t, "NRestarts"))
		}
		_ = client.Process.Signal(syscall.SIGKILL)
	}
}
