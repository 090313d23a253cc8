package report

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"pgwicket/internal/printable"
)

// Report is the result of an examination.
type Report struct {
	Config   string // the file of the gate; empty: the environment, or no gate
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
	for _, s := range Statuses() {
		if r.Count(s) > 0 {
			worst = s
		}
	}
	return worst
}

// with returns the findings of a status in their order.
func (r Report) with(s Status) (out []Finding) {
	for _, f := range r.Findings {
		if f.Status == s {
			out = append(out, f)
		}
	}
	return out
}

// printable returns the report as people and programs may read it: whatever a server, a file
// or an older report has put into it, nothing in it is more than text. Only a fix has several
// lines.
func (r Report) printable() Report {
	r.Config = printable.Escape(r.Config)
	r.Findings = slices.Clone(r.Findings)
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Subject, f.Where, f.Reason, f.Waiver = printable.Escape(f.Subject), printable.Escape(f.Where), printable.Escape(f.Reason), printable.Escape(f.Waiver)
		f.Group, f.Check = printable.Escape(f.Group), printable.Escape(f.Check)
		f.Objects = slices.Clone(f.Objects)
		for j, o := range f.Objects {
			f.Objects[j] = printable.Escape(o)
		}
		lines := strings.Split(f.Fix, "\n")
		for j, l := range lines {
			lines[j] = printable.Escape(l)
		}
		f.Fix = strings.Join(lines, "\n")
	}
	return r
}

// worstFirst returns the statuses of findings in the order of a report for people.
func worstFirst() []Status { return []Status{Fail, Warn, Note, Skip} }

// document is the JSON of a report.
type document struct {
	Config   string         `json:"config"`
	Time     time.Time      `json:"time"`
	Worst    Status         `json:"worst"`
	Counts   map[Status]int `json:"counts"`
	Findings []Finding      `json:"findings"`
}

// WriteJSON writes one object for programs.
func (r Report) WriteJSON(w io.Writer) error {
	r = r.printable()
	counts := make(map[Status]int)
	for _, s := range Statuses() {
		counts[s] = r.Count(s)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(document{r.Config, r.Time.UTC().Truncate(time.Second), r.Worst(), counts, r.Findings})
}
