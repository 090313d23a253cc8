package internal_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	maxPackage = 3000 // lines of a package without its tests
	maxFunc    = 60   // lines between the braces of a function
	maxStruct  = 20   // fields
)

// maxPackages are the packages with a limit of their own.
var maxPackages = map[string]int{"cmd/pgwicket": 2500}

// testData are packages that are lists of cases for tests. They may be long, and no function of theirs may.
var testData = []string{"internal/tlstest/chains"}

// manyFields are the packages whose structs are lists: of series, and of keys.
var manyFields = []string{"metrics", "config", "tlsconfig"}

// TestSizes keeps each part of the product small enough to be read at once.
func TestSizes(t *testing.T) {
	t.Parallel()
	for name, files := range productFiles(t) {
		lines := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(text, []byte("\n"))
			for _, p := range sizeProblems(t, file, text, slices.Contains(manyFields, name)) {
				t.Error(p)
			}
		}
		limit := maxPackage
		if own, ok := maxPackages[name]; ok {
			limit = own
		}
		if lines > limit && !slices.Contains(testData, name) {
			t.Errorf("%s has %d lines, and at most %d are allowed", name, lines, limit)
		}
	}
}

// productFiles returns the Go files of each package of this module, for every system, without the tests.
func productFiles(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, p := range list(t, "linux") {
		if len(p.GoFiles) == 0 {
			continue // nothing but tests
		}
		files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })
	}
	return all
}

// sizeProblems returns the functions and structs of a file that are too large.
func sizeProblems(t *testing.T, path string, text []byte, manyFields bool) (problems []string) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Body == nil {
				return false
			}
			if lines := fset.Position(n.Body.Rbrace).Line - fset.Position(n.Body.Lbrace).Line - 1; lines > maxFunc {
				problems = append(problems, fmt.Sprintf("%s: %s has %d lines, and at most %d are allowed", fset.Position(n.Pos()), n.Name.Name, lines, maxFunc))
			}
		case *ast.StructType:
			if fields := n.Fields.NumFields(); fields > maxStruct && !manyFields {
				problems = append(problems, fmt.Sprintf("%s: a struct has %d fields, and at most %d are allowed", fset.Position(n.Pos()), fields, maxStruct))
			}
		}
		return true
	})
	return problems
}

// The check finds what it must find, and nothing else.
func TestSizesAreFound(t *testing.T) {
	t.Parallel()
	of := func(lines, fields int) []byte {
		return []byte("package p\nfunc f() {" + strings.Repeat("\n", lines+1) + "}\ntype t struct{" + strings.Repeat("a, b int;", fields/2) + strings.Repeat("c int;", fields%2) + "}\n")
	}
	for _, tt := range []struct {
		lines, fields int
		many          bool
		want          int
	}{
		{maxFunc, maxStruct, false, 0},
		{maxFunc + 1, maxStruct, false, 1},
		{maxFunc, maxStruct + 1, false, 1},
		{maxFunc, maxStruct + 1, true, 0},
	} {
		if got := sizeProblems(t, "p.go", of(tt.lines, tt.fields), tt.many); len(got) != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// treeLine is a line of the tree in docs/design.md: one directory or several, then what is in them.
var treeLine = regexp.MustCompile(`^([a-z][a-z/-]*/(?:, [a-z][a-z/-]*/)*)\s`)

// TestTree compares the tree in docs/design.md with the packages that there are.
func TestTree(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## The tree\n\n```\n")
	tree, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/design.md has no tree")
	}
	documented := make(map[string]bool)
	for line := range strings.Lines(tree) {
		m := treeLine.FindStringSubmatch(line)
		if m == nil {
			continue // goes on with the line before
		}
		for name := range strings.SplitSeq(m[1], ", ") {
			name = strings.TrimSuffix(name, "/")
			documented[name] = true
			if st, err := os.Stat(filepath.Join("..", name)); err != nil || !st.IsDir() {
				t.Errorf("docs/design.md: there is no directory %s", name)
			}
		}
	}
	packages := productFiles(t)
	for name := range packages {
		if !documented[name] {
			t.Errorf("docs/design.md does not list %s", name)
		}
	}
	for name := range documented {
		if _, ok := packages[name]; !ok && !slices.Contains([]string{"test", "test/ca", "deploy", "tools"}, name) {
			t.Errorf("docs/design.md lists %s, which is not a package", name)
		}
	}
}
