package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"pgwicket/internal/phrase"
)

// Read reads a report that WriteJSON has written.
func Read(text []byte) (Report, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return Report{}, fmt.Errorf("not a report of pgwicket doctor --json: %w", err)
	}
	if d.Time.IsZero() || d.Findings == nil {
		return Report{}, fmt.Errorf("not a report of pgwicket doctor --json")
	}
	return Report{d.Config, d.Time, d.Findings}, nil
}

// place is what makes two findings of two reports the same one.
func (f Finding) place() string {
	if f.Name != "" {
		f.Where = f.Name
	}
	return strings.Join([]string{f.Group, f.Subject, f.Check, f.Where}, "\x00")
}

// WriteChanges writes what has changed since an older report: what is new, what is gone,
// and which objects came and went. The whole summary follows.
func (r Report) WriteChanges(w io.Writer, old Report) error {
	r, old = r.printable(), old.printable()
	var b strings.Builder
	before := make(map[string][]Finding)
	for _, f := range old.Findings {
		before[f.place()] = append(before[f.place()], f)
	}
	changes := 0
	for _, s := range worstFirst() {
		for _, f := range r.with(s) {
			olds := before[f.place()]
			at := slices.IndexFunc(olds, func(o Finding) bool { return o.Status == f.Status && (f.Count > 0 || o.Reason == f.Reason) })
			switch {
			case at < 0 && f.Status != Skip:
				changes++
				b.WriteString("new\n")
				f.writeText(&b)
			case at >= 0 && f.Count > 0 && (f.Count != olds[at].Count || !slices.Equal(f.Objects, olds[at].Objects)):
				changes++
				b.WriteString("changed\n")
				writeLines(&b, fmt.Sprintf("  %-4s  %-20s ", strings.ToUpper(string(f.Status)), f.Check), f.difference(olds[at]))
			}
		}
	}
	now := make(map[string]bool)
	for _, f := range r.Findings {
		if f.Status.found() {
			now[f.place()] = true
		}
	}
	for _, f := range old.Findings {
		if f.Status.found() && !now[f.place()] {
			changes++
			b.WriteString("gone\n")
			writeLines(&b, fmt.Sprintf("  %-4s  %-20s ", strings.ToUpper(string(f.Status)), f.Check), f.Reason)
		}
	}
	if changes > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s since %s\n%s", phrase.Count(changes, "change"), old.Time.UTC().Format(time.RFC3339), r.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

// difference names the objects that came and went.
func (f Finding) difference(old Finding) string {
	var parts []string
	name := func(word string, a, b []string) {
		var names []string
		for _, o := range a {
			if !slices.Contains(b, o) {
				names = append(names, o)
			}
		}
		if names != nil {
			parts = append(parts, word+" "+strings.Join(names, ", "))
		}
	}
	name("new:", f.Objects, old.Objects)
	name("gone:", old.Objects, f.Objects)
	return strings.Join(append(parts, fmt.Sprintf("%d before, %d now", old.Count, f.Count)), "; ")
}
