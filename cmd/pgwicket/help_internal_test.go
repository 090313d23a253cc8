package main

import (
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/cli"
)

// The text of each help fits into 90 columns, and no flag has a default without a value.
func TestHelpOfEachCommand(t *testing.T) {
	t.Parallel()
	const columns = 90
	seen := 0
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		seen++
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > columns {
				t.Errorf("%s: the line %q has more than %d columns", cmd.CommandPath(), line, columns)
			}
		}
		if usages := cmd.LocalFlags().FlagUsages(); strings.Contains(usages, "(default )") {
			t.Errorf("%s: an empty default:\n%s", cmd.CommandPath(), usages)
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(rootCommand(cli.Streams{Out: io.Discard, Err: io.Discard}))
	if seen < 30 {
		t.Errorf("only %d commands", seen)
	}
}
