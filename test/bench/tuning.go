package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// tune runs pgwicket with other settings of the Go runtime, and built with a
// profile of itself, side by side with itself unchanged.
func tune(ctx context.Context, l *lab, o options, r *results) error {
	pgo, err := l.pgo(ctx, o)
	if err != nil {
		return err
	}
	for _, sc := range named(o, "select-8", "copy-out", "connect-cert") {
		f := newFigure(sc, "setting", "unchanged", "cpu", "rss")
		for _, t := range []struct {
			id, title, env, binary string
		}{
			{"pgwicket", "unchanged", "", ""},
			{controlID, "unchanged, again (control)", "", ""},
			{"gogc", "`GOGC=400`", "GOGC=400", ""},
			{"gomemlimit", "`GOGC=off GOMEMLIMIT=256MiB`", "GOGC=off GOMEMLIMIT=256MiB", ""},
			{"pgo", "built with its own profile (PGO)", "", pgo},
		} {
			f.add(point{ID: t.id, Line: t.title, Of: "pgwicket"}, sc, func(s *setting) {
				s.binary, s.env = t.binary, strings.Fields(t.env)
			})
		}
		if err := l.draw(ctx, &f, o.rounds, o.burst); err != nil {
			return err
		}
		r.Settings = append(r.Settings, f)
	}
	return nil
}

// pgo builds pgwicket with a profile of select-only.
func (l *lab) pgo(ctx context.Context, o options) (binary string, err error) {
	sc := named(o, "select-8")
	files, err := l.profiles(ctx, sc, 1, 10*o.burst)
	if err != nil {
		return "", err
	}
	logf(l.progress, "building with a profile")
	return build(ctx, l.file("pgwicket-pgo"), gatePackage, "-pgo="+files[sc[0].ID][0])
}

// named returns scenarios of peers.
func named(o options, ids ...string) []scenario {
	return slices.DeleteFunc(scenarios(o), func(s scenario) bool { return !slices.Contains(ids, s.ID) })
}

// tuning is the table of the settings.
func (r *results) tuning(w io.Writer) {
	if len(r.Settings) == 0 {
		return
	}
	fmt.Fprintf(w, "### Settings of the runtime\n\nThe CPU of pgwicket with each, compared with its CPU without it in the same round; %d %s. PGO is `go build -pgo` with a CPU profile of the first of these loads.\n\n",
		len(r.Settings[0].Rounds), plural(len(r.Settings[0].Rounds), "round"))
	head := []string{""}
	for _, f := range r.Settings {
		head = append(head, f.Title+", "+f.metrics()[0].title, "peak RSS")
	}
	tableRow(w, head...)
	fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(head)))
	for _, p := range r.Settings[0].Points {
		row := []string{p.Line}
		for _, f := range r.Settings {
			cpu, rss := f.metrics()[0], f.metrics()[1]
			text := f.against(p)
			if p.ID == p.Of {
				text = f.values(p.ID, cpu).spreadText(cpu)
			}
			row = append(row, text, f.values(p.ID, rss).text(rss))
		}
		tableRow(w, row...)
	}
	fmt.Fprintln(w)
	for _, f := range r.Settings {
		f.failures(w)
	}
}
