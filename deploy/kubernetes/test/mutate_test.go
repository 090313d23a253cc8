package kubernetes_test

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tuning is the lines that may go: a matter of taste, or what the patch of the sidecar takes away anyway.
var tuning = []string{"periodSeconds: 1", "periodSeconds: 5", "min_protocol_version: TLSv1.3", "- {name: postgresql, containerPort: 5432}"}

var (
	key       = regexp.MustCompile(`([A-Za-z0-9_./$-]*[A-Za-z])"?:( |$)`)
	reference = regexp.MustCompile(`(\.(?:Values|Chart|Release)(?:\.[A-Za-z]+)+|"pgwicket\.[a-z]+)`)
)

// mutants returns the text with each key and each reference misspelt, and with each line deleted.
func mutants(name string, text []byte) map[string][]byte {
	made := map[string][]byte{}
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i, line := range lines {
		bare := bytes.TrimSpace(line)
		if len(bare) == 0 || bytes.HasPrefix(bare, []byte("#")) || inProse(name, text, line) {
			continue
		}
		if path.Ext(name) != ".txt" {
			made[fmt.Sprintf("%d without %q", i+1, bare)] = bytes.Join(slices.Concat(lines[:i:i], lines[i+1:]), nil)
		}
		ends := reference.FindAllSubmatchIndex(line, -1)
		if path.Ext(name) != ".txt" {
			ends = append(ends, key.FindAllSubmatchIndex(line, -1)...)
		}
		for _, at := range ends {
			misspelt := slices.Concat(line[:at[3]], []byte("x"), line[at[3]:])
			made[fmt.Sprintf("%d with %q", i+1, bytes.TrimSpace(misspelt))] = bytes.Join(slices.Concat(lines[:i:i], [][]byte{misspelt}, lines[i+1:]), nil)
		}
	}
	return made
}

// inProse reports whether a line of a template is in a comment.
func inProse(name string, text, line []byte) bool {
	if path.Ext(name) != ".tpl" {
		return false
	}
	for _, comment := range regexp.MustCompile(`(?s){{/\*.*?\*/}}\n`).FindAll(text, -1) {
		if bytes.Contains(comment, line) {
			return true
		}
	}
	return false
}

// uses reports whether a file takes part in a rendering.
func (r *rendering) uses(file string) bool {
	if r.dir == "" {
		return strings.HasPrefix(file, chartDir)
	}
	dir := path.Dir(file)
	switch path.Base(dir) {
	case "ca":
		return strings.HasPrefix(r.dir, "kubernetes/examples/")
	case "gateway", "sidecar":
		return dir == r.dir || path.Base(dir) == path.Base(r.dir) && !strings.Contains(dir, "examples")
	}
	return false
}

// TestTyposAreCaught: the checks of this package are worth something only if they see a misspelt key and a missing
// line in every file, wherever it is.
func TestTyposAreCaught(t *testing.T) {
	files, binary, p := readTree(t), pgwicket(t), newPKI("pgwicket")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if slices.Contains([]string{".json", ".helmignore"}, path.Ext(name)) {
			continue // the one has a test of its own, the other is for the machines of people
		}
		t.Run(strings.ReplaceAll(name, "/", ","), func(t *testing.T) {
			t.Parallel()
			all := mutants(name, files[name])
			if len(all) == 0 {
				t.Fatal("there is nothing to get wrong")
			}
			for _, what := range slices.Sorted(maps.Keys(all)) {
				caught := caughtBy(t, name, files.with(name, all[what]), p, binary)
				free := slices.ContainsFunc(tuning, func(line string) bool { return strings.Contains(what, fmt.Sprintf("without %q", line)) })
				if caught == free {
					t.Errorf("noticed: %t, but may go: %t: %s", caught, free, what)
				}
			}
		})
	}
}

func caughtBy(t *testing.T, name string, files tree, p *pki, binary string) bool {
	for _, r := range renderings() {
		if !r.uses(name) {
			continue
		}
		if _, err := r.examine(t, files, p, binary); err != nil {
			return true
		}
	}
	return false
}
