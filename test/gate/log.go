package gate

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// What these programs look for in the log, and in the FATAL errors that clients get.
const (
	MessageBegan   = "session began"
	MessageEnded   = "session ended"
	MessageDropped = "log lines dropped"
	MessageRefused = "connection refused"
	MessagePanic   = "panic in a session; please report this"

	FatalRevoked    = "terminating connection: client certificate was revoked" // 57P01; more may follow
	FatalTerminated = "terminating connection due to administrator command"    // 57P01, PostgreSQL's own words
	FatalLocked     = "pgwicket rejects host"                                  // in a 28000; in a 57P01 after "terminating connection: "
	FatalNoRule     = "no pgwicket rule for host"                              // likewise
	FatalBackoff    = "failed authentications"                                 // in a 28000
)

// Record is a line of the log.
type Record map[string]any

// Is says whether it has that message and these attributes, as pairs.
func (r Record) Is(message string, pairs ...string) bool {
	if r["msg"] != message {
		return false
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if fmt.Sprint(r[pairs[i]]) != pairs[i+1] {
			return false
		}
	}
	return true
}

// Records returns what the gate has logged so far, through all its launches.
func (g *Gate) Records() (all []Record) {
	for line := range bytes.Lines(g.RawLog()) {
		var r Record
		if json.Unmarshal(line, &r) == nil {
			all = append(all, r)
		}
	}
	return all
}

// CheckLog fails if a log has a data race, a panic, an internal error or a line
// that is not JSON.
func CheckLog(raw []byte) error {
	for line := range bytes.Lines(raw) {
		var r Record
		text := string(bytes.TrimSpace(line))
		switch {
		case text == "":
		case json.Unmarshal(line, &r) != nil:
			i := bytes.Index(raw, line)
			what := "a line that is not JSON"
			if bytes.HasPrefix(line, []byte("==================")) {
				what = "a data race"
			}
			return fmt.Errorf("the log has %s:\n%s", what, raw[i:min(len(raw), i+4000)])
		case r["msg"] == MessagePanic, r["outcome"] == "internal_error":
			return fmt.Errorf("an error in the gate: %.300s", text)
		}
	}
	return nil
}
