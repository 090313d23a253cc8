package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"pgwicket/internal/phrase"
)

//go:embed page.html
var page string

// layer is one of the layers that a request passes on its way to a row.
type layer struct {
	Name  string
	Open  string // what stands open in it; empty: nothing
	Worst Status
}

// section are the findings of a heading.
type section struct {
	Name     Heading
	Findings []Finding
}

// view is what the page shows.
type view struct {
	Config, Time, Summary          string
	Worst                          Status
	Layers                         []layer
	Sections                       []section
	Waived, Skipped                []Finding
	Passed, Notes, Warnings, Fails int
}

// WriteHTML writes one page that needs nothing else: no script, no font and no picture of
// another server. It can be printed.
func (r Report) WriteHTML(w io.Writer) error {
	r = r.printable()
	t, err := template.New("page").Funcs(template.FuncMap{"upper": func(s Status) string { return strings.ToUpper(string(s)) }}).Parse(page)
	if err != nil {
		return err
	}
	v := view{
		Config: r.Config, Time: r.Time.UTC().Format(time.RFC3339), Summary: strings.TrimSpace(r.summary()), Worst: r.Worst(),
		Waived: r.with(Waived), Skipped: r.with(Skip),
		Passed: r.Count(Pass), Notes: r.Count(Note), Warnings: r.Count(Warn), Fails: r.Count(Fail),
	}
	for _, h := range Headings() {
		s, l := section{Name: h}, layer{Name: string(h), Worst: Pass}
		counts := make(map[Status]int)
		for _, status := range []Status{Fail, Warn, Note} {
			for _, f := range r.with(status) {
				if f.Heading == h {
					s.Findings = append(s.Findings, f)
					counts[status]++
				}
			}
			if counts[status] > 0 && l.Worst == Pass {
				l.Worst = status
			}
		}
		l.Open = counted(counts)
		v.Layers = append(v.Layers, l)
		if s.Findings != nil {
			v.Sections = append(v.Sections, s)
		}
	}
	return t.Execute(w, v)
}

// counted says how many failures, warnings and notes there are.
func counted(counts map[Status]int) string {
	var parts []string
	for _, c := range []struct {
		status Status
		noun   string
	}{{Fail, "failure"}, {Warn, "warning"}, {Note, "note"}} {
		if n := counts[c.status]; n > 0 {
			parts = append(parts, fmt.Sprint(phrase.Count(n, c.noun)))
		}
	}
	return strings.Join(parts, ", ")
}
