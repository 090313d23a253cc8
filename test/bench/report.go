package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pgwicket/test/harness"
)

// block is a generated part of a page, which stands between two lines that name
// the command.
type block struct {
	command  string
	markdown func(images string) string // with images, a directory, it shows the pictures
}

func (b block) begin() string { begin, _ := harness.Marks(b.command); return begin }
func (b block) end() string   { _, end := harness.Marks(b.command); return end }

// The commands that the blocks are named after.
const (
	peersBlock   = "make bench-peers"
	scaleBlock   = "make bench-scale"
	profileBlock = "make bench-scale, profiles"
)

// blocks are those that have data.
func (r *results) blocks() (all []block) {
	if len(r.Series) > 0 {
		all = append(all, block{peersBlock, r.markdown})
	}
	if len(r.Figures)+len(r.Settings) > 0 {
		all = append(all, block{scaleBlock, r.scaling})
	}
	if len(r.Profiles) > 0 {
		all = append(all, block{profileBlock, r.shares})
	}
	return all
}

// report prints the tables, and renews the page and its pictures if there is one.
func (r *results) report(stdout io.Writer, p page) error {
	for _, b := range r.blocks() {
		if _, err := io.WriteString(stdout, b.markdown("")); err != nil {
			return err
		}
	}
	if p.into == "" {
		return nil
	}
	if err := r.pictures(p.images); err != nil {
		return err
	}
	link, err := filepath.Rel(filepath.Dir(p.into), p.images)
	if err != nil {
		return err
	}
	for _, b := range r.blocks() {
		if err := b.renew(p.into, filepath.ToSlash(link)); err != nil {
			return err
		}
	}
	return nil
}

// pictures writes one for each scenario and each figure.
func (r *results) pictures(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // documentation
		return err
	}
	write := func(name string, svg []byte, err error) error {
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), svg, 0o644) //nolint:gosec // documentation
	}
	for _, s := range r.Series {
		svg, err := r.bars(s)
		if err := write(s.picture(), svg, err); err != nil {
			return err
		}
	}
	for _, f := range r.Figures {
		svg, err := f.chart()
		if err := write(f.picture(), svg, err); err != nil {
			return err
		}
	}
	return nil
}

func (s series) picture() string { return "bench-" + s.Scenario + ".svg" }

// renew replaces the block of a page, or appends it.
func (b block) renew(file, images string) error {
	page, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if text := string(page); !strings.Contains(text, b.begin()) {
		if text != "" {
			text = strings.TrimRight(text, "\n") + "\n\n"
		}
		if err := os.WriteFile(file, []byte(text+b.begin()+"\n"+b.end()+"\n"), 0o644); err != nil { //nolint:gosec // documentation
			return err
		}
	}
	return harness.Renew(file, b.command, b.markdown(images))
}

// markdown is the report of peers.
func (r *results) markdown(images string) string {
	var b bytes.Buffer
	r.introduce(&b)
	r.summary(&b)
	for _, s := range r.Series {
		r.section(&b, s, images)
	}
	return b.String()
}

func (m machine) introduce(w io.Writer) {
	fmt.Fprintf(w, "Measured on %s with `%s`: %d cores (%s), %s, Linux %s, %s, load average %s before the start; clients, contender and "+
		"server on the same cores. TLS 1.3, AES-128-GCM, X25519, an ECDSA P-256 certificate, no resumption, for all of them.\n\n",
		m.At, m.Command, m.Cores, m.CPU, m.System, m.Kernel, m.Go, m.Load)
}

func (r *results) introduce(w io.Writer) {
	m := r.Machine
	m.introduce(w)
	fmt.Fprint(w, "A number is the median of the rounds; a ratio is taken inside each round, and its median stands with its quartiles. "+
		"The control is the same pgwicket twice: where it differs from itself as much, a difference is not established.\n\n")
	fmt.Fprint(w, "| contender | version | configuration |\n|---|---|---|\n")
	for _, c := range m.Contenders {
		fmt.Fprintf(w, "| %s | %s | %s |\n", c.Title, c.Version, c.About)
	}
	fmt.Fprintln(w)
}

func (r *results) summary(w io.Writer) {
	fmt.Fprint(w, "### Targets\n\n")
	fmt.Fprint(w, "| scenario | what | compared with | target | measured | control | |\n|---|---|---|---|---|---|---|\n")
	for _, b := range goals() {
		v, ok := r.judge(b)
		if !ok {
			continue
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", v.series.Title, v.metric.title, r.name(v.peer), v.limitText(),
			v.ratio.ratioText(), v.series.ratio(controlID, "pgwicket", v.metric).ratioText(), v.text())
	}
	fmt.Fprintln(w)
}

