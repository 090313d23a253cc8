package main

import (
	"fmt"
	"net/http"
	"time"
)

const waitHelp = `Wait until the gate lets newcomers in, by admin.socket or else by admin.address.
It need not have been started yet.

  pgwicket wait --config pgwicket.yaml && psql ...

Exit status: 0 it is ready, 1 it was not in time, 2 wrong usage.
`

// waitPause is between two questions.
const waitPause = 100 * time.Millisecond

func waitReady(args []string, s streams) int {
	f := flags("wait")
	path := configFlag(f)
	timeout := f.Duration("timeout", 30*time.Second, "how long to wait at most (default 30s)")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	d, err := findDoor(*path, false)
	if err != nil {
		return complain(s, f.Name(), err)
	}
	end := time.Now().Add(*timeout)
	for {
		left := time.Until(end)
		if _, err = d.ask(http.MethodGet, readyPath, max(left, waitPause)); err == nil {
			fmt.Fprintln(s.out, "ready")
			return exitOK
		}
		if left <= 0 {
			return complain(s, f.Name(), fmt.Errorf("after %v: %w", *timeout, err))
		}
		time.Sleep(min(waitPause, left))
	}
}
