package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/adminclient"
	"pgwicket/internal/gate"
	"pgwicket/internal/lock"
	"pgwicket/internal/phrase"
)

const lockHelp = `Refuse clients at once, and end their open sessions within a second, whatever the
rules and the certificates say: by the common name, serial number, issuer or public
key of the certificate, by user, database, network or session. A client must meet all
conditions that are given. It gets the same error as a client that a rule rejects; the
reason is only in the log. A lock needs an end: --for, --until or --forever.

The gate keeps its locks in state_dir, so they survive a restart, a reload and an
upgrade. A lock that would match no open session now, or all of them, is made only
with --yes. The request goes by admin.socket; the log names the account that has sent
it.

Exit status: 0 locked, 1 not locked, 2 wrong usage.`

func lockCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "lock", Short: "Refuse clients, and end their sessions", Long: lockHelp,
		Example: `  pgwicket lock --cn alice --for 2h --reason "stolen laptop"
  pgwicket lock --serial 1A2B --issuer "CN=Example CA" --forever`,
	}
	path := cli.ConfigFlag(cmd)
	query := url.Values{}
	filterFlags(cmd, query)
	keep := func(name, usage string) {
		cmd.Flags().Var(&queryValue{query, name}, name, usage)
		cli.CompleteWords(cmd, name)
	}
	keep("for", "the `duration` of the lock, as in 30m or 2h")
	keep("until", "the `time` at which the lock ends, as in 2027-01-31T12:00:00Z")
	forever := cmd.Flags().Bool("forever", false, "no end, until pgwicket unlock")
	keep("reason", "the reason, a `text` for the log")
	yes := cmd.Flags().Bool("yes", false, "lock also if no open session matches, or all of them do")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *forever {
			query.Set("forever", "1")
		}
		if *yes {
			query.Set("yes", "1")
		}
		f, err := lock.ParseFilter(query)
		switch {
		case err != nil:
			return errors.New("--" + err.Error())
		case f.IsZero():
			return errors.New("name what to lock, for example --cn or --serial")
		}
		ends := 0
		for _, name := range []string{"for", "until", "forever"} {
			if query.Has(name) {
				ends++
			}
		}
		if ends != 1 {
			return errors.New("name one of --for, --until and --forever")
		}
		return nil
	}
	return cli.Runs(cmd, func() int {
		var l gate.Locked
		if err := adminclient.Post(*path, gate.LockPath, query, &l); err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		fmt.Fprintf(s.Out, "locked: %s, %s, %s\n", l.Lock.Describe(), l.Lock.Ends(), endsNow(l.Sessions))
		if !l.Persistent {
			fmt.Fprintln(s.Err, "pgwicket lock: there is no state_dir, so this lock ends when the gate stops")
		}
		return cli.OK
	})
}

// endsNow says how many sessions end.
func endsNow(n int) string {
	if n == 1 {
		return "1 open session ends"
	}
	return phrase.Count(n, "open session") + " end"
}

// filterFlags adds a flag for each condition of a filter, which writes into query.
func filterFlags(cmd *cobra.Command, query url.Values) {
	usages := map[string]string{
		"cn":       "the common `name` of the certificate",
		"serial":   "the serial number of the certificate in `hexadecimal`",
		"issuer":   "the issuer of the certificate, a `name` in the form of RFC 2253",
		"spki":     "the `SHA-256` of the public key of the certificate, as explain prints it",
		"user":     "the `role` that the client asks for",
		"database": "the `database` that the client asks for",
		"source":   "the `network` that the client comes from, or one address",
		"session":  "the `id` of a session",
	}
	for _, name := range lock.Conditions() {
		cmd.Flags().Var(&queryValue{query, name}, name, usages[name])
		cli.CompleteWords(cmd, name)
	}
}

// queryValue is a flag that is a parameter of a request. An empty one is there, too, so
// that the gate can refuse it.
type queryValue struct {
	query url.Values
	name  string
}

func (v *queryValue) String() string {
	if v.query == nil {
		return "" // the zero value, which pflag asks for its default
	}
	return v.query.Get(v.name)
}

func (*queryValue) Type() string { return "text" }

func (v *queryValue) Set(text string) error {
	v.query.Add(v.name, text)
	return nil
}

const unlockHelp = `End a lock at once. "pgwicket locks" prints the ids. Sessions that the lock has ended do
not come back. The request goes by admin.socket; the log names the account that has
sent it.

Exit status: 0 unlocked, 1 not unlocked, 2 wrong usage.`

func unlockCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "unlock ID", Short: "End a lock", Long: unlockHelp,
		Example: "  pgwicket unlock 3fa8c01d",
	}
	path := cli.ConfigFlag(cmd)
	cli.Runs(cmd, nil)
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return errors.New("name one lock by its id, which \"pgwicket locks\" prints")
		}
		return nil
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		var l lock.Lock
		if err := adminclient.Post(*path, gate.UnlockPath, url.Values{"id": args}, &l); err != nil {
			return cli.Status(cli.Fail(s, cmd.Name(), err))
		}
		fmt.Fprintf(s.Out, "unlocked: %s\n", l.Describe())
		return nil
	}
	return cmd
}

const locksHelp = `List the locks in force: id, what each matches, its end, who has made it and why. The
request goes by admin.socket.

Exit status: 0 done, 1 the gate cannot be asked, 2 wrong usage.`

func locksCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "locks", Short: "List the locks in force", Long: locksHelp}
	path := cli.ConfigFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	return cli.Runs(cmd, func() int {
		answer, err := adminclient.Ask(*path, http.MethodGet, gate.LocksPath, adminclient.Timeout)
		if err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		if *asJSON {
			fmt.Fprintf(s.Out, "%s", answer)
			return cli.OK
		}
		var all []lock.Lock
		if err := json.Unmarshal(answer, &all); err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		printLocks(s, all)
		return cli.OK
	})
}

func printLocks(s cli.Streams, all []lock.Lock) {
	if len(all) == 0 {
		fmt.Fprintln(s.Out, "no lock is in force")
		return
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tLOCKED\tUNTIL\tBY\tREASON")
	for _, l := range all {
		until := "forever"
		if l.Until != nil {
			until = l.Until.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.ID, l.Filter, until, l.By, l.Reason)
	}
	_ = w.Flush()
}
