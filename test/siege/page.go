//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"

	"pgwicket/test/harness"
)

// faultsTable is the report, in Markdown.
func faultsTable(results []result) string {
	var b strings.Builder
	b.WriteString(faultsHead)
	for _, r := range results {
		b.WriteString(faultsRow(r))
	}
	return b.String()
}

const faultsHead = "| fault | what was done | result |\n|---|---|---|\n"

func faultsRow(r result) string {
	return fmt.Sprintf("| %s | %s | %s |\n", harness.Cell(r.title), harness.Cell(r.done), harness.Cell(r.verdict))
}

// renewFaults puts rows into the table of a page. Those of other faults stay.
func renewFaults(file string, results []result) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	rows := make(map[string]string)
	for line := range strings.Lines(string(page)) {
		if title, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok {
			rows[title] = line
		}
	}
	for _, r := range results {
		rows[harness.Cell(r.title)] = faultsRow(r)
	}
	table := faultsHead
	for _, s := range scenarios() {
		table += rows[harness.Cell(s.title)]
	}
	return renew(file, "faults", table)
}

// renew replaces the part of a page that a command writes.
func renew(file, command, markdown string) error {
	return harness.Renew(file, "make "+command, markdown)
}
