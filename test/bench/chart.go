package main

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The geometry of a line chart, in pixels; the page is as wide as that of bars.
const (
	panelWidth  = width / 2
	panelHeight = 240
	panelLeft   = 66 // of the plot in its panel
	panelRight  = 22
	panelTop    = 34
	panelBottom = 46
	labelRoom   = 38 // that a label of the x axis takes
)

// chart draws a figure: a panel for each metric, two in a row, with a line for each
// curve through its medians, and whiskers from the first to the third quartile. x is
// logarithmic; y where its values span more than a straight axis would show.
func (f figure) chart() []byte {
	var b bytes.Buffer
	lines, top := f.lines(), 48
	if len(lines) > 1 {
		top += 20 * ((len(lines) + 1) / 2)
	}
	height := top + panelHeight*((len(f.Panels)+1)/2)
	openPicture(&b, f.Title, fmt.Sprintf("median and quartiles of %d %s", len(f.Rounds), plural(len(f.Rounds), "round")), height, svgStyle+chartStyle)
	if len(lines) > 1 {
		legend(&b, lines)
	}
	for i, m := range f.metrics() {
		f.panel(&b, m, float64(i%2*panelWidth), float64(top+i/2*panelHeight))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func legend(b *bytes.Buffer, lines []string) {
	for i, name := range lines {
		x, y := 16+i%2*panelWidth, 64+20*(i/2)
		fmt.Fprintf(b, `<path class="line l%d" d="M%d %dh18"/><text class="note" x="%d" y="%d">%s</text>`+"\n",
			i, x, y-4, x+24, y, html.EscapeString(name))
	}
}

// panel draws one metric at a place of the page.
func (f figure) panel(b *bytes.Buffer, m metric, left, top float64) {
	var xs, ys []float64
	for _, p := range f.Points {
		if q := f.values(p.ID, m); q.N > 0 {
			xs, ys = append(xs, p.X), append(ys, q.Q1, q.Q3)
		}
	}
	fmt.Fprintf(b, `<text class="label" x="%.0f" y="%.0f">%s</text>`+"\n", left+16, top+18, html.EscapeString(m.title))
	if len(xs) == 0 {
		return
	}
	x := axis{left + panelLeft, left + panelWidth - panelRight, slices.Min(xs), slices.Max(xs), true}
	y, ticks := upright(top+panelHeight-panelBottom, top+panelTop, ys, m)
	for _, t := range ticks {
		fmt.Fprintf(b, `<path class="grid" d="M%.1f %.1fH%.1f"/>`, x.from, y.at(t), x.to)
		fmt.Fprintf(b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", x.from-8, y.at(t)+4, html.EscapeString(brief(m.show(t))))
	}
	f.bottom(b, x, y)
	for i, name := range f.lines() {
		f.curve(b, i, name, m, x, y)
	}
}

// bottom writes the x axis: its title, and the labels of the points as far as
// there is room, the last of them in any case.
func (f figure) bottom(b *bytes.Buffer, x, y axis) {
	middle := func(at, below float64, text string) {
		fmt.Fprintf(b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", at, y.from+below, html.EscapeString(text))
	}
	middle((x.from+x.to)/2, 38, f.Axis)
	points := slices.SortedFunc(slices.Values(f.Points), func(p, q point) int { return cmp.Compare(p.X, q.X) })
	last := math.Inf(-1)
	for _, p := range points {
		at := x.at(p.X)
		if at >= last+labelRoom && (at <= x.to-labelRoom || p.X == x.hi) {
			middle(at, 20, p.Label)
			last = at
		}
	}
}

func (f figure) curve(b *bytes.Buffer, number int, name string, m metric, x, y axis) {
	var path, whiskers, dots strings.Builder
	for _, p := range f.Points {
		q := f.values(p.ID, m)
		if p.Line != name || q.N == 0 {
			continue
		}
		step := "L"
		if path.Len() == 0 {
			step = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", step, x.at(p.X), y.at(q.Median))
		fmt.Fprintf(&whiskers, "M%.1f %.1fV%.1f", x.at(p.X), y.at(q.Q1), y.at(q.Q3))
		fmt.Fprintf(&dots, `<circle class="d%d" cx="%.1f" cy="%.1f" r="3.5"/>`, number, x.at(p.X), y.at(q.Median))
	}
	if path.Len() > 0 {
		fmt.Fprintf(b, `<path class="line l%d" d="%s"/><path class="whisker l%d" d="%s"/>%s`+"\n", number, &path, number, &whiskers, &dots)
	}
}

// axis maps values to pixels.
type axis struct {
	from, to float64 // pixels
	lo, hi   float64 // values
	log      bool
}

func (a axis) at(v float64) float64 {
	lo, hi := a.lo, a.hi
	if a.log {
		lo, hi, v = math.Log(lo), math.Log(hi), math.Log(v)
	}
	if hi == lo {
		return (a.from + a.to) / 2
	}
	return a.from + (v-lo)/(hi-lo)*(a.to-a.from)
}

// upright chooses the y axis for these values, and where its lines are.
func upright(from, to float64, values []float64, m metric) (a axis, ticks []float64) {
	lo, hi := slices.Min(values), slices.Max(values)
	_, name, _ := strings.Cut(m.show(hi), " ")
	unit := cmp.Or(map[string]float64{"KiB": 1 << 10, "MiB": 1 << 20}[name], 1) // in which the lines are at round numbers
	if hi > 20*lo {
		a = axis{from, to, unit * math.Pow10(int(math.Floor(math.Log10(lo/unit)))), unit * math.Pow10(int(math.Ceil(math.Log10(hi/unit)))), true}
		for t := a.lo; t <= a.hi*1.001; t *= 10 {
			ticks = append(ticks, t)
		}
		return a, ticks
	}
	step := unit * roundStep(hi/unit/4)
	a = axis{from, to, 0, step * math.Ceil(hi/step), false}
	for i := range int(math.Round(a.hi/step)) + 1 {
		ticks = append(ticks, step*float64(i))
	}
	return a, ticks
}

// roundStep is the next of 1, 2, 5, 10, …, or a decimal fraction of them.
func roundStep(least float64) float64 {
	p := math.Pow10(int(math.Floor(math.Log10(least))))
	for _, f := range []float64{1, 2, 5} {
		if f*p >= least*0.999 {
			return f * p
		}
	}
	return 10 * p
}

// brief is a value without the digits that say nothing on an axis.
func brief(text string) string {
	number, unit, _ := strings.Cut(text, " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	if number == "0" {
		return number
	}
	return strings.TrimSpace(number + " " + unit)
}

// The curves' colours hold up in both schemes, and to readers who see few colours.
const chartStyle = `<style>
.tick{font-size:11px;fill:#59636e}.grid{stroke:#d0d7de;stroke-width:1;fill:none}.line{stroke-width:2;fill:none}
.l0{stroke:#0969da}.l1{stroke:#bc4c00}.l2{stroke:#1a7f37}.l3{stroke:#8250df}
.d0{fill:#0969da}.d1{fill:#bc4c00}.d2{fill:#1a7f37}.d3{fill:#8250df}
@media(prefers-color-scheme:dark){.tick{fill:#9198a1}.grid{stroke:#3d444d}
.l0{stroke:#4493f8}.l1{stroke:#db6d28}.l2{stroke:#3fb950}.l3{stroke:#ab7df8}
.d0{fill:#4493f8}.d1{fill:#db6d28}.d2{fill:#3fb950}.d3{fill:#ab7df8}}
</style>
`
