package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/adminclient"
	"pgwicket/internal/gate"
	"pgwicket/internal/phrase"
)

const backoffsHelp = `List the clients that have failed to authenticate: user, source, the public key of
the certificate, the number of failures in a row, and until when they are refused
(limits.max_auth_failures, limits.auth_refusal). The request goes by admin.socket.

Exit status: 0 done, 1 the gate cannot be asked, 2 wrong usage.`

func backoffsCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "backoffs", Short: "List the clients that are held up after failed logins", Long: backoffsHelp}
	path := cli.ConfigFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.AddCommand(liftCommand(s))
	return cli.Runs(cmd, func() int {
		answer, err := adminclient.Ask(*path, http.MethodGet, gate.BackoffsPath, adminclient.Timeout)
		if err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		if *asJSON {
			fmt.Fprintf(s.Out, "%s", answer)
			return cli.OK
		}
		var all []gate.Backoff
		if err := json.Unmarshal(answer, &all); err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		printBackoffs(s, all)
		return cli.OK
	})
}

func printBackoffs(s cli.Streams, all []gate.Backoff) {
	if len(all) == 0 {
		fmt.Fprintln(s.Out, "no client is held up")
		return
	}
	const keyShown = 16 // digits, enough to tell keys apart
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "USER\tSOURCE\tKEY\tFAILURES\tREFUSED FOR")
	for _, b := range all {
		key, left := "none", "not refused"
		if b.SPKI != "" {
			key = b.SPKI[:min(keyShown, len(b.SPKI))]
		}
		if b.Refused {
			left = time.Until(b.Until).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", b.User, b.Source, key, b.Failures, left)
	}
	_ = w.Flush()
}

const liftHelp = `Forget the failed authentications of a user, of a source, or of a user from a source,
so that the next attempt is neither delayed nor refused. The gate logs it. The request
goes by admin.socket.

Exit status: 0 done, 1 the gate cannot be asked, 2 wrong usage.`

func liftCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "lift", Short: "Forget failed logins", Long: liftHelp,
		Example: "  pgwicket backoffs lift --user app --source 10.20.0.7",
	}
	path := cli.ConfigFlag(cmd)
	var user, source string
	cli.TextFlag(cmd, &user, "user", "", "the `role` of the startup packet")
	cli.TextFlag(cmd, &source, "source", "", "the `address` of the client")
	all := cmd.Flags().Bool("all", false, "of all users and sources")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *all == (user != "" || source != "") {
			return errors.New("name --user, --source or both, or else --all")
		}
		if _, err := netip.ParseAddr(source); source != "" && err != nil {
			return fmt.Errorf("--source: %q is not an IP address", source)
		}
		return nil
	}
	return cli.Runs(cmd, func() int {
		query := url.Values{"user": {user}, "source": {source}}
		answer, err := adminclient.Ask(*path, http.MethodPost, gate.LiftBackoffsPath+"?"+query.Encode(), adminclient.Timeout)
		if err != nil {
			return cli.Fail(s, "backoffs lift", err)
		}
		var l gate.Lifted
		if err := json.Unmarshal(answer, &l); err != nil {
			return cli.Fail(s, "backoffs lift", err)
		}
		fmt.Fprintf(s.Out, "lifted %s\n", phrase.Count(l.Lifted, "back-off"))
		return cli.OK
	})
}
