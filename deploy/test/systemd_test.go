package deploy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit is a unit file's settings: those of one name, and more of one name behind
// each other, as systemd joins lists.
type unit map[string]string

func parseUnit(text string) unit {
	u := make(unit)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			u[key] = strings.TrimSpace(u[key] + " " + value)
		}
	}
	return u
}

// differs says what is not as it is wanted.
func (u unit) differs(want unit) error {
	var errs []error
	for key, value := range want {
		if got, ok := u[key]; !ok || got != value {
			errs = append(errs, fmt.Errorf("%s=%s, want %s", key, got, value))
		}
	}
	return errors.Join(errs...)
}

// contract is what the gate and its documentation count on.
var contract = unit{
	"After":         "network-online.target postgresql.service",
	"Wants":         "network-online.target",
	"Documentation": "file:///usr/share/doc/pgwicket/docs/operations.md",
	// Type=notify-reload is unknown before 253, and without notify systemd would take the
	// gate for ready too early.
	"Type":                     "notify",
	"NotifyAccess":             "all",
	"WatchdogSec":              "30",
	"User":                     "pgwicket",
	"Group":                    "pgwicket",
	"LoadCredential":           "server.key:pgwicket.key",
	"RuntimeDirectory":         "pgwicket",
	"StateDirectory":           "pgwicket", // state_dir
	"StateDirectoryMode":       "0700",
	"LogsDirectory":            "pgwicket", // audit.file
	"LogsDirectoryMode":        "0700",
	"ExecStart":                "/usr/bin/pgwicket serve --config /etc/pgwicket/pgwicket.yaml",
	"ExecReload":               "/usr/bin/pgwicket upgrade --or-reload --config /etc/pgwicket/pgwicket.yaml",
	"Restart":                  "on-failure",
	"RestartPreventExitStatus": "78", // a wrong configuration would be tried again for ever
	"TimeoutStopSec":           "45",
	"LimitNOFILE":              "65536",
	"LimitCORE":                "0",
	"LogRateLimitIntervalSec":  "30s",
	"LogRateLimitBurst":        "60000",
	"AmbientCapabilities":      "",
	"SystemCallErrorNumber":    "EPERM",
	"WantedBy":                 "multi-user.target",
}

// open is what systemd-analyze finds that the sandbox leaves the gate.
var open = []string{
	"DeviceAllow",    // what PrivateDevices=yes needs
	"IPAddressDeny",  // the clients' networks are acl.allow's affair
	"NotifyAccess",   // the process before an upgrade may be the main one again
	"PrivateMounts",  // implied by PrivateTmp=yes and others
	"PrivateNetwork", // there would be no clients
	"RestrictAddressFamilies_AF_INET_INET6",
	"RestrictAddressFamilies_AF_UNIX", // PostgreSQL's socket
	"RootDirectoryOrRootImage",        // hides that socket, too
}

// TestSandboxAllowsTheGate checks that the sandbox allows what the gate needs. A sandbox
// that is too strict breaks the connection to PostgreSQL's socket or the reload of
// certificates without an error (ghostunnel/ghostunnel#742).
func TestSandboxAllowsTheGate(t *testing.T) {
	u := parseUnit(read(t, "deploy/systemd/pgwicket.service"))
	for _, family := range []string{"AF_UNIX", "AF_INET", "AF_INET6"} {
		if !slices.Contains(strings.Fields(u["RestrictAddressFamilies"]), family) {
			t.Errorf("%s is not allowed", family)
		}
	}
	for _, key := range []string{"PrivateNetwork", "InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "IPAddressDeny", "PrivateMounts", "MountAPIVFS"} {
		if v, ok := u[key]; ok {
			t.Errorf("%s=%s hides the sockets or files of the gate", key, v)
		}
	}
}

// TestSystemdUnits: the units parse without a complaint, and the sandbox is as tight
// as the documentation says.
func TestSystemdUnits(t *testing.T) {
	need(t, "systemd-analyze")
	review(t, reviewed{
		file:  "deploy/systemd/pgwicket.service",
		check: checkService,
		spare: []string{"Description="},
	})
	review(t, reviewed{
		file:  "deploy/systemd/pgwicket.socket",
		check: checkSocket,
		spare: []string{"Description="},
	})
}

