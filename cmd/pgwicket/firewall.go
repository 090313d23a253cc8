package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"pgwicket/config"
	"pgwicket/proxy"
)

const firewallHelp = `Print the allowlist (acl.allow, acl.deny, proxy_protocol_from) as the rules of a
firewall, so that the kernel turns away whoever the gate would not let in, before
it costs the gate anything:

  pgwicket firewall --config pgwicket.yaml | nft -f -
  pgwicket firewall --format systemd >/etc/systemd/system/pgwicket.service.d/firewall.conf

nftables: a table of its own, inet pgwicket, put in place of the one before as a
whole. It judges what is for the listeners and leaves all else alone; it can only
turn away, so it cannot let in what another table drops. What this machine sends to
itself is left to the gate. systemd: IPAddressAllow= and IPAddressDeny=, which are of
the service as a whole, whatever the listener, and of what it sends, too.

The gate judges all the same. A changed allowlist comes into force in the gate by a
reload, and in the kernel when this is run again: --check asks nft whether the
kernel has the rules of the configuration, reject or drop, and says what is not so.

Exit status: 0 printed, or the kernel has them, 1 it has others or could not be
asked, 2 wrong usage, 78 the configuration is wrong.
`

// What becomes of those that are not let in.
const (
	rejects = "reject"
	drops   = "drop"
)

func firewall(args []string, s streams) int {
	f := flags("firewall")
	path := configFlag(f)
	format := choiceFlag(f, "format", "whose rules", "nftables", "systemd")
	action := choiceFlag(f, "action", "what becomes of others, in nftables", rejects, drops)
	check := f.Bool("check", false, "compare with what the kernel has, in nftables")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	if format.value == "systemd" && (*check || action.value != rejects) {
		fmt.Fprintln(s.err, "pgwicket firewall: --check and --action are for nftables: systemd drops, and shows with «systemctl show -p IPAddressAllow» what it has")
		return exitUsage
	}
	cfg, problems := config.Load(*path, nil, passphrasePrompt(s), time.Now())
	if cfg == nil {
		printProblems(s.err, problems)
		return exitConfig
	}
	switch {
	case *check:
		return checkFirewall(s, cfg)
	case format.value == "systemd":
		text, gaps := systemdRules(cfg)
		for _, g := range gaps {
			fmt.Fprintf(s.err, "pgwicket firewall: warning: %s\n", g)
		}
		fmt.Fprint(s.out, text)
	default:
		fmt.Fprint(s.out, nftRules(cfg.Policy, cfg.Listen, action.value))
	}
	return exitOK
}

// checkFirewall tells whether the kernel has the rules of the configuration.
func checkFirewall(s streams, cfg *config.Config) int {
	kernel, err := kernelRules(context.Background())
	if err != nil {
		fmt.Fprintf(s.err, "pgwicket firewall: %v\n", err)
		return exitFailed
	}
	found, err := nftDifferences(cfg.Policy, cfg.Listen, kernel)
	if err != nil {
		fmt.Fprintf(s.err, "pgwicket firewall: %v\n", err)
		return exitFailed
	}
	for _, d := range found {
		fmt.Fprintln(s.out, d)
	}
	if len(found) > 0 {
		fmt.Fprintln(s.out, "\nload what the configuration says with: pgwicket firewall --config FILE | nft -f -")
		return exitFailed
	}
	fmt.Fprintln(s.out, "the kernel has the rules of the configuration")
	return exitOK
}

var errNoTable = errors.New("the kernel has no table inet pgwicket; load it with: pgwicket firewall --config FILE | nft -f -")

// kernelRules asks nft for the table, as JSON. It is errNoTable that there is none.
func kernelRules(ctx context.Context) ([]byte, error) {
	var said strings.Builder
	cmd := exec.CommandContext(ctx, "nft", "-j", "list", "table", "inet", nftTableName)
	cmd.Stderr = &said
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("there is no program nft; install nftables")
	case err != nil && strings.Contains(said.String(), "No such file or directory"):
		return nil, errNoTable
	case err != nil:
		return nil, fmt.Errorf("nft cannot list the table inet pgwicket, which takes CAP_NET_ADMIN: %s (%w)", firstLine(said.String()), err)
	}
	return out, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// systemdRules returns a drop-in for the service. In systemd's words what is
// allowed wins over what is denied, so the networks that are left of acl.allow are
// named. gaps are what whoever installs it must see to.
func systemdRules(cfg *config.Config) (text string, gaps []string) {
	var b strings.Builder
	fmt.Fprint(&b, `# Made by «pgwicket firewall --format systemd» from the configuration: make it anew
# when that changes, then: systemctl daemon-reload && systemctl restart pgwicket
[Service]
IPAddressDeny=
IPAddressAllow=
IPAddressDeny=any
# This machine: the watchdog, metrics, the resolver.
IPAddressAllow=localhost
`)
	allow(&b, "Who may connect.", cfg.Policy.Networks.Admitted())
	var balancers []netip.Prefix
	for _, listener := range cfg.Listen {
		if from := cfg.Policy.Proxies[listener]; from != nil {
			balancers = append(balancers, from.Admitted()...)
		}
		if ap, err := netip.ParseAddrPort(listener); err == nil && !ap.Addr().IsUnspecified() && !ap.Addr().IsLoopback() {
			own := ap.Addr().WithZone("")
			allow(&b, "The listener's own address, for the watchdog.", []netip.Prefix{netip.PrefixFrom(own, own.BitLen())})
		}
	}
	allow(&b, "Load balancers, whichever listener they are for.", balancers)
	backends, gaps := backendAddresses(cfg.Policy)
	allow(&b, "PostgreSQL.", backends)
	if ap, err := netip.ParseAddrPort(cfg.Admin.Address); err == nil && !ap.Addr().IsLoopback() {
		gaps = append(gaps, "admin.address "+cfg.Admin.Address+": add an IPAddressAllow= for each that reads the metrics from another machine")
	}
	return b.String(), gaps
}

func allow(w io.Writer, why string, networks []netip.Prefix) {
	if len(networks) == 0 {
		return
	}
	fmt.Fprintf(w, "# %s\n", why)
	for _, p := range networks {
		fmt.Fprintf(w, "IPAddressAllow=%v\n", p)
	}
}

// backendAddresses are those of the backends on TCP, as far as they are no names,
// which mean what the DNS says by then.
func backendAddresses(p *proxy.Policy) (known []netip.Prefix, gaps []string) {
	for _, h := range p.Hosts() {
		if h.Network == "unix" {
			continue
		}
		host, _, _ := net.SplitHostPort(h.Address)
		addr, err := netip.ParseAddr(host)
		if err != nil {
			gaps = append(gaps, "backend "+h.Address+" has a name: add an IPAddressAllow= for each of its addresses, and for the DNS server, or write addresses")
			continue
		}
		addr = addr.Unmap().WithZone("")
		if one := netip.PrefixFrom(addr, addr.BitLen()); !slices.Contains(known, one) {
			known = append(known, one)
		}
	}
	return known, gaps
}
