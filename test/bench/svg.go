package main

import (
	"bytes"
	"fmt"
	"html"
	"strconv"
)

// The geometry of a picture, in pixels.
const (
	width      = 760
	labelWidth = 190
	valueWidth = 90
	rowHeight  = 30
	headHeight = 52
)

// svg draws the main metric of a scenario: a bar for each contender, up to its
// median, with a whisker from the first to the third quartile. The colours follow
// the reader's light or dark scheme.
func (r *results) svg(s series) []byte {
	m := metricOf(s.Unit, s.Main)
	type row struct {
		id, title string
		q         quartiles
	}
	var rows []row
	longest := 0.0
	for _, c := range r.Machine.Contenders {
		if q := s.values(c.ID, m); q.N > 0 {
			rows = append(rows, row{c.ID, c.Title, q})
			longest = max(longest, q.Q3)
		}
	}
	var b bytes.Buffer
	height := headHeight + rowHeight*len(rows) + 12
	note := fmt.Sprintf("%s; median and quartiles of %d %s", better(m), len(s.Rounds), plural(len(s.Rounds), "round"))
	openPicture(&b, s.Title+": "+s.heading(m), note, height, svgStyle)
	for i, row := range rows {
		drawRow(&b, float64(headHeight+rowHeight*i), kind(row.id), row.title, row.q, longest, m)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// openPicture begins a page of that height.
func openPicture(b *bytes.Buffer, title, note string, height int, style string) {
	title = html.EscapeString(title)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n", width, height, width, height, title)
	b.WriteString(style)
	fmt.Fprintf(b, `<rect class="page" width="%d" height="%d" rx="6"/>`+"\n", width, height)
	fmt.Fprintf(b, `<text class="title" x="16" y="24">%s</text>`+"\n", title)
	fmt.Fprintf(b, `<text class="note" x="16" y="42">%s</text>`+"\n", html.EscapeString(note))
}

func drawRow(b *bytes.Buffer, y float64, class, title string, q quartiles, longest float64, m metric) {
	scale := (width - labelWidth - valueWidth - 16) / longest
	x := func(v float64) string { return strconv.FormatFloat(labelWidth+v*scale, 'f', 1, 64) }
	mid := y + rowHeight/2
	fmt.Fprintf(b, `<text class="label" x="%d" y="%.0f" text-anchor="end">%s</text>`+"\n", labelWidth-10, mid+4, html.EscapeString(title))
	fmt.Fprintf(b, `<rect class="%s" x="%d" y="%.0f" width="%.1f" height="18" rx="2"/>`+"\n", class, labelWidth, mid-9, q.Median*scale)
	fmt.Fprintf(b, `<path class="whisker" d="M%s %.0fH%sM%s %.0fv10M%s %.0fv10"/>`+"\n", x(q.Q1), mid, x(q.Q3), x(q.Q1), mid-5, x(q.Q3), mid-5)
	fmt.Fprintf(b, `<text class="value" x="%.1f" y="%.0f">%s</text>`+"\n", labelWidth+max(q.Q3, q.Median)*scale+8, mid+4, html.EscapeString(m.show(q.Median)))
}

func better(m metric) string {
	if m.higher {
		return "longer is better"
	}
	return "shorter is better"
}

func kind(id string) string {
	switch id {
	case "pgwicket", controlID:
		return "ours"
	case "plain", "floor":
		return "yardstick"
	}
	return "peer"
}

const svgStyle = `<style>
text{font:13px system-ui,sans-serif;fill:#1f2328}
.title{font-weight:600;font-size:15px}.note{font-size:12px;fill:#59636e}
.page{fill:#fff}.ours{fill:#0969da}.peer{fill:#8c959f}.yardstick{fill:#d0d7de}
.whisker{stroke:#1f2328;stroke-width:1.5;fill:none}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.page{fill:#0d1117}.ours{fill:#4493f8}.peer{fill:#6e7681}.yardstick{fill:#3d444d}.whisker{stroke:#e6edf3}}
</style>
`
