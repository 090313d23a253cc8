package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

const waitHelp = `Wait until the gate admits clients, by admin.socket or else by admin.address. The
gate need not have been started yet.

Exit status: 0 it is ready, 1 it was not in time, 2 wrong usage.`

// waitInterval is the time between two requests.
const waitInterval = 100 * time.Millisecond

func waitCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait", Short: "Wait until the gate is ready", Long: waitHelp,
		Example: "  pgwicket wait --config pgwicket.yaml && psql ...",
	}
	path := configFlag(cmd)
	timeout := timeoutFlag(cmd, 30*time.Second, "how long to wait")
	return runs(cmd, func() int {
		c, err := newClient(*path, false)
		if err != nil {
			return fail(s, cmd.Name(), err)
		}
		end := time.Now().Add(*timeout)
		for {
			left := time.Until(end)
			if _, err = c.ask(http.MethodGet, readyPath, max(left, waitInterval)); err == nil {
				fmt.Fprintln(s.out, "ready")
				return exitOK
			}
			if left <= 0 {
				return fail(s, cmd.Name(), fmt.Errorf("after %v: %w", *timeout, err))
			}
			time.Sleep(min(waitInterval, left))
		}
	})
}
