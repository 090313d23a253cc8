package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/adminclient"
)

const healthcheckHelp = `Ask the gate whether it is alive, by admin.socket or else by admin.address. It is
meant for the health check of a container.

Neither this nor --ready checks whether PostgreSQL is up: restarting the gate would
not bring it back.

Exit status: 0 yes, 1 no, or no answer, 2 wrong usage.`

// The paths of the probes.
const (
	alivePath = "/livez"
	readyPath = "/readyz"
)

func healthcheckCommand(s cli.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "healthcheck", Short: "Ask whether the gate is alive", Long: healthcheckHelp,
		Example: `  pgwicket healthcheck --config pgwicket.yaml
  HEALTHCHECK CMD ["pgwicket", "healthcheck", "--config", "/etc/pgwicket/pgwicket.yaml"]`,
	}
	path := cli.ConfigFlag(cmd)
	ready := cmd.Flags().Bool("ready", false, "ask whether it admits clients, which it does not while it shuts down")
	timeout := cli.TimeoutFlag(cmd, 5*time.Second, "how long to wait for the answer")
	return cli.Runs(cmd, func() int {
		probe := alivePath
		if *ready {
			probe = readyPath
		}
		c, err := adminclient.New(*path, false)
		if err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		answer, err := c.Ask(http.MethodGet, probe, *timeout)
		if err != nil {
			return cli.Fail(s, cmd.Name(), err)
		}
		fmt.Fprintf(s.Out, "%s", answer)
		return cli.OK
	})
}
