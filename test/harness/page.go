package harness

import (
	"fmt"
	"os"
	"strings"
)

// Marks returns the lines of a page between which a make target writes.
func Marks(command string) (begin, end string) {
	return "<!-- begin: written by " + command + " -->", "<!-- end: written by " + command + " -->"
}

// Renew replaces what stands between the marks of a command, which must be there.
func Renew(file, command, markdown string) error {
	begin, end := Marks(command)
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(page), begin+"\n")
	_, after, closed := strings.Cut(rest, end+"\n")
	if !found || !closed {
		return fmt.Errorf("%s: it must have the lines\n%s\n%s", file, begin, end)
	}
	return os.WriteFile(file, []byte(before+begin+"\n\n"+markdown+"\n"+end+"\n"+after), 0o644) //nolint:gosec // documentation
}

// Cell makes text fit into a cell of a table.
func Cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(text), "\n", " "), "|", `\|`)
}
