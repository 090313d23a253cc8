package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/internal/gate"
	"pgwicket/internal/lock"
	"pgwicket/internal/phrase"
)

const sessionsHelp = `List the open sessions: source, user, database, rule, age, and the bytes in each
direction. The request goes by admin.socket, which only root and the account of the
gate can open, so it ignores admin.show_clients.

Exit status: 0 done, 1 the gate cannot be asked, 2 wrong usage.`

// answerTimeout is long enough for a busy gate.
const answerTimeout = 10 * time.Second

func sessionsCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "sessions", Short: "List the open sessions", Long: sessionsHelp}
	path := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON, with the subjects of the certificates")
	return runs(cmd, func() int {
		answer, err := askGate(*path, true, http.MethodGet, gate.SessionsPath, answerTimeout)
		if err != nil {
			return fail(s, cmd.Name(), err)
		}
		if *asJSON {
			fmt.Fprintf(s.out, "%s", answer)
			return exitOK
		}
		var all []gate.OpenSession
		if err := json.Unmarshal(answer, &all); err != nil {
			return fail(s, cmd.Name(), err)
		}
		printSessions(s, all)
		printLockCount(s, *path)
		return exitOK
	})
}

func printSessions(s streams, all []gate.OpenSession) {
	if len(all) == 0 {
		fmt.Fprintln(s.out, "no session is open")
		return
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSOURCE\tUSER\tDATABASE\tRULE\tOPEN FOR\tFROM CLIENT\tTO CLIENT")
	for _, one := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%v\t%s\t%s\n", one.ID, one.Source, one.User, one.Database, one.Rule,
			time.Since(one.Since).Round(time.Second), size(one.BytesFromClient), size(one.BytesToClient))
	}
	_ = w.Flush()
}

// printLockCount reminds of the locks, which are why somebody may be missing. An older
// gate has none.
func printLockCount(s streams, path string) {
	var locks []lock.Lock
	if answer, err := askGate(path, true, http.MethodGet, gate.LocksPath, answerTimeout); err == nil && json.Unmarshal(answer, &locks) == nil && len(locks) > 0 {
		fmt.Fprintf(s.out, "%s in force; see \"pgwicket locks\"\n", phrase.Count(len(locks), "lock"))
	}
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
