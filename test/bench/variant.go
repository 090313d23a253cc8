package main

import (
	"context"
	_ "embed" // what a variant adds
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"pgwicket/test/harness"
)

// variant is pgwicket built from this tree with a few edits, of which the tree
// itself sees nothing (go build -overlay).
type variant struct {
	name  string
	edits []edit
}

// edit replaces a text, which stands exactly once in the Go files of the product,
// by another. With nothing to replace, file is a new one.
type edit struct{ file, from, to string }

// The variants. When the product has changed a line that one of them edits, a
// test fails.
var (
	moreLoops = variant{"loops", []edit{{"", "const coresPerLoop = 4\n", "const coresPerLoop = 1\n"}}}
	profiled  = variant{"profiled", []edit{{"cmd/pgwicket/bench_profile.go", "", profileSource}}}
)

// profileSource makes pgwicket write CPU profiles: its admin address has no
// pprof, and what pprof over HTTP costs would be in the profile.
//
//go:embed testdata/profile.go
var profileSource string

// variant builds it, once.
func (l *lab) variant(ctx context.Context, v variant) (binary string, err error) {
	binary = l.file("pgwicket-" + v.name)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	root, err := harness.Root()
	if err != nil {
		return "", err
	}
	overlay, err := v.overlay(root, binary)
	if err != nil {
		return "", err
	}
	logf(l.progress, "building %s", filepath.Base(binary))
	return build(ctx, binary, gatePackage, "-overlay="+overlay)
}

// overlay writes the edited files, and what go build -overlay wants to know about
// them, next to the binary.
func (v variant) overlay(root, binary string) (string, error) {
	replace := map[string]string{}
	for i, e := range v.edits {
		file, text, err := e.apply(root)
		if err != nil {
			return "", err
		}
		to := fmt.Sprintf("%s-%d.go", binary, i)
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[file] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	return binary + ".overlay", os.WriteFile(binary+".overlay", b, 0o600)
}

// apply returns the file that is edited, and its new text.
func (e edit) apply(root string) (file, text string, err error) {
	if e.from == "" {
		return filepath.Join(root, e.file), e.to, nil
	}
	found := 0
	for _, pattern := range []string{"proxy/*.go", "internal/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return "", "", err
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				return "", "", err
			}
			if n := strings.Count(string(b), e.from); n > 0 {
				found += n
				file, text = name, strings.Replace(string(b), e.from, e.to, 1)
			}
		}
	}
	if found != 1 {
		return "", "", fmt.Errorf("the product has %q %d times, not once", e.from, found)
	}
	return file, text, nil
}
