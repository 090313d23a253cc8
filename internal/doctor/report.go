package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"pgwicket/internal/phrase"
)

// Report is the result of an examination.
type Report struct {
	Config   string // the file; empty: the environment
	Time     time.Time
	Findings []Finding
}

// Count returns how many findings have a status.
func (r Report) Count(s Status) (n int) {
	for _, f := range r.Findings {
		if f.Status == s {
			n++
		}
	}
	return n
}

// Worst returns the worst status of all findings; Pass if there is none.
func (r Report) Worst() Status {
	worst := Pass
	for _, s := range statuses() {
		if r.Count(s) > 0 {
			worst = s
		}
	}
	return worst
}

// WriteText writes a checklist for people.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	last := ""
	for _, f := range r.Findings {
		if group := strings.TrimSpace(f.Group + " " + f.Subject); group != last {
			fmt.Fprintf(&b, "%s\n", group)
			last = group
		}
		fmt.Fprintf(&b, "  %-4s  %-20s %s\n", strings.ToUpper(string(f.Status)), f.Check, f.Reason)
		if f.Where != "" {
			fmt.Fprintf(&b, "%28s where  %s\n", "", f.Where)
		}
		if f.Fix != "" {
			fmt.Fprintf(&b, "%28s fix    %s\n", "", f.Fix)
		}
	}
	fmt.Fprintf(&b, "\n%d passed, %s, %s, %d skipped\n", r.Count(Pass),
		phrase.Count(r.Count(Warn), "warning"), phrase.Count(r.Count(Fail), "failure"), r.Count(Skip))
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes one object for programs.
func (r Report) WriteJSON(w io.Writer) error {
	counts := make(map[Status]int)
	for _, s := range statuses() {
		counts[s] = r.Count(s)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		Config   string         `json:"config"`
		Time     time.Time      `json:"time"`
		Worst    Status         `json:"worst"`
		Counts   map[Status]int `json:"counts"`
		Findings []Finding      `json:"findings"`
	}{r.Config, r.Time.UTC().Truncate(time.Second), r.Worst(), counts, r.Findings})
}