func (r *results) name(id string) string {
	for _, c := range r.Machine.Contenders {
		if c.ID == id {
			return c.Title
		}
	}
	return id
}

func (r *results) section(w io.Writer, s series, images string) {
	s.head(w, images, s.picture())
	columns := s.columns()
	references := r.references(s)
	main := metricOf(s.Unit, s.Main)
	fmt.Fprint(w, "| contender |")
	for _, m := range columns {
		fmt.Fprintf(w, " %s |", s.heading(m))
	}
	for _, ref := range references {
		fmt.Fprintf(w, " %s, of %s |", main.title, r.name(ref))
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(columns)+len(references)))
	for _, c := range r.Machine.Contenders {
		r.row(w, s, c, columns, references)
	}
	fmt.Fprintln(w)
	r.footnotes(w, s)
}

// head is the beginning of its section.
func (s series) head(w io.Writer, images, picture string) {
	fmt.Fprintf(w, "### %s\n\n", s.Title)
	fmt.Fprintf(w, "%s; %d %s.\n\n", capital(s.About), len(s.Rounds), plural(len(s.Rounds), "round"))
	if images != "" {
		fmt.Fprintf(w, "![%s](%s/%s)\n\n", s.Title, images, picture)
	}
}

func capital(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// columns are the metrics that mean something here.
func (s series) columns() []metric {
	return slices.DeleteFunc(metrics(s.Unit), func(m metric) bool { return !s.tells(m) })
}

func (s series) tells(m metric) bool {
	// Where something else runs beside it, the CPU cannot be attributed.
	mixed := s.Beside != ""
	if m.id == "cpu" && mixed || m.id == "total" && mixed || m.id == "busy" && !mixed {
		return false
	}
	for _, round := range s.Rounds {
		for _, v := range round {
			if sound(m.value(v)) && (m.id != "total" || v.ServerCPU > 0) {
				return true
			}
		}
	}
	return false
}

func (s series) heading(m metric) string {
	if m.id == "beside" {
		return s.Beside
	}
	return m.title
}

// references are those that the others are compared with.
func (r *results) references(s series) []string {
	return slices.DeleteFunc([]string{"pgbouncer", "stunnel", "plain", "floor"}, func(id string) bool {
		// The forwarder is a lower bound of the CPU only.
		return s.values(id, metricOf(s.Unit, s.Main)).N == 0 || id == "floor" && s.Main != "cpu"
	})
}

func (r *results) row(w io.Writer, s series, c contenderInfo, columns []metric, references []string) {
	if s.values(c.ID, metricOf(s.Unit, "throughput")).N == 0 {
		return
	}
	fmt.Fprintf(w, "| %s |", c.Title)
	for _, m := range columns {
		fmt.Fprintf(w, " %s |", s.values(c.ID, m).text(m))
	}
	main := metricOf(s.Unit, s.Main)
	for _, ref := range references {
		text := s.ratio(c.ID, ref, main).ratioText()
		if ref == c.ID {
			text = "1"
		}
		fmt.Fprintf(w, " %s |", text)
	}
	fmt.Fprintln(w)
}

// footnotes name the control's ratio, which peers do not differ from pgwicket by
// more than that, and who is missing.
func (r *results) footnotes(w io.Writer, s series) {
	main := metricOf(s.Unit, s.Main)
	spread := s.spread(main)
	if q := s.ratio(controlID, "pgwicket", main); q.N > 0 {
		fmt.Fprintf(w, "%s of the control: %s of pgwicket's.", main.title, q.ratioText())
		var alike []string
		for _, c := range r.Machine.Contenders {
			d := s.ratio("pgwicket", c.ID, main)
			if c.ID != "pgwicket" && c.ID != controlID && d.N > 0 && d.Median >= 1-spread && d.Median <= 1+spread {
				alike = append(alike, c.Title)
			}
		}
		if len(alike) > 0 {
			fmt.Fprintf(w, " Not established, because within that: a difference between pgwicket and %s.", strings.Join(alike, ", "))
		}
		fmt.Fprint(w, "\n\n")
	}
	for _, c := range r.Machine.Contenders {
		if why := s.Out[c.ID]; why != "" {
			fmt.Fprintf(w, "Without %s: %s.\n\n", c.Title, why)
		}
		if why := s.Failed[c.ID]; why != "" {
			fmt.Fprintf(w, "%s broke down: `%s`.\n\n", c.Title, strings.ReplaceAll(why, "\n", " "))
		}
	}
}
