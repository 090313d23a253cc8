package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/config"
	"pgwicket/internal/adminclient"
	"pgwicket/internal/gate"
	"pgwicket/internal/status"
)

const reloadHelp = `Make the gate read its configuration again, with every file that it names, and wait
for the result. As with SIGHUP, everything is loaded or nothing. Mistakes and
warnings are printed with their file and line, and then the changed keys. It also
loads what a reload by a changed file has put off, because it would allow more. The
request goes by admin.socket.

Exit status: 0 reloaded, 1 the reload failed and the configuration is unchanged, or
the gate cannot be asked, 2 wrong usage.`

func reloadCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "reload", Short: "Reload the configuration and print the result", Long: reloadHelp}
	path := cli.ConfigFlag(cmd)
	timeout := cli.TimeoutFlag(cmd, gate.MaxReload, "how long to wait for the result")
	return cli.Runs(cmd, func() int {
		answer, err := adminclient.Ask(*path, http.MethodPost, gate.ReloadPath, *timeout)
		if err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		var r status.Reload
		if err := json.Unmarshal(answer, &r); err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		return printReload(s, r)
	})
}

func printReload(s cli.Streams, r status.Reload) int {
	for _, p := range r.Problems {
		fmt.Fprintln(s.Err, config.Problem(p))
	}
	if !r.Successful {
		return cli.Fail(s, "reload", fmt.Errorf("failed; the configuration of %s is unchanged", r.InForceSince.UTC().Format(time.RFC3339)))
	}
	changed := "no file has changed"
	if len(r.Files) > 0 {
		changed = "changed: " + strings.Join(r.Files, ", ")
	}
	fmt.Fprintf(s.Out, "reloaded; %s\n", changed)
	for _, c := range r.Changes {
		fmt.Fprintf(s.Out, "  %s\n", c)
	}
	return cli.OK
}
