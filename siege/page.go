//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
)

// faultsTable is the report, in Markdown.
func faultsTable(results []result) string {
	var b strings.Builder
	b.WriteString("| fault | what was done | result |\n|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(r.title), cell(r.done), cell(r.verdict))
	}
	return b.String()
}

func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(text), "\n", " "), "|", `\|`)
}

// renew replaces the block of a page that a subcommand writes.
func renew(file, name, markdown string) error {
	begin := "<!-- begin of what «go run ./siege " + name + " --into» writes -->\n"
	end := "<!-- end of what «go run ./siege " + name + " --into» writes -->\n"
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s: it must have the lines\n%s%s", file, begin, end)
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+markdown+"\n"+end+after), 0o644) //nolint:gosec // documentation
}
