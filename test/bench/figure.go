package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// figure is a series whose candidates are points on curves: pgwicket alone, with
// more and more of something.
type figure struct {
	series
	Axis    string   `json:"axis"`    // what there is more and more of
	Against string   `json:"against"` // what Of of each point is, as text
	Panels  []string `json:"panels"`  // the metrics, each with a chart
	Points  []point  `json:"points"`

	field []candidate // one for each point, until it is measured
}

// point is a candidate as the report shows it.
type point struct {
	ID    string  `json:"id"`
	Line  string  `json:"line"` // the curve, or the setting, that it belongs to
	X     float64 `json:"x"`
	Label string  `json:"label"` // X as text
	Of    string  `json:"of"`    // the point that it is compared with
}

// newFigure is one of a scenario's metrics, the scenario being that of its points
// but for what grows; the first metric is the one that is compared.
func newFigure(sc scenario, axis, against string, panels ...string) figure {
	sc.Main = panels[0]
	return figure{series: sc.series(), Axis: axis, Against: against, Panels: panels}
}

// add puts a point into the figure: this scenario, with pgwicket changed so.
func (f *figure) add(p point, sc scenario, change func(*setting)) {
	f.Points = append(f.Points, p)
	f.field = append(f.field, candidate{tuned(p.ID, p.Line+" "+p.Label, change), sc})
}

// draw measures the points.
func (l *lab) draw(ctx context.Context, f *figure, rounds int, d time.Duration) error {
	return l.compete(ctx, &f.series, f.field, rounds, d)
}

// lines are the names of the curves.
func (f figure) lines() (names []string) {
	for _, p := range f.Points {
		if !slices.Contains(names, p.Line) {
			names = append(names, p.Line)
		}
	}
	return names
}

func (f figure) picture() string { return "scale-" + f.Scenario + ".svg" }

// section is the figure's part of the report. The first column is the curve, where
// there are several.
func (f figure) section(w io.Writer, images string) {
	f.head(w, images, f.picture())
	metrics, several := f.metrics(), len(f.lines()) > 1
	head := []string{f.Axis}
	for _, m := range metrics {
		head = append(head, m.title)
	}
	head = append(head, metrics[0].title+", of "+f.Against)
	if several {
		head = append([]string{""}, head...)
	}
	tableRow(w, head...)
	fmt.Fprintf(w, "|%s\n", strings.Repeat("---|", len(head)))
	for _, p := range f.Points {
		row := []string{p.Label}
		for _, m := range metrics {
			row = append(row, f.values(p.ID, m).spreadText(m))
		}
		row = append(row, f.against(p))
		if several {
			row = append([]string{p.Line}, row...)
		}
		tableRow(w, row...)
	}
	fmt.Fprintln(w)
	f.failures(w)
}

// against is the ratio of a point's first metric to that of the point that it is
// compared with.
func (f figure) against(p point) string {
	if p.ID == p.Of {
		return "1"
	}
	return f.ratio(p.ID, p.Of, f.metrics()[0]).ratioText()
}

func tableRow(w io.Writer, cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }

func (f figure) metrics() (all []metric) {
	for _, id := range f.Panels {
		all = append(all, metricOf(f.Unit, id))
	}
	return all
}

func (f figure) failures(w io.Writer) {
	for _, p := range f.Points {
		if why := f.Failed[p.ID]; why != "" {
			fmt.Fprintf(w, "%s, %s: broke down: `%s`.\n\n", p.Line, p.Label, strings.ReplaceAll(why, "\n", " "))
		}
	}
}
