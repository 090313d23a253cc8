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

// tuning is the lines that may go without anybody noticing: a taste, a note for people, or what is the default anyway.
var tuning = []string{
	"duration: 2160h", // cert-manager's default
	"periodSeconds: 1",
	"periodSeconds: 5",
	"failureThreshold: 60",
}

var key = regexp.MustCompile(`([A-Za-z0-9_./$-]*[A-Za-z])"?:( |$)`)

// mutants returns the text with each key misspelt, and with each line deleted.
func mutants(text []byte) map[string][]byte {
	made := map[string][]byte{}
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i, line := range lines {
		bare := bytes.TrimSpace(line)
		if len(bare) == 0 || bytes.HasPrefix(bare, []byte("#")) || bytes.HasPrefix(bare, []byte("{{/*")) {
			continue
		}
		without := slices.Concat(lines[:i:i], lines[i+1:])
		made[fmt.Sprintf("%d without «%s»", i+1, bare)] = bytes.Join(without, nil)
		for _, at := range key.FindAllSubmatchIndex(line, -1) {
			misspelt := slices.Concat(line[:at[3]], []byte("x"), line[at[3]:])
			changed := slices.Concat(lines[:i:i], [][]byte{misspelt}, lines[i+1:])
			made[fmt.Sprintf("%d with «%s»", i+1, bytes.TrimSpace(misspelt))] = bytes.Join(changed, nil)
		}
	}
	return made
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
		if path.Ext(name) != ".yaml" && path.Base(name) != "pg_hba.conf" {
			continue
		}
		t.Run(strings.ReplaceAll(name, "/", ","), func(t *testing.T) {
			t.Parallel()
			all := mutants(files[name])
			if len(all) == 0 {
				t.Fatal("there is nothing to get wrong")
			}
			for _, what := range slices.Sorted(maps.Keys(all)) {
				caught := caughtBy(t, name, files.with(name, all[what]), p, binary)
				free := slices.ContainsFunc(tuning, func(line string) bool { return strings.Contains(what, "without «"+line+"»") })
				if !caught && !free {
					t.Errorf("%s is not noticed", what)
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
