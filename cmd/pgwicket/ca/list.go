package ca

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/pki"
	"pgwicket/internal/printable"
)

func crlCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "crl", Short: "Make a new revocation list",
		Long: `Make a new revocation list before the old one ends: a gate refuses every client when its
list has ended. pgwicket-ca-crl.timer does it every day. The root's list is made with it
when half of its year is over, if the root's key is there.` + exitHelp,
		Example: "  pgwicket ca crl --if-older 1d",
	}
	cmd.Args = cobra.NoArgs
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	days := cmd.Flags().Int("days", 0, "how many `days` it is valid (default as many as the last one, at first 7)")
	cli.CompleteWords(cmd, "days")
	var older ageFlag
	cmd.Flags().Var(&older, "if-older", "only if the list is older than this `age`, such as 1d or 12h, or lacks a revoked certificate")
	cli.CompleteWords(cmd, "if-older")
	var publish string
	cli.FileFlag(cmd, &publish, "publish", "copy the lists into this `file` from now on")
	f.withCA(s, cmd, func(c *pki.CA, _ []string) error {
		if publish != "" {
			if err := c.Publish(publish); err != nil {
				return err
			}
		}
		if age, ok := c.ListAge(); older == 0 || !ok || age > time.Duration(older) {
			if err := c.WriteLists(*days); err != nil {
				return err
			}
		}
		fmt.Fprintf(s.Out, "%s until %s\n", c.ListFile(), c.ListEnds().Format(time.RFC3339))
		return errors.Join(c.CheckRootList(), c.CheckEnds())
	})
	return cmd
}

// ageFlag is a duration that may be in days.
type ageFlag time.Duration

func (a *ageFlag) String() string { return "" }

func (*ageFlag) Type() string { return "age" }

func (a *ageFlag) Set(text string) error {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d <= 0 || d > 36500*24*time.Hour {
		return errors.New("it must be a time such as 30d or 12h")
	}
	*a = ageFlag(d)
	return nil
}

func listCommand(s cli.Streams, f *commonFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the certificates",
		Long: `List the certificates that were issued: serial number, status, end, name and subject. With
--expiring, those of the CA itself are among them.` + exitHelp,
	}
	cmd.Args = cobra.NoArgs
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	var expiring ageFlag
	cmd.Flags().Var(&expiring, "expiring", "only valid ones that end within this `time`, such as 30d")
	cli.CompleteWords(cmd, "expiring")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	f.withCA(s, cmd, func(c *pki.CA, _ []string) error {
		all := []pki.Entry{}
		for _, e := range c.Authorities() {
			if expiring > 0 && time.Until(e.Expires) < time.Duration(expiring) {
				all = append(all, e)
			}
		}
		for _, e := range c.List() {
			if expiring == 0 || e.Status == pki.StatusValid && time.Until(e.Expires) < time.Duration(expiring) {
				all = append(all, e)
			}
		}
		if *asJSON {
			e := json.NewEncoder(s.Out)
			e.SetIndent("", "  ")
			return e.Encode(all)
		}
		w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "SERIAL\tSTATUS\tUNTIL\tNAME\tSUBJECT")
		for _, e := range all {
			status := e.Status
			if e.Reason != "" {
				status += " (" + e.Reason + ")"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Serial, status, e.Expires.Format(time.DateOnly), printable.Escape(e.Name), printable.Escape(e.Subject))
		}
		return w.Flush()
	})
	return cmd
}
