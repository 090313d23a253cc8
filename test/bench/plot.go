package main

import (
	"bytes"
	"cmp"
	"fmt"
	"image/color"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The pictures are SVG on a white page, so that they can be read in a dark scheme
// too. The colours differ in brightness, for readers who see few colours.
var (
	oursColor  = color.RGBA{0x09, 0x69, 0xda, 0xff}
	peerColor  = color.RGBA{0x8c, 0x95, 0x9f, 0xff}
	plainColor = color.RGBA{0xd0, 0xd7, 0xde, 0xff}
	ink        = color.RGBA{0x1f, 0x23, 0x28, 0xff}
	curves     = []color.Color{oursColor, color.RGBA{0xbc, 0x4c, 0x00, 0xff}, color.RGBA{0x1a, 0x7f, 0x37, 0xff}, color.RGBA{0x82, 0x50, 0xdf, 0xff}}
)

const pageWidth = 760

// spreads are medians with the quartiles around them, for plotter's error bars.
type spreads struct {
	plotter.XYs
	low, high []float64
}

func (s *spreads) add(x, y float64, q quartiles, unit float64) {
	s.XYs = append(s.XYs, plotter.XY{X: x, Y: y})
	s.low, s.high = append(s.low, (q.Median-q.Q1)/unit), append(s.high, (q.Q3-q.Median)/unit)
}

// XError and YError are the distances from the median to the quartiles.
func (s *spreads) XError(i int) (low, high float64) { return s.low[i], s.high[i] }

// YError is as XError.
func (s *spreads) YError(i int) (low, high float64) { return s.low[i], s.high[i] }

// bars draws the main metric of a scenario: a bar for each contender, up to its
// median, with a whisker from the first to the third quartile.
func (r *results) bars(s series) ([]byte, error) {
	m := metricOf(s.Unit, s.Main)
	p := newPlot()
	better := "shorter is better"
	if m.higher {
		better = "longer is better"
	}
	p.Title.Text = fmt.Sprintf("%s: %s (%s)", s.Title, s.heading(m), better)
	var names []string
	ends, whiskers := plotter.XYLabels{}, &spreads{}
	for _, c := range slices.Backward(r.Machine.Contenders) { // the first is the topmost
		q := s.values(c.ID, m)
		if q.N == 0 {
			continue
		}
		y := float64(len(names))
		bar, err := plotter.NewBarChart(plotter.Values{q.Median}, vg.Points(15))
		if err != nil {
			return nil, err
		}
		bar.Horizontal, bar.XMin, bar.Color, bar.LineStyle.Width = true, y, barColor(c.ID), 0
		p.Add(bar)
		names = append(names, c.Title)
		whiskers.add(q.Median, y, q, 1)
		ends.XYs = append(ends.XYs, plotter.XY{X: max(q.Q3, q.Median), Y: y})
		ends.Labels = append(ends.Labels, m.show(q.Median))
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: nothing to draw", s.Scenario)
	}
	errorBars, err := plotter.NewXErrorBars(whiskers)
	if err != nil {
		return nil, err
	}
	errorBars.Color = ink
	labels, err := plotter.NewLabels(ends)
	if err != nil {
		return nil, err
	}
	labels.Offset = vg.Point{X: 6, Y: -4}
	for i := range labels.TextStyle {
		labels.TextStyle[i].Font.Variant, labels.TextStyle[i].Font.Size = "Sans", 11
	}
	p.Add(errorBars, labels)
	p.NominalY(names...)
	p.Y.Padding = 16                   // where there is no Liberation Sans, the names are longer
	p.X.Min, p.X.Max = 0, p.X.Max*1.15 // room for the labels
	p.HideX()
	return picture([][]*plot.Plot{{p}}, vg.Length(60+27*len(names)))
}

func barColor(id string) color.Color {
	switch id {
	case "pgwicket", controlID:
		return oursColor
	case "plain", "floor":
		return plainColor
	}
	return peerColor
}

// chart draws a figure: a panel for each metric, two in a row, with a line for each
// curve through its medians, and whiskers from the first to the third quartile. x is
// logarithmic; y where its values span more than a straight axis would show.
func (f figure) chart() ([]byte, error) {
	var rows [][]*plot.Plot
	for i, m := range f.metrics() {
		p, err := f.panel(m, i == 0)
		if err != nil {
			return nil, err
		}
		if i%2 == 0 {
			rows = append(rows, make([]*plot.Plot, min(2, len(f.Panels))))
		}
		rows[len(rows)-1][i%2] = p
	}
	return picture(rows, vg.Length(250*len(rows)))
}

// panel draws one metric. The legend is in the first one.
func (f figure) panel(m metric, legend bool) (*plot.Plot, error) {
	p := newPlot()
	lo, hi := f.span(m)
	unit, name := unitOfAxis(m, hi)
	p.X.Label.Text, p.Y.Label.Text, p.Y.Min = f.Axis, strings.TrimSpace(m.title+" "+name), 0
	p.Y.Tick.Marker = plot.TickerFunc(plainTicks)
	if lo > 0 && hi > 20*lo {
		p.Y.Scale, p.Y.Tick.Marker, p.Y.Min = plot.LogScale{}, plot.LogTicks{Prec: -1}, lo/unit/2
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.ConstantTicks(f.ticks())
	for i, curve := range f.lines() {
		medians := &spreads{}
		for _, point := range f.Points {
			if q := f.values(point.ID, m); point.Line == curve && q.N > 0 {
				medians.add(point.X, q.Median/unit, q, unit)
			}
		}
		if len(medians.XYs) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(medians)
		if err != nil {
			return nil, err
		}
		errorBars, err := plotter.NewYErrorBars(medians)
		if err != nil {
			return nil, err
		}
		c := curves[i%len(curves)]
		line.Color, line.Width, dots.Color, dots.Shape, errorBars.Color = c, vg.Points(1.5), c, draw.CircleGlyph{}, c
		p.Add(errorBars, line, dots)
		if legend && len(f.lines()) > 1 {
			p.Legend.Add(curve, line, dots)
		}
	}
	p.Y.Max = max(p.Y.Max, hi/unit*1.1)
	return p, nil
}

// span is from the least to the greatest value of a metric.
func (f figure) span(m metric) (lo, hi float64) {
	for _, p := range f.Points {
		if q := f.values(p.ID, m); q.N > 0 {
			if lo == 0 || q.Q1 < lo {
				lo = q.Q1
			}
			hi = max(hi, q.Q3)
		}
	}
	return lo, hi
}

// ticks are the points' labels, as far as there is room for them.
func (f figure) ticks() (all []plot.Tick) {
	points := slices.SortedFunc(slices.Values(f.Points), func(p, q point) int { return cmp.Compare(p.X, q.X) })
	for _, p := range points {
		if n := len(all); n > 0 && p.X < 2*all[n-1].Value {
			continue
		}
		all = append(all, plot.Tick{Value: p.X, Label: p.Label})
	}
	return all
}

// unitOfAxis is what the values of an axis up to hi are divided by, and its name.
func unitOfAxis(m metric, hi float64) (float64, string) {
	_, name, _ := strings.Cut(m.show(hi), " ")
	units := map[string]float64{"µs": 1e-6, "ms": 1e-3, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20}
	if units[name] == 0 {
		return 1, ""
	}
	return units[name], "(" + name + ")"
}

// plainTicks are plot's own, without zeros behind the point.
func plainTicks(lo, hi float64) []plot.Tick {
	all := plot.DefaultTicks{}.Ticks(lo, hi)
	for i := range all {
		if all[i].Label != "" {
			all[i].Label = strconv.FormatFloat(all[i].Value, 'g', 6, 64)
		}
	}
	return all
}

func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	for _, style := range []*draw.TextStyle{
		&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle,
	} {
		style.Font.Variant, style.Font.Size, style.Color = "Sans", 11, ink
	}
	p.Title.TextStyle.Font.Size, p.Title.Padding = 13, 8
	p.Legend.Top, p.Legend.Left = true, true
	return p
}

// picture lays plots out as a table and writes them as SVG.
func picture(rows [][]*plot.Plot, height vg.Length) ([]byte, error) {
	c := vgsvg.New(pageWidth, height)
	tiles := draw.Tiles{Rows: len(rows), Cols: len(rows[0]), PadTop: 8, PadBottom: 8, PadLeft: 8, PadRight: 16, PadX: 16, PadY: 16}
	page := draw.New(c)
	page.SetColor(color.White)
	page.Fill(page.Path())
	canvases := plot.Align(rows, tiles, page)
	for i, row := range rows {
		for j, p := range row {
			if p != nil {
				p.Draw(canvases[i][j])
			}
		}
	}
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("Liberation Sans"), []byte("Liberation Sans,Arial,Helvetica,sans-serif")), nil
}
