package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
	"pgwicket/internal/nftables"
	"pgwicket/internal/systemd"
)

const firewallHelp = `Print the allowlist (acl.allow, acl.deny, proxy_protocol_from) as the rules of a
firewall, so that the kernel refuses a source before it costs the gate a
connection. The gate judges every source all the same.

nftables: the table inet pgwicket, which replaces the previous one as a whole. It
judges packets for the listeners and ignores all others. It can only refuse, so it
does not admit what another table drops. Packets from this machine itself are left
to the gate.

systemd: IPAddressAllow= and IPAddressDeny=. They apply to the whole service,
whatever the listener, and to what it sends, too.

The gate uses a changed allowlist after a reload, and the kernel when these rules
are loaded again. --check asks nft whether the kernel has the rules of the
configuration, with either action, and prints the differences.

Exit status: 0 printed, or the kernel has the rules, 1 it has others or cannot be
asked, 2 wrong usage, 78 the configuration is wrong.`

func firewallCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "firewall", Short: "Print the allowlist as the rules of a firewall", Long: firewallHelp,
		Example: `  pgwicket firewall --config pgwicket.yaml | nft -f -
  pgwicket firewall --config pgwicket.yaml --check
  pgwicket firewall --format systemd >/etc/systemd/system/pgwicket.service.d/firewall.conf`,
	}
	path := cli.ConfigFlag(cmd)
	format := cli.ChoiceFlag(cmd, "format", "the firewall", "nftables", "systemd")
	action := cli.ChoiceFlag(cmd, "action", "what nftables does with other sources", nftables.Reject, nftables.Drop)
	check := cmd.Flags().Bool("check", false, "compare nftables in the kernel with the configuration")
	return cli.Runs(cmd, func() int {
		if *format == "systemd" && (*check || *action != nftables.Reject) {
			fmt.Fprintln(s.Err, `pgwicket firewall: --check and --action are for nftables: systemd drops, and "systemctl show -p IPAddressAllow" shows what it allows`)
			return cli.Usage
		}
		cfg, problems := config.Load(*path, nil, passphrasePrompt(s), time.Now())
		if cfg == nil {
			printProblems(s.Err, problems)
			return cli.BadConfig
		}
		switch {
		case *check:
			return checkFirewall(s, cfg)
		case *format == "systemd":
			text, gaps := systemd.AddressFilter(cfg.Policy, cfg.Listen, cfg.Admin.Address)
			for _, g := range gaps {
				fmt.Fprintf(s.Err, "pgwicket firewall: warning: %s\n", g)
			}
			fmt.Fprint(s.Out, text)
		default:
			fmt.Fprint(s.Out, nftables.Rules(cfg.Policy, cfg.Listen, *action))
		}
		return cli.OK
	})
}

func checkFirewall(s cli.Streams, cfg *config.Config) int {
	differences, err := nftables.Compare(context.Background(), cfg.Policy, cfg.Listen)
	if err != nil {
		return cli.Fail(s, "firewall", err)
	}
	for _, d := range differences {
		fmt.Fprintln(s.Out, d)
	}
	if len(differences) > 0 {
		fmt.Fprintln(s.Out, "\nload the rules of the configuration with: pgwicket firewall --config FILE | nft -f -")
		return cli.Failed
	}
	fmt.Fprintln(s.Out, "the kernel has the rules of the configuration")
	return cli.OK
}
