package main

import (
	"context"
	"fmt"
	"time"

	"pgwicket/config"
	"pgwicket/internal/nftables"
	"pgwicket/internal/systemd"
)

const firewallHelp = `Print the allowlist (acl.allow, acl.deny, proxy_protocol_from) as the rules of a
firewall, so that the kernel turns away whoever the gate would not let in, before
it costs the gate anything:

  pgwicket firewall --config pgwicket.yaml | nft -f -
  pgwicket firewall --format systemd >/etc/systemd/system/pgwicket.service.d/firewall.conf

nftables: a table of its own, inet pgwicket, put in place of the one before as a
whole. It judges what is for the listeners and leaves all else alone; it can only
turn away, so it cannot let in what another table nftables.Drop. What this machine sends to
itself is left to the gate. systemd: IPAddressAllow= and IPAddressDeny=, which are of
the service as a whole, whatever the listener, and of what it sends, too.

The gate judges all the same. A changed allowlist comes into force in the gate by a
reload, and in the kernel when this is run again: --check asks nft whether the
kernel has the rules of the configuration, reject or drop, and says what is not so.

Exit status: 0 printed, or the kernel has them, 1 it has others or could not be
asked, 2 wrong usage, 78 the configuration is wrong.
`

func firewall(args []string, s streams) int {
	f := flags("firewall")
	path := configFlag(f)
	format := choiceFlag(f, "format", "whose rules", "nftables", "systemd")
	action := choiceFlag(f, "action", "what becomes of others, in nftables", nftables.Reject, nftables.Drop)
	check := f.Bool("check", false, "compare with what the kernel has, in nftables")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	if format.value == "systemd" && (*check || action.value != nftables.Reject) {
		fmt.Fprintln(s.err, "pgwicket firewall: --check and --action are for nftables: systemd nftables.Drop, and shows with «systemctl show -p IPAddressAllow» what it has")
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
		text, gaps := systemd.AddressFilter(cfg.Policy, cfg.Listen, cfg.Admin.Address)
		for _, g := range gaps {
			fmt.Fprintf(s.err, "pgwicket firewall: warning: %s\n", g)
		}
		fmt.Fprint(s.out, text)
	default:
		fmt.Fprint(s.out, nftables.Rules(cfg.Policy, cfg.Listen, action.value))
	}
	return exitOK
}

// checkFirewall tells whether the kernel has the rules of the configuration.
func checkFirewall(s streams, cfg *config.Config) int {
	found, err := nftables.Compare(context.Background(), cfg.Policy, cfg.Listen)
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
