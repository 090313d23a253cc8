package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"
)

const sessionsHelp = `List the open sessions: who, from where, by which rule, since when, and how many
bytes each way. It goes by admin.socket, which the gate's account and root can
open, so it shows them whatever admin.show_clients says.

Exit status: 0 done, 1 the gate cannot be asked, 2 wrong usage.
`

// answerTime is long enough for a gate that is busy.
const answerTime = 10 * time.Second

func sessions(args []string, s streams) int {
	f := flags("sessions")
	path := configFlag(f)
	asJSON := f.Bool("json", false, "print them as JSON, with the names in the certificates")
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	d, err := findDoor(*path, true)
	if err != nil {
		return complain(s, f.Name(), err)
	}
	answer, err := d.ask(http.MethodGet, sessionsPath, answerTime)
	if err != nil {
		return complain(s, f.Name(), err)
	}
	if *asJSON {
		fmt.Fprintf(s.out, "%s", answer)
		return exitOK
	}
	var all []openSession
	if err := json.Unmarshal(answer, &all); err != nil {
		return complain(s, f.Name(), err)
	}
	if len(all) == 0 {
		fmt.Fprintln(s.out, "no session is open")
		return exitOK
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSOURCE\tUSER\tDATABASE\tRULE\tOPEN FOR\tFROM CLIENT\tTO CLIENT")
	for _, one := range all {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%v\t%s\t%s\n", one.ID, one.Source, one.User, one.Database, one.Rule,
			time.Since(one.Since).Round(time.Second), size(one.BytesFromClient), size(one.BytesToClient))
	}
	_ = w.Flush()
	return exitOK
}

// size is a number of bytes that one can read.
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