// companions are the settings of the units beside the gate, but for their descriptions.
var companions = map[string]unit{
	"pgwicket-ca-crl.service": {
		"Documentation": "file:///usr/share/doc/pgwicket/docs/ca.md", "ConditionPathExists": "/var/lib/pgwicket-ca/index.txt",
		"Type": "oneshot", "Environment": "PGWICKET_CA_DIR=/var/lib/pgwicket-ca", "LoadCredential": "passphrase:pgwicket-ca.passphrase",
		"ExecStart":             `/usr/bin/pgwicket ca crl --if-older 1d --passphrase-command "cat $$CREDENTIALS_DIRECTORY/passphrase"`,
		"CapabilityBoundingSet": "CAP_DAC_OVERRIDE CAP_FOWNER", "NoNewPrivileges": "yes", "PrivateDevices": "yes", "PrivateNetwork": "yes", "PrivateTmp": "yes",
		"ProtectHome": "yes", "ProtectSystem": "strict", "ReadWritePaths": "-/var/lib/pgwicket-ca -/etc/pgwicket", "RestrictAddressFamilies": "AF_UNIX",
		"SystemCallArchitectures": "native", "SystemCallFilter": "@system-service", "UMask": "0077",
	},
	"pgwicket-ca-crl.timer": {
		"Documentation": "file:///usr/share/doc/pgwicket/docs/ca.md", "OnCalendar": "daily", "RandomizedDelaySec": "1h", "Persistent": "yes", "WantedBy": "timers.target",
	},
	"pgwicket-fetch.service": {
		"Documentation": "file:///usr/share/doc/pgwicket/docs/certificates.md", "After": "network-online.target", "Wants": "network-online.target",
		"User": "pgwicket", "Group": "pgwicket", "ExecStart": "/usr/bin/pgwicket fetch --config /etc/pgwicket/pgwicket.yaml --metrics 127.0.0.1:10433",
		"Restart": "on-failure", "RestartPreventExitStatus": "78", "StateDirectory": "pgwicket-lists", "MemoryMax": "512M", "CapabilityBoundingSet": "",
		"LockPersonality": "yes", "MemoryDenyWriteExecute": "yes", "NoNewPrivileges": "yes", "PrivateDevices": "yes", "PrivateTmp": "yes", "PrivateUsers": "yes",
		"ProcSubset": "pid", "ProtectClock": "yes", "ProtectControlGroups": "yes", "ProtectHome": "yes", "ProtectHostname": "yes", "ProtectKernelLogs": "yes",
		"ProtectKernelModules": "yes", "ProtectKernelTunables": "yes", "ProtectProc": "invisible", "ProtectSystem": "strict", "RemoveIPC": "yes",
		"RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "RestrictNamespaces": "yes", "RestrictRealtime": "yes", "RestrictSUIDSGID": "yes",
		"SystemCallArchitectures": "native", "SystemCallFilter": "@system-service ~@privileged @resources", "UMask": "0022", "WantedBy": "multi-user.target",
	},
}

// TestCompanions: the units of the lists parse without a complaint, and say what the
// documentation says.
func TestCompanions(t *testing.T) {
	need(t, "systemd-analyze")
	for name, want := range companions {
		review(t, reviewed{file: "deploy/systemd/" + name, spare: []string{"Description="}, check: func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := parseUnit(string(text)).differs(want); err != nil {
				return err
			}
			units := map[string]string{name: string(text)}
			if service, ok := strings.CutSuffix(name, ".timer"); ok { // which systemd looks for
				of, err := os.ReadFile(filepath.Join(top, "deploy/systemd", service+".service"))
				if err != nil {
					return err
				}
				units[service+".service"] = string(of)
			}
			return verify(units)
		}})
	}
}

func TestSysusers(t *testing.T) {
	need(t, "systemd-sysusers")
	review(t, reviewed{file: "deploy/systemd/pgwicket.sysusers", check: checkSysusers})
}

func checkService(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	u := parseUnit(string(text))
	if err := u.differs(contract); err != nil {
		return err
	}
	// Without a word the gate would do without its own sandbox.
	for _, call := range []string{"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} {
		if !slices.Contains(strings.Fields(u["SystemCallFilter"]), call) {
			return fmt.Errorf("%s is not allowed", call)
		}
	}
	if err := verify(map[string]string{"pgwicket.service": string(text)}); err != nil {
		return err
	}
	return exposure(path)
}

func checkSocket(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	u := parseUnit(string(text))
	if _, ok := u["Accept"]; ok {
		return errors.New("the gate wants listening sockets")
	}
	if err := u.differs(unit{
		"Documentation": contract["Documentation"], "ListenStream": "10.0.0.5:5432",
		"Backlog": "4096", "FreeBind": "yes", "WantedBy": "sockets.target",
	}); err != nil {
		return err
	}
	service, err := os.ReadFile(filepath.Join(top, "deploy/systemd/pgwicket.service"))
	if err != nil {
		return err
	}
	return verify(map[string]string{"pgwicket.service": string(service), "pgwicket.socket": string(text)})
}

// verify has systemd read the units. It looks for the programs, too, which a source
// tree has not installed.
func verify(units map[string]string) error {
	dir, err := os.MkdirTemp("", "pgwicket-units-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args := []string{"verify", "--man=no"}
	for name, text := range units {
		path := filepath.Join(dir, name)
		text = strings.ReplaceAll(text, "/usr/bin/pgwicket", "/bin/true")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		args = append(args, path)
	}
	out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
	if err != nil || len(out) > 0 {
		return fmt.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	return nil
}

// exposure wants it below 2.0, and nothing of the sandbox open that need not be.
func exposure(path string) error {
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--json=short", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemd-analyze security: %w: %s", err, out)
	}
	var tests []struct {
		Field string `json:"json_field"`
		Set   *bool
	}
	if err := json.Unmarshal(out, &tests); err != nil {
		return fmt.Errorf("systemd-analyze security: %w: %s", err, out)
	}
	var found []string
	for _, test := range tests {
		if test.Set != nil && !*test.Set {
			found = append(found, test.Field)
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, open) {
		return fmt.Errorf("open is %q, want %q", found, open)
	}
	return nil
}

// checkSysusers has the account made below a directory of ours.
func checkSysusers(path string) error {
	root, err := os.MkdirTemp("", "pgwicket-root-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("systemd-sysusers", "--root="+root, path).CombinedOutput(); err != nil {
		return fmt.Errorf("systemd-sysusers: %w: %s", err, out)
	}
	accounts, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(accounts)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); f[0] == "pgwicket" && f[2] != "0" && strings.HasSuffix(f[6], "nologin") {
			return nil
		}
	}
	return fmt.Errorf("no account pgwicket without a login: %s", accounts)
}

// need skips the test if a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf(`%s is not installed; "make deploy-test" installs it as root on Debian`, p)
		}
	}
}
