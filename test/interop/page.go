//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
)

// page is the matrix's part of the results, while it is written.
type page struct {
	quick       bool
	servers     []string
	rows        []string // the names of clients, in the order of the page
	cells       map[[2]string][]verdict
	version     map[string]string
	unavailable []string
	wire        []string
	wired       map[string][]verdict
}

// verdict is a cell: what one client saw of one feature at one server.
type verdict struct {
	server            string
	client, feature   string // empty: of a raw script
	straight, through cell
	note              string // why it may differ
	failed            bool
}

func (p *page) server(s *server) {
	p.servers = append(p.servers, fmt.Sprintf("%s (%s)", s.version, s.origin))
}

func (p *page) missing(name string, why error) {
	p.unavailable = append(p.unavailable, fmt.Sprintf("| %s | not available here: %s |\n", name, tableCell(shorten(why.Error()))))
}

// judge compares. Only what works straight must work through the gate, and then
// with the same answer; and no session may open without TLS.
func judge(s *server, client, name string, straight, through cell) verdict {
	v := verdict{server: s.major, client: client, feature: name, straight: straight, through: through}
	switch {
	case straight.state == "ok" && straight != through:
		v.note = byDesign(name)
		v.failed = v.note == ""
	case name == "sslmode-disable":
		v.failed = through.state == "ok"
	}
	return v
}

// client adds what a client saw, and returns the cells that failed.
func (p *page) client(s *server, name string, straight, through answers) (failed []string) {
	if p.cells == nil {
		p.cells, p.version = make(map[[2]string][]verdict), make(map[string]string)
	}
	p.version[name] = through.version
	for _, f := range features() {
		v := judge(s, name, f.name, straight.cells[f.name], through.cells[f.name])
		key := [2]string{name, f.name}
		p.cells[key] = append(p.cells[key], v)
		if v.failed {
			failed = append(failed, fmt.Sprintf("%s, PostgreSQL %s, %s: straight %s %q, through the gate %s %q",
				name, s.version, f.name, v.straight.state, v.straight.seen, v.through.state, v.through.seen))
		}
	}
	return failed
}

// raw adds what the raw scripts saw, and returns the rows that failed.
func (p *page) raw(s *server, rows []rawRow) (failed []string) {
	if p.wired == nil {
		p.wired = make(map[string][]verdict)
	}
	for _, r := range rows {
		if _, known := p.wired[r.title]; !known {
			p.wire = append(p.wire, r.title)
		}
		v := verdict{server: s.major, straight: cell{"ok", r.straight}, through: cell{"ok", r.through}}
		if r.straight != r.through {
			v.note = r.byDesign
		}
		v.failed = r.straight != r.through && r.byDesign == ""
		if v.failed {
			failed = append(failed, fmt.Sprintf("bytes, PostgreSQL %s, %s: straight %q, through the gate %q", s.version, r.title, r.straight, r.through))
		}
		p.wired[r.title] = append(p.wired[r.title], v)
	}
	return failed
}

const pageHead = `Each cell is what the run saw, through a gate and straight to the same server over the server's own TLS.
"ok": the same answer both times. "refused": an expected error, and whose limit it is. "fails both ways": the client cannot do it
straight either, so the cell says nothing about pgwicket. "–": the client or its release of libpq does not have it. A cell fails the
run if it works straight and differs through the gate. Where the servers differ, the cell names the releases.

`

// notDriven are clients that people use and that have no driver here.
const notDriven = `| psql and pgbench of 14, 16, 17 and 18 | the packages of npm have the libraries and no programs: Debian's psql and pgbench, of 15, use their libpq |
`

func (p *page) markdown() string {
	var b strings.Builder
	b.WriteString(pageHead)
	fmt.Fprintf(&b, "Servers: PostgreSQL %s.\n", strings.Join(p.servers, ", "))
	if p.quick {
		b.WriteString("\nA quick run: the large value has 8 MiB, the idle session is idle for a second.\n")
	} else {
		b.WriteString("\nThe large value has 256 MiB; the idle session is idle for a minute.\n")
	}
	b.WriteString("\n### Clients\n\n")
	for _, row := range p.rows {
		fmt.Fprintf(&b, "#### %s\n\nVersion: %s\n\n| feature | through the gate | straight |\n|---|---|---|\n", row, p.version[row])
		for _, f := range features() {
			all := p.cells[[2]string{row, f.name}]
			fmt.Fprintf(&b, "| %s | %s | %s |\n", f.title, byServer(all, throughGate), byServer(all, straightOn))
		}
		b.WriteString("\n")
	}
	b.WriteString("### Not run\n\n| client | why |\n|---|---|\n" + strings.Join(p.unavailable, "") + notDriven + "\n")
	b.WriteString("### Without a library\n\nWhat no library sends, byte by byte.\n\n| what is sent | through the gate | straight |\n|---|---|---|\n")
	for _, title := range p.wire {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", tableCell(title), byServer(p.wired[title], throughGate), byServer(p.wired[title], straightOn))
	}
	return b.String()
}

func throughGate(v verdict) string {
	text := v.describe(v.through, v.straight, true)
	switch {
	case v.failed:
		return "**differs**: " + text
	case v.note != "":
		return text + " (pgwicket's limit: " + v.note + ")"
	}
	return text
}

func straightOn(v verdict) string {
	return v.describe(v.straight, v.through, false)
}

// failsBothWays begins the text of what is to be fixed in a driver.
const failsBothWays = "fails both ways: "

// describe says what a client saw. What fails both ways proves nothing about the
// gate, so it must not be read as a refusal.
func (v verdict) describe(c, other cell, gated bool) string {
	seen, why := shorten(c.seen), v.expectedRefusal(gated)
	switch {
	case c.state == "ok":
		return strings.TrimSpace("ok " + seen)
	case c.state == "unsupported":
		return "– " + seen
	case why != "" && v.feature == "direct": // how such a connection ends depends on timing
		return "refused (" + why + ")"
	case why != "":
		return "refused: " + seen + " (" + why + ")"
	case other.state == "error":
		return failsBothWays + seen
	}
	return "refused: " + seen
}

// expectedRefusal says why a feature is refused as it should be: by a server or a client
// that does not have it, or by both for safety. It is empty for what must work.
func (v verdict) expectedRefusal(gated bool) string {
	switch {
	case v.feature == "sslmode-disable":
		return "TLS is required"
	case v.feature == "direct" && v.server < "17" && !gated:
		return "PostgreSQL's limit: it has direct TLS since 17"
	case v.feature == "direct" && slices.Contains([]string{"lib/pq", "asyncpg"}, v.client):
		return v.client + "'s limit: it has no ALPN, which direct TLS must have"
	case v.feature == "protocol-3.2" && v.server < "18":
		return "PostgreSQL's limit: it speaks 3.2 since 18"
	}
	return ""
}

// byServer merges what is the same at all servers.
func byServer(all []verdict, words func(verdict) string) string {
	var order []string
	releases := make(map[string][]string)
	for _, v := range all {
		text := tableCell(words(v))
		if releases[text] == nil {
			order = append(order, text)
		}
		releases[text] = append(releases[text], v.server)
	}
	if len(order) == 1 {
		return order[0]
	}
	for i, text := range order {
		order[i] = strings.Join(releases[text], ", ") + ": " + text
	}
	return strings.Join(order, "; ")
}

func shorten(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 160 {
		text = strings.ToValidUTF8(text[:160], "") + "…"
	}
	return text
}

func tableCell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}
