package main

import (
	"fmt"
	"net/http"
	"time"
)

const healthcheckHelp = `Ask the gate whether it is alive, by admin.socket or else by admin.address, for
the health check of a container:

  HEALTHCHECK CMD ["pgwicket", "healthcheck", "--config", "/etc/pgwicket/pgwicket.yaml"]

Neither this nor --ready asks whether PostgreSQL is there: to start the gate anew
would not bring it back.

Exit status: 0 yes, 1 no, or nobody answers, 2 wrong usage.
`

// The paths of the probes.
const (
	alivePath = "/livez"
	readyPath = "/readyz"
)

func healthcheck(args []string, s streams) int {
	f := flags("healthcheck")
	path := configFlag(f)
	ready := f.Bool("ready", false, "ask whether it lets newcomers in, which it does not while it shuts down")
	timeout := f.Duration("timeout", 5*time.Second, "how long to wait for the answer (default 5s)")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	d, err := findDoor(*path, false)
	if err != nil {
		return complain(s, f.Name(), err)
	}
	question := alivePath
	if *ready {
		question = readyPath
	}
	answer, err := d.ask(http.MethodGet, question, *timeout)
	if err != nil {
		return complain(s, f.Name(), err)
	}
	fmt.Fprintf(s.out, "%s", answer)
	return exitOK
}
