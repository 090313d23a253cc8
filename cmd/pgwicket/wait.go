package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/adminclient"
)

const waitHelp = `Wait until the gate admits clients, by admin.socket or else by admin.address. The
gate need not have been started yet.

Exit status: 0 it is ready, 1 it was not in time, 2 wrong usage.`

// waitInterval is the time between two requests.
const waitInterval = 100 * time.Millisecond

func waitCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait", Short: "Wait until the gate is ready", Long: waitHelp,
		Example: "  pgwicket wait --config pgwicket.yaml && psql ...",
	}
	path := cli.ConfigFlag(cmd)
	timeout := cli.TimeoutFlag(cmd, 30*time.Second, "how long to wait")
	return cli.Runs(cmd, func() int {
		c, err := adminclient.New(*path, false)
		if err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		end := time.Now().Add(*timeout)
		for {
			left := time.Until(end)
			if _, err = c.Ask(http.MethodGet, readyPath, max(left, waitInterval)); err == nil {
				fmt.Fprintln(s.Out, "ready")
				return cli.OK
			}
			if left <= 0 {
				return cli.Fail(s, cmd.Name(), fmt.Errorf("after %v: %w", *timeout, err))
			}
			time.Sleep(min(waitInterval, left))
		}
	})
}
