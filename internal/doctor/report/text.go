package report

import (
	"fmt"
	"io"
	"strings"

	"pgwicket/internal/phrase"
)

// indent is where the texts of a finding begin.
const indent = 28

// WriteText writes a checklist for people: failures first, then warnings, notes and
// what could not be examined. Without all, it only counts the checks that passed.
func (r Report) WriteText(w io.Writer, all bool) error {
	r = r.printable()
	var b strings.Builder
	order := worstFirst()
	if all {
		order = append(order, Pass)
	}
	last := ""
	for _, s := range order {
		for _, f := range r.with(s) {
			if group := strings.TrimSpace(f.Group + " " + f.Subject); group != last {
				fmt.Fprintf(&b, "%s\n", group)
				last = group
			}
			f.writeText(&b)
		}
	}
	if waived := r.with(Waived); len(waived) > 0 {
		b.WriteString("waived\n")
		for _, f := range waived {
			writeLines(&b, fmt.Sprintf("  %-*s ", indent-3, f.Check), f.Waiver)
		}
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	b.WriteString(r.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

// summary is the last line.
func (r Report) summary() string {
	waived := ""
	if n := r.Count(Waived); n > 0 {
		waived = fmt.Sprintf(", %d waived", n)
	}
	return fmt.Sprintf("%d passed, %s, %s, %s, %d skipped%s\n", r.Count(Pass), phrase.Count(r.Count(Note), "note"),
		phrase.Count(r.Count(Warn), "warning"), phrase.Count(r.Count(Fail), "failure"), r.Count(Skip), waived)
}

func (f Finding) writeText(b *strings.Builder) {
	writeLines(b, fmt.Sprintf("  %-4s  %-20s ", strings.ToUpper(string(f.Status)), f.Check), f.Reason)
	label := func(name, text string) {
		if text != "" {
			writeLines(b, fmt.Sprintf("%*s %-5s  ", indent, "", name), text)
		}
	}
	label("where", f.Where)
	if f.Status == Fail || f.Status == Warn {
		label("why", f.Why)
	}
	label("fix", f.Fix)
	if f.Status.found() {
		label("CIS", f.CIS)
	}
}

// writeLines writes a text with its lines below one another, so that a block of
// statements can be copied.
func writeLines(b *strings.Builder, before, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		b.WriteString(before + line + "\n")
		before = strings.Repeat(" ", len(before))
	}
}
