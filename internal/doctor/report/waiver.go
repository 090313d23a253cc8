package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Waiver accepts a finding, for a reason and perhaps for some time.
type Waiver struct {
	Check  string
	Object string // a name of an object, or the place of a finding (its name if it has one); empty: the whole check
	Reason string
	Until  time.Time // the last day; zero: no end
}

// ParseWaiver reads CHECK[:OBJECT]=REASON[,YYYY-MM-DD]. An object with an equals sign is
// written between double quotes, which are doubled inside.
func ParseWaiver(text string) (w Waiver, err error) {
	head, reason, ok := cutUnquoted(text)
	if !ok || strings.TrimSpace(reason) == "" {
		return w, fmt.Errorf("%q has no reason: write CHECK[:OBJECT]=REASON[,YYYY-MM-DD]", text)
	}
	w.Check, w.Object, ok = strings.Cut(head, ":")
	if ok && w.Object == "" { // the variable of a script, perhaps: it must not become the whole check
		return w, fmt.Errorf("%q names no object after the colon: write CHECK[:OBJECT]=REASON[,YYYY-MM-DD]", text)
	}
	w.Reason = strings.TrimSpace(reason)
	if i := strings.LastIndexByte(reason, ','); i >= 0 {
		if until, err := time.Parse(time.DateOnly, strings.TrimSpace(reason[i+1:])); err == nil {
			w.Until, w.Reason = until, strings.TrimSpace(reason[:i])
		}
	}
	if w.Check == "" || w.Reason == "" {
		return w, fmt.Errorf("%q has no check or no reason: write CHECK[:OBJECT]=REASON[,YYYY-MM-DD]", text)
	}
	return w, nil
}

// cutUnquoted cuts at the first equals sign that is outside of double quotes.
func cutUnquoted(text string) (before, after string, ok bool) {
	inside := false
	for i, c := range text {
		switch {
		case c == '"':
			inside = !inside
		case c == '=' && !inside:
			return text[:i], text[i+1:], true
		}
	}
	return text, "", false
}

// ParseWaivers reads one waiver for each line. Empty lines and those that begin with # are
// left out.
func ParseWaivers(text string) (all []Waiver, err error) {
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		w, err := ParseWaiver(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		all = append(all, w)
	}
	return all, nil
}

// String returns the waiver without its reason.
func (w Waiver) String() string {
	if w.Object == "" {
		return w.Check
	}
	return w.Check + ":" + w.Object
}

func (w Waiver) over(now time.Time) bool {
	return !w.Until.IsZero() && now.After(w.Until.AddDate(0, 0, 1))
}

// text is what a report says of a waiver.
func (w Waiver) text() string {
	if w.Until.IsZero() {
		return w.Reason
	}
	return w.Reason + " (until " + w.Until.Format(time.DateOnly) + ")"
}

// Waive takes away what the waivers accept. One that is over, or that accepts nothing, is
// a finding itself. It must be called once.
func (r *Report) Waive(waivers []Waiver) {
	var problems []Finding
	problem := func(w Waiver, reason, fix string) {
		f := New(Warn, w.String(), "the waiver of "+w.String()+" "+reason, fix)
		f.Group, f.Check, f.Heading, f.Why = "doctor", "waivers", Settings, "A waiver that nobody looks after hides the next fault."
		problems = append(problems, f)
	}
	for _, w := range waivers {
		if w.over(r.Time) {
			problem(w, "ended on "+w.Until.Format(time.DateOnly)+" ("+w.Reason+")", "remove it, or give it a new date")
			continue
		}
		switch matched, name := r.waive(w); {
		case matched:
		case name != "":
			problem(w, "names a line by its number, which may be another line tomorrow ("+w.Reason+")", "if it is this line, write "+w.named(name)+"="+w.Reason)
		default:
			problem(w, "matches nothing ("+w.Reason+")", "remove it, or correct it")
		}
	}
	r.Findings = append(r.Findings, problems...)
}

// named returns the waiver with the name of a line, as it is written.
func (w Waiver) named(name string) string {
	if strings.ContainsAny(name, `="`) {
		name = quoted(name)
	}
	return w.Check + ":" + name
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// waive reports whether the waiver accepts anything. If not, and it has the number of a line, name is
// what it should have.
func (r *Report) waive(w Waiver) (matched bool, name string) {
	var split []Finding
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Check != w.Check || !f.Status.found() {
			continue
		}
		switch {
		case f.Name != "" && w.Object == f.Where:
			name = f.Name
		case w.Object == "" || w.Object == cmp.Or(f.Name, f.Where) || f.Name != "" && w.Object == quoted(f.Name):
			f.Status, f.Severity, f.Waiver = Waived, "", w.text()
			matched = true
		case f.list != nil:
			waived, ok := f.without(w)
			split = append(split, waived...)
			matched = matched || ok
		}
	}
	r.Findings = append(r.Findings, split...)
	return matched, name
}

// without takes an object from the finding, and returns a waived finding for it. If it is
// the only one, the finding itself is waived.
func (f *Finding) without(w Waiver) (waived []Finding, matched bool) {
	i := slices.IndexFunc(f.list.Objects, func(o Object) bool { return o.Name == w.Object })
	if i < 0 {
		return nil, false
	}
	one := *f
	one.list = &List{Reason: f.list.Reason, Objects: f.list.Objects[i : i+1 : i+1]}
	one.Status, one.Severity, one.Waiver = Waived, "", w.text()
	one.compose()
	rest := *f.list
	rest.Objects = slices.Delete(slices.Clone(rest.Objects), i, i+1)
	if len(rest.Objects) == 0 && rest.More == 0 {
		*f = one
		return nil, true
	}
	f.list = &rest
	f.compose()
	return []Finding{one}, true
}
