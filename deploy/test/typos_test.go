package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// top is the top of the source tree.
const top = "../.."

// reviewed is a file, and what says whether anything is wrong with one like it.
type reviewed struct {
	file  string // below top
	check func(path string) error
	// Lines that nobody would miss, and those whose first word is for people: nothing
	// can notice a mistake in them.
	spare, prose []string
}

// mutant is a text with one mistake.
type mutant struct{ mistake, text string }

// name is what a line begins with, without the marks of a list.
var name = regexp.MustCompile(`[A-Za-z_]{2,}`)

// mutants makes two of each line that is not a comment: one in which its first name is
// misspelled, and one without the line.
func (r reviewed) mutants(text string) (all []mutant) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		bare := strings.TrimSpace(line)
		if bare == "" || strings.HasPrefix(bare, "#") {
			continue
		}
		if at := name.FindStringIndex(line); at != nil && !listed(r.prose, bare) {
			second := at[0] + 1
			all = append(all, mutant{"misspelled: " + bare, replaced(lines, i, line[:second+1]+line[second:])})
		}
		if !listed(r.spare, bare) {
			all = append(all, mutant{"missing: " + bare, replaced(lines, i)})
		}
	}
	return all
}

func listed(prefixes []string, line string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) })
}

func replaced(lines []string, i int, by ...string) string {
	return strings.Join(slices.Concat(lines[:i], by, lines[i+1:]), "\n")
}

// review wants the file to pass, and each of its mutants to be caught.
func review(t *testing.T, r reviewed) {
	t.Helper()
	text := read(t, r.file)
	path := filepath.Join(t.TempDir(), filepath.Base(r.file))
	write(t, path, text)
	if err := r.check(path); err != nil {
		t.Fatalf("%s: %v", r.file, err)
	}
	mutants := r.mutants(text)
	if len(mutants) == 0 {
		t.Fatalf("%s: nothing to misspell", r.file)
	}
	for _, m := range mutants {
		write(t, path, m.text)
		if r.check(path) == nil {
			t.Errorf("%s: not noticed: %s", r.file, m.mistake)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// swap puts what is true here in the place of what a file has for the world outside.
func swap(t *testing.T, text, outside, here string) string {
	t.Helper()
	if strings.Count(text, outside) != 1 {
		t.Fatalf("want %q once in\n%s", outside, text)
	}
	return strings.Replace(text, outside, here, 1)
}
