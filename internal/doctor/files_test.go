//go:build unix

package doctor

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgwicket/proxy"
)

// With --pg-conf, too, the lines of pg_hba.conf for the gate are no way around it.
func TestFilesOfBackend(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddr(ownAddress(t))
	neighbour := own.Prev()
	if conn, err := net.Dial("udp", netip.AddrPortFrom(neighbour, 5432).String()); err != nil || strings.HasPrefix(conn.LocalAddr().String(), neighbour.String()) {
		t.Skip("no route to a neighbour")
	}
	const trusted = "local all postgres peer\nhost all all 127.0.0.1/32 scram-sha-256\n"
	for _, c := range []struct {
		host      string
		lines     string
		addresses string
		want      []made
		fix       string // of the last of want
	}{
		{neighbour.String(), "hostssl all app " + own.String() + "/32 scram-sha-256", neighbour.String(), []made{
			{check: "unix_socket", status: Skip, text: "on its own machine"},
			{check: "backend_tls", status: Skip, text: "is not tried"},
			{check: "listen_addresses", status: Pass, text: "where the gate connects to it"},
			{check: "pg_hba_network", status: Pass, text: own.String()},
		}, ""},
		{neighbour.String(), "host all app " + own.String() + "/32 scram-sha-256", "*", []made{
			{check: "listen_addresses", status: Warn, text: "the gate needs " + neighbour.String()}, {check: "pg_hba_network", status: Warn, text: "also accepts connections in clear"},
		}, "write instead: hostssl all app " + own.String() + "/32 scram-sha-256"},
		{neighbour.String(), "hostssl all app 10.0.0.0/7 scram-sha-256", "localhost", []made{
			{check: "pg_hba_network", status: Fail, text: "which bypass it"}, {check: "listen_addresses", status: Warn, text: "and the gate connects to " + neighbour.String()},
		}, "listen_addresses = '" + neighbour.String() + "'\n-- then restart PostgreSQL"},
		{own.String(), "hostssl all app " + neighbour.String() + "/32 scram-sha-256", own.String(), []made{
			{check: "pg_hba_network", status: Pass, text: "no line allows more than one address"},
		}, ""},
		{own.String(), "hostssl all app 10.0.0.0/7 scram-sha-256", own.String(), []made{
			{check: "pg_hba_network", status: Fail, text: "which bypass it"},
		}, "write instead: hostssl all app ADDRESS_OF_THE_GATE/32 scram-sha-256"},
		{"127.0.0.1", "", "localhost", []made{
			{check: "listen_addresses", status: Warn, text: "every account of its machine"}, {check: "pg_hba_network", status: Pass, text: "no line allows other machines"},
		}, ""},
		{"name.invalid", "hostssl all app 10.0.0.5/32 scram-sha-256", "10.0.0.9", []made{
			{check: "listen_addresses", status: Pass}, {check: "pg_hba_network", status: Pass, text: "is not known here"},
		}, ""},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"pg_hba.conf": trusted + c.lines + "\n", "pg_ident.conf": "", "postgresql.conf": "listen_addresses = '" + c.addresses + "'\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		h := &proxy.Host{Network: "tcp", Address: net.JoinHostPort(c.host, "5432")}
		all := target{confDir: dir}.servers(t.Context(), gateState{rules: rulesFrom(t, []string{"postgres"}), hosts: []*proxy.Host{h}})[0].findings()
		for i, want := range c.want {
			switch at := has(all, want); {
			case at < 0:
				t.Errorf("%s, %s: no %v of %s with %q", c.host, c.lines, want.status, want.check, want.text)
			case want.check == "pg_hba_network" && want.status != Pass && all[at].Name != c.lines:
				t.Errorf("a waiver calls it %q", all[at].Name)
			case i == len(c.want)-1 && !strings.HasPrefix(all[at].Fix, c.fix):
				t.Errorf("%s, %s: %q, not %q", c.host, c.lines, all[at].Fix, c.fix)
			}
		}
	}
}
