package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
	"pgwicket/internal/audit"
	"pgwicket/internal/budget"
	"pgwicket/internal/gate"
	"pgwicket/internal/phrase"
	"pgwicket/internal/sandbox"
)

const checkHelp = `Read the configuration and every file that it names, as serve does, and print each
mistake and each warning with its line. Then try what serve does next: open each
address, and as the account of the gate (if root runs it: the account in user) read the
files, write to the directories of state_dir, audit.file and admin.socket, connect to the
sockets of PostgreSQL, and look up the roles that rules name with +. What fails there is
a warning. A summary of a valid configuration follows. Nothing is changed, and a gate that
runs is not disturbed.

Exit status: 0 the configuration is valid, 2 wrong usage, 78 it is not.`

func checkCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check [file]", Short: "Check the configuration and every file that it names", Long: checkHelp,
		Example: "  pgwicket check --config pgwicket.yaml",
	}
	path := cli.ConfigFlag(cmd)
	cli.Runs(cmd, func() int { return check(s, *path) })
	cmd.ValidArgsFunction = nil // a file
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return nil
		case len(args) > 1:
			return fmt.Errorf("unexpected argument %q", args[1])
		case cmd.Flags().Changed("config"):
			return fmt.Errorf("unexpected argument %q, as --config names a file", args[0])
		}
		return cmd.Flags().Set("config", args[0])
	}
	return cmd
}

func check(s cli.Streams, path string) int {
	now := time.Now()
	cfg, problems := config.Load(path, nil, passphrasePrompt(s), now)
	var account *sandbox.Account
	if cfg != nil {
		var more []config.Problem
		account, more = sandbox.AccountFor(cfg, path)
		problems = append(problems, more...)
	}
	if cfg != nil {
		limit, err := budget.Limit("/proc/self", "/sys/fs/cgroup")
		problems = append(problems, memoryProblems(cfg, path, limit, err)...)
	}
	if cfg != nil && cfg.AuditFile != "" {
		if err := audit.Check(cfg.AuditFile); err != nil {
			problems = append(problems, config.Problem{File: cmp.Or(path, "the environment"), Key: "audit.file", Text: err.Error()})
		}
	}
	if cfg != nil && !config.Failed(problems) {
		problems = append(problems, tryAll(cfg, path, account)...)
		_, more := gate.TryGroups(context.Background(), cfg, account)
		problems = append(problems, more...)
	}
	printProblems(s.Err, problems)
	if config.Failed(problems) {
		return cli.BadConfig
	}
	describe(s.Out, cfg, now)
	if account != nil {
		fmt.Fprintf(s.Out, "becomes         %s, once it listens\n", account.Name)
	}
	fmt.Fprintf(s.Out, "%s is valid", cmp.Or(path, "the environment"))
	if n := len(problems); n > 0 {
		fmt.Fprintf(s.Out, ", with %s", phrase.Count(n, "warning"))
	}
	fmt.Fprintln(s.Out)
	return cli.OK
}

// memoryProblems warns of a full gate that needs more memory than its control group
// has; 0 is no limit.
func memoryProblems(cfg *config.Config, path string, limit int64, err error) []config.Problem {
	warning := func(text string) []config.Problem {
		return []config.Problem{{File: cmp.Or(path, "the environment"), Key: "limits.max_connections", Text: text, Warning: true}}
	}
	if err != nil {
		return warning("cannot read the memory limit of this control group: " + err.Error())
	}
	limits := cfg.Policy.Limits
	b, bounded := budget.Of(limits.Startups, limits.Sessions)
	switch {
	case limit == 0 || bounded && b.Total <= limit:
		return nil
	case !bounded:
		return warning(fmt.Sprintf("max_connections or max_startups is 0, so the gate may need more than the %s of memory that its control group allows", mebibytes(limit)))
	}
	return warning(fmt.Sprintf("a full gate needs up to %s of memory (%s for %d sessions, %s for %d unproved connections), and its control group allows %s: lower max_connections or max_startups, or raise that limit",
		mebibytes(b.Total), mebibytes(b.Sessions), limits.Sessions, mebibytes(b.Startups), limits.Startups, mebibytes(limit)))
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }

func printProblems(w io.Writer, problems []config.Problem) {
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
}

// describe prints what the gate would enforce.
func describe(w io.Writer, cfg *config.Config, now time.Time) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-15s %s\n", what, fmt.Sprintf(format, args...))
	}
	for _, a := range cfg.Listen {
		line("listens on", "%s", a)
	}
	for _, c := range cfg.TLS.Certificates {
		line("certificate", "%s, %s, until %s", c.Subject, c.Key, phrase.Until(c.NotAfter, now))
	}
	for _, l := range gate.Describe(cfg) {
		line(l.What, "%s", l.Text)
	}
	for _, c := range cfg.TLS.CRLs {
		next := "no next update"
		if !c.NextUpdate.IsZero() {
			next = "fresh until " + phrase.Until(c.NextUpdate, now)
		}
		if l := c.Problem; l != "" {
			next = "NOT IN USE"
		}
		line("revocation list", "%s, %s, %s", c.Issuer, phrase.Count(c.Entries, "entry"), next)
	}
	if b, ok := budget.Of(cfg.Policy.Limits.Startups, cfg.Policy.Limits.Sessions); ok {
		line("memory", "up to %s when full", mebibytes(b.Total))
	}
	for _, name := range cfg.Variables {
		line("environment", "%s", name)
	}
	if a := cfg.Admin; a.Address != "" {
		scheme := "http"
		if a.TLS != nil {
			scheme = "https"
		}
		line("metrics", "%s://%s/metrics", scheme, a.Address)
		line("status page", "%s://%s/", scheme, a.Address)
	}
	if cfg.Admin.Socket != "" {
		line("admin socket", "%s", cfg.Admin.Socket)
	}
}
