//go:build linux

package main

import (
	"fmt"
	"strings"

	"pgwicket/test/harness"
)

// faultsTable is the report, in Markdown.
func faultsTable(results []result) string {
	var b strings.Builder
	b.WriteString("| fault | what was done | result |\n|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", harness.Cell(r.title), harness.Cell(r.done), harness.Cell(r.verdict))
	}
	return b.String()
}

// renew replaces the part of a page that a command writes.
func renew(file, command, markdown string) error {
	return harness.Renew(file, "make "+command, markdown)
}
