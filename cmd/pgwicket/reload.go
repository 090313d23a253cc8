package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"pgwicket/config"
	"pgwicket/internal/status"
)

const reloadHelp = `Have the gate read its configuration again, and every file that it names, and
wait for the result. As at SIGHUP it is put into force whole or not at all; what
is wrong or to be warned of is printed with its file and line. It goes by
admin.socket.

Exit status: 0 reloaded, 1 it failed, and the configuration of before stays in
force, or the gate cannot be asked, 2 wrong usage.
`

func askReload(args []string, s streams) int {
	f := flags("reload")
	path := configFlag(f)
	timeout := f.Duration("timeout", longestReload, "how long to wait for the result (default 5m)")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	d, err := findDoor(*path, true)
	if err != nil {
		return complain(s, f.Name(), err)
	}
	answer, err := d.ask(http.MethodPost, reloadPath, *timeout)
	if err != nil {
		return complain(s, f.Name(), err)
	}
	var r status.Reload
	if err := json.Unmarshal(answer, &r); err != nil {
		return complain(s, f.Name(), err)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(s.err, config.Problem(p))
	}
	if !r.Successful {
		return complain(s, f.Name(), fmt.Errorf("it failed; the configuration of %s stays in force", r.InForceSince.UTC().Format(time.RFC3339)))
	}
	changed := "no file has changed"
	if len(r.Files) > 0 {
		changed = "changed: " + strings.Join(r.Files, ", ")
	}
	fmt.Fprintf(s.out, "reloaded; %s\n", changed)
	return exitOK
}
