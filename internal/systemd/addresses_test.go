package systemd

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgwicket/acl"
	"pgwicket/proxy"
)

func networksOf(t testing.TB, allow, deny string) *acl.Networks {
	t.Helper()
	read := func(texts string) (out []netip.Prefix) {
		for _, text := range strings.Fields(texts) {
			p, err := acl.ParsePrefix(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, p)
		}
		return out
	}
	return acl.NewNetworks(read(allow), read(deny))
}

// The drop-in allows the addresses that the gate does.
func TestAddressFilter(t *testing.T) {
	listeners := []string{"10.0.0.5:5432", "[::]:5433", "127.0.0.1:5432"}
	p := &proxy.Policy{
		Networks: networksOf(t, "10.20.0.0/16 fd00::/8", "10.20.128.0/17 10.20.0.7"),
		Proxies:  map[string]*acl.Networks{"[::]:5433": networksOf(t, "10.0.0.2", "")},
		Backend: &proxy.Backend{Hosts: []proxy.Host{
			{Network: "tcp", Address: "192.0.2.1:5432"}, {Network: "tcp", Address: "[fd01::1]:5432"}, {Network: "unix", Address: "/run/postgresql/.s.PGSQL.5432"},
		}},
		Backends: map[string]*proxy.Backend{"named": {Hosts: []proxy.Host{{Network: "tcp", Address: "db.example:5432"}}}},
	}
	text, gaps := AddressFilter(p, listeners, "10.0.0.5:10432")
	var allowed []netip.Prefix
	for _, m := range regexp.MustCompile(`(?m)^IPAddressAllow=(.+/\d+)$`).FindAllStringSubmatch(text, -1) {
		allowed = append(allowed, netip.MustParsePrefix(m[1]))
	}
	for from, want := range map[string]bool{
		"10.20.0.1": true, "10.20.0.7": false, "10.20.127.255": true, "10.20.128.1": false, "10.21.0.1": false, "fd00::1": true,
		"10.0.0.2": true, "10.0.0.5": true, "192.0.2.1": true, "192.0.2.2": false, "fe80::1": false,
	} {
		got := slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(from)) })
		if got != want {
			t.Errorf("%s: allowed %t in\n%s", from, got, text)
		}
	}
	if !strings.Contains(text, "[Service]\nIPAddressDeny=\nIPAddressAllow=\nIPAddressDeny=any\n") || !strings.Contains(text, "IPAddressAllow=localhost\n") {
		t.Errorf("got\n%s", text)
	}
	if len(gaps) != 2 || !strings.HasPrefix(gaps[0], "backend db.example:5432 has a name: ") || !strings.HasPrefix(gaps[1], "admin.address 10.0.0.5:10432: ") {
		t.Errorf("gaps %q", gaps)
	}
	verifyDropIn(t, text)
}

// verifyDropIn has systemd read the drop-in beside its unit.
func verifyDropIn(t *testing.T, text string) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("systemd-analyze is not installed")
		return
	}
	unit, err := os.ReadFile("../../deploy/systemd/pgwicket.service")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(dir+"/"+name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/pgwicket.service.d", 0o700); err != nil {
		t.Fatal(err)
	}
	write("pgwicket.service", bytes.ReplaceAll(unit, []byte("/usr/bin/pgwicket"), []byte("/bin/true")))
	verify := func() string {
		out, _ := exec.Command("systemd-analyze", "verify", "--man=no", dir+"/pgwicket.service").CombinedOutput()
		return string(out)
	}
	write("pgwicket.service.d/firewall.conf", []byte(text+"IPAddressAllow=nonsense\n"))
	if out := verify(); !strings.Contains(out, "nonsense") {
		t.Errorf("systemd has not read the drop-in: %q", out)
	}
	write("pgwicket.service.d/firewall.conf", []byte(text))
	if out := verify(); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}
