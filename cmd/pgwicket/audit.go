package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/audit"
	"pgwicket/internal/phrase"
)

const auditHelp = `The audit trail (audit.file) has one line of JSON for each decision of the gate, with a
sequence number and the SHA-256 of the line before it.`

func auditCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Verify the audit trail", Long: auditHelp}
	cmd.AddCommand(auditVerifyCommand(s))
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return errors.New("name a command: verify")
		case strings.ContainsAny(args[0], "./"):
			return fmt.Errorf("unknown command %q (did you mean verify %[1]s?)", args[0])
		}
		return cli.UnknownCommand(cmd, args[0])
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil }
	return cmd
}

const auditVerifyHelp = `Read the files of an audit trail, the rotated ones included (.gz unpacked), in any order,
and print each line that was changed, removed or moved. What the files cannot prove is
printed, too: lines that were cut off at the end leave no trace, so compare the newest
line with what the gate has reported (pgwicket_audit_head, the status page).

Exit status: 0 nothing is wrong, 1 a line was changed, removed or moved, or a file
cannot be read, 2 wrong usage.`

func auditVerifyCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify FILE...", Short: "Find changed, removed and moved lines", Long: auditVerifyHelp,
		Example: "  pgwicket audit verify /var/log/pgwicket/audit.log*",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || strings.TrimSpace(args[0]) == "" {
				return errors.New("name the files of the audit trail")
			}
			return nil
		},
	}
	cmd.RunE = func(_ *cobra.Command, files []string) error {
		v, err := audit.Verify(files)
		if err != nil {
			return cli.Status(cli.Fail(s, "audit verify", err))
		}
		for _, p := range v.Problems {
			fmt.Fprintln(s.Err, p)
		}
		if n := len(v.Problems); n > 0 {
			return cli.Status(cli.Fail(s, "audit verify", fmt.Errorf("%s in %s", phrase.Count(n, "problem"), phrase.Count(v.Lines, "line"))))
		}
		fmt.Fprintf(s.Out, "%s, %d to %d: none was changed, removed or moved\n", phrase.Count(v.Lines, "line"), v.First, v.Head.Sequence)
		fmt.Fprintf(s.Out, "newest line  %d, SHA-256 %s\n", v.Head.Sequence, v.Head.Hash)
		fmt.Fprintln(s.Out, "not proved   that no line follows it: compare it with pgwicket_audit_head or the status page")
		if v.First > 1 {
			fmt.Fprintf(s.Out, "not proved   what the lines before %d were: their file is not here\n", v.First)
		}
		for _, b := range v.Breaks {
			fmt.Fprintln(s.Out, b)
		}
		if v.Trails > 1 {
			fmt.Fprintf(s.Out, "not proved   that nothing is missing between %d trails: the file and its head were gone when a gate started\n", v.Trails)
		}
		return nil
	}
	return cmd
}
