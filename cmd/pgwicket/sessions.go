package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/adminclient"
	"pgwicket/internal/gate"
	"pgwicket/internal/lock"
	"pgwicket/internal/phrase"
)

const sessionsHelp = `List the open sessions, or those that meet all given conditions: age, time since the
last byte, state as in pg_stat_activity, source, user, database, rule, certificate, and
the bytes in each direction. The request goes by admin.socket, which only root and the
account of the gate can open, so it ignores admin.show_clients.

Exit status: 0 done, 1 the gate cannot be asked, 2 wrong usage.`

// watchInterval is how often sessions --watch refreshes.
const watchInterval = 2 * time.Second

func sessionsCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sessions", Short: "List the open sessions", Long: sessionsHelp,
		Example: "  pgwicket sessions --user app --sort idle",
	}
	path := cli.ConfigFlag(cmd)
	query := url.Values{}
	filterFlags(cmd, query)
	asJSON := cmd.Flags().Bool("json", false, "print JSON, with more about the certificates")
	order := cli.ChoiceFlag(cmd, "sort", "the `order`, the largest first but for names", "age", "idle", "bytes", "state", "source", "user", "database", "rule", "certificate")
	watch := cmd.Flags().Bool("watch", false, "print again every 2 seconds")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *watch && *asJSON {
			return errors.New("--watch and --json exclude each other")
		}
		return checkFilter(query)
	}
	return cli.Runs(cmd, func() int {
		for {
			answer, err := adminclient.Ask(*path, http.MethodGet, gate.SessionsPath+"?"+query.Encode(), adminclient.Timeout)
			if err != nil {
				return cli.Fail(s, cmd.Name(), err)
			}
			if *asJSON {
				fmt.Fprintf(s.Out, "%s", answer)
				return cli.OK
			}
			var all []gate.OpenSession
			if err := json.Unmarshal(answer, &all); err != nil {
				return cli.Fail(s, cmd.Name(), err)
			}
			sortSessions(all, *order)
			if *watch {
				clearScreen(s)
				fmt.Fprintf(s.Out, "%s, %s\n", time.Now().Format(time.DateTime), phrase.Count(len(all), "session"))
			}
			printSessions(s, all)
			printLockCount(s, *path)
			if !*watch {
				return cli.OK
			}
			time.Sleep(watchInterval)
		}
	})
}

// checkFilter checks the conditions of filterFlags.
func checkFilter(query url.Values) error {
	if _, err := lock.ParseFilter(query); err != nil {
		return errors.New("--" + err.Error())
	}
	return nil
}

// clearScreen clears a terminal; elsewhere the lines follow each other.
func clearScreen(s cli.Streams) {
	if f, ok := s.Out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(s.Out, "\x1b[H\x1b[2J")
	}
}

// sortSessions sorts sessions, which come with the oldest first.
func sortSessions(all []gate.OpenSession, order string) {
	compare := map[string]func(a, b *gate.OpenSession) int{
		"idle": func(a, b *gate.OpenSession) int { return cmp.Compare(b.IdleSeconds, a.IdleSeconds) },
		"bytes": func(a, b *gate.OpenSession) int {
			return cmp.Compare(b.BytesFromClient+b.BytesToClient, a.BytesFromClient+a.BytesToClient)
		},
		"state":       func(a, b *gate.OpenSession) int { return cmp.Compare(a.State, b.State) },
		"source":      func(a, b *gate.OpenSession) int { return cmp.Compare(a.Source, b.Source) },
		"user":        func(a, b *gate.OpenSession) int { return cmp.Compare(a.User, b.User) },
		"database":    func(a, b *gate.OpenSession) int { return cmp.Compare(a.Database, b.Database) },
		"rule":        func(a, b *gate.OpenSession) int { return cmp.Compare(a.Rule, b.Rule) },
		"certificate": func(a, b *gate.OpenSession) int { return cmp.Compare(a.CertSubject, b.CertSubject) },
	}[order]
	if compare != nil {
		slices.SortStableFunc(all, func(a, b gate.OpenSession) int { return compare(&a, &b) })
	}
}

func printSessions(s cli.Streams, all []gate.OpenSession) {
	if len(all) == 0 {
		fmt.Fprintln(s.Out, "no session is open")
		return
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tAGE\tIDLE\tSTATE\tSOURCE\tUSER\tDATABASE\tRULE\tCERTIFICATE\tFROM CLIENT\tTO CLIENT")
	for _, one := range all {
		idle := time.Duration(one.IdleSeconds * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(w, "%s\t%v\t%v\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", one.ID, time.Since(one.Since).Round(time.Second), idle, one.State, one.Source,
			one.User, one.Database, cmp.Or(one.Rule, "-"), cmp.Or(one.CertSubject, "none"), size(one.BytesFromClient), size(one.BytesToClient))
	}
	_ = w.Flush()
}

// printLockCount reminds of the locks, which are why somebody may be missing. An older
// gate has none.
func printLockCount(s cli.Streams, path string) {
	var locks []lock.Lock
	if answer, err := adminclient.Ask(path, http.MethodGet, gate.LocksPath, adminclient.Timeout); err == nil && json.Unmarshal(answer, &locks) == nil && len(locks) > 0 {
		fmt.Fprintf(s.Out, "%s in force; see \"pgwicket locks\"\n", phrase.Count(len(locks), "lock"))
	}
}

const terminateHelp = `End the open sessions that meet all given conditions, at once: their query is cancelled,
and the client gets FATAL 57P01, as from pg_terminate_backend. It may connect again;
"pgwicket lock" refuses it, too. To end all open sessions needs --yes. The request
goes by admin.socket; the log names the account that has sent it.

Exit status: 0 terminated, 1 none matches, or the gate cannot be asked, 2 wrong usage.`

func terminateCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "terminate", Short: "End open sessions", Long: terminateHelp,
		Example: "  pgwicket terminate --session 8a0vq2cqj8o3k-1042\n  pgwicket terminate --user app --source 10.20.0.7",
	}
	path := cli.ConfigFlag(cmd)
	query := url.Values{}
	filterFlags(cmd, query)
	yes := cmd.Flags().Bool("yes", false, "also if it matches all open sessions")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if len(query) == 0 {
			return errors.New("name what to terminate, for example --session or --user")
		}
		if *yes {
			query.Set("yes", "1")
		}
		return checkFilter(query)
	}
	return cli.Runs(cmd, func() int {
		var t gate.Terminated
		if err := adminclient.Post(*path, gate.TerminatePath, query, &t); err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		if t.Terminated == 0 {
			return cli.Fail(s, cmd.Name(), errors.New("no open session matches"))
		}
		fmt.Fprintf(s.Out, "terminated %s\n", phrase.Count(t.Terminated, "session"))
		return cli.OK
	})
}

// size formats a number of bytes.
func size(bytes int64) string {
	const kilo = 1024
	if bytes < kilo {
		return fmt.Sprintf("%d B", bytes)
	}
	n, unit := float64(bytes)/kilo, 0
	for ; n >= kilo && unit < len("KMGTP")-1; unit++ {
		n /= kilo
	}
	return fmt.Sprintf("%.1f %ciB", n, "KMGTP"[unit])
}
