//go:build linux

package main

import (
	"fmt"
	"strings"
)

// wrongMoments returns what is not as it should be for a client.
func wrongMoments(seen map[string]told) (wrong []string) {
	for _, m := range moments() {
		t := seen[m.title]
		if len(t.through) != len(m.sees) || len(t.straight) != len(m.sees) {
			continue // the error of the client is reported
		}
		if why := m.wrong(t); why != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %s: %s: through the gate %v, straight %v", t.client, m.title, why, t.through, t.straight))
		}
	}
	return wrong
}

// says is whether a client was refused, in these words where it shows any.
func (r reply) says(words string) bool { return r.state == "error" && strings.Contains(r.text, words) }

func limitIsTold(t told) string {
	switch {
	case !t.through[0].says("too many clients"):
		return "a client over the limit is not told so"
	case t.through[1].state != "ok":
		return "there is no room after a session has ended"
	}
	return ""
}

// cancelWorks does not judge the next query: a client that opens another connection for
// it may come before the old one has left.
func cancelWorks(t told) string {
	if t.through[0].state == "ok" || t.through[0].code != t.straight[0].code {
		return "the query is not cancelled"
	}
	return ""
}

func endIsTheSame(t told) string {
	switch {
	case t.through[0].code != t.straight[0].code || t.through[1].code != t.straight[1].code:
		return "the client sees another end"
	case t.through[2].state != "ok":
		return "there is no new session"
	}
	return ""
}

func drainIsTold(t told) string {
	switch {
	case !t.through[0].says("the gate is shutting down"):
		return "a new client is not told of the drain"
	case t.through[1].state == "ok" || t.through[1].code != t.straight[1].code:
		return "a query cannot be cancelled during a drain"
	case t.through[4].state != "ok":
		return "there is no new session after it"
	}
	return ""
}

func restartIsTold(t told) string {
	switch {
	case t.through[0].state != t.straight[0].state:
		return "the client sees another end"
	case !t.through[1].says("the database cannot be reached"):
		return "a new client is not told why"
	case t.through[3].state != "ok":
		return "there is no new session after it"
	}
	return ""
}

// strangerIsTold knows clients that read which CAs the server accepts, and then send no
// certificate: pgx and JDBC.
func strangerIsTold(t told) string {
	switch {
	case t.straight[0].says("requires a valid client certificate") && t.through[0].says("no pgwicket rule"):
		return ""
	case t.straight[0].state == "ok":
		return "PostgreSQL admits it"
	case !t.through[0].says("signed by an unknown authority"):
		return "a new client is not told why"
	}
	return ""
}

func revocationIsTold(t told) string {
	switch {
	case t.through[0].state == "ok":
		return "the session goes on"
	case !t.through[1].says("client certificate was revoked"):
		return "a new client is not told why"
	}
	return ""
}

const albumHead = `What each client sees of what happens to its sessions, through a gate, and straight with the same thing done to PostgreSQL. A cell has
the SQLSTATE, if the client tells it, and the text. "ok" is an answer: in the column of the next query the client has
connected again by itself, and else the program has to.
`

func (a *album) markdown() string {
	var b strings.Builder
	b.WriteString(albumHead)
	fmt.Fprintf(&b, "\nPostgreSQL %s.\n", a.server)
	for _, m := range moments() {
		fmt.Fprintf(&b, "\n### %s\n\nThrough the gate: %s. Straight: %s.\n\n", m.title, m.gate, m.straight)
		fmt.Fprintf(&b, "| client | way | %s |\n|---|---|%s\n", strings.Join(m.sees, " | "), strings.Repeat("---|", len(m.sees)))
		for _, t := range a.of[m.title] {
			row(&b, t.client, "gate", t.through)
			row(&b, "", "straight", t.straight)
		}
	}
	if len(a.keys) > 0 {
		fmt.Fprintf(&b, "\n### %s\n\nA COPY of 256 MiB by JDBC, with `jdk.tls.keyLimits` at 64 MiB for the 128 GiB that are its default.\n\n", keyMoment)
		b.WriteString("| way | the COPY | outcome in the log |\n|---|---|---|\n" + strings.Join(a.keys, "\n") + "\n")
	}
	if len(a.unavailable) > 0 {
		b.WriteString("\n### Not run\n\n| client | why |\n|---|---|\n" + strings.Join(a.unavailable, ""))
	}
	return b.String()
}

func row(b *strings.Builder, client, way string, seen []reply) {
	fmt.Fprintf(b, "| %s | %s |", client, way)
	for _, r := range seen {
		fmt.Fprintf(b, " %s |", tableCell(r.String()))
	}
	b.WriteString("\n")
}
