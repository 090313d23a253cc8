package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// refusedWords must not be a word of any identifier: farewell refuses farewellSent, too.
var refusedWords = map[string]string{
	"confess":   "reportDropped",
	"dismiss":   "terminate",
	"dismisses": "draining",
	"farewell":  "refuse or sendFatal",
	"newcomer":  "newConnection",
	"newcomers": "newConnections",
	"pardon":    "cancelTermination",
	"reins":     "relayHandle",
	"unproxied": "readProxyHeader",
	"unwell":    "failures",
}

// refusedNames must not be the name of a function, method, type, field, constant or
// package variable of the product. They are ordinary words otherwise, so local variables,
// tests and the programs beside the product may have them.
var refusedNames = map[string]string{
	"askedFor":  "recordStartup",
	"asks":      "recordStartup",
	"crowd":     "limiter",
	"deaf":      "backendWriteClosed",
	"heard":     "canSendError",
	"introduce": "addClientInfo",
	"knock":     "scan",
	"lack":      "mismatch",
	"lacks":     "firstMismatch",
	"lend":      "chgrp",
	"obey":      "runPosted",
	"patience":  "authDelay",
	"patient":   "target",
	"shown":     "recordTLS",
	"spare":     "cancelTermination",
	"suspect":   "authKey",
	"tend":      "maintain",
	"tended":    "maintainDone",
	"thin":      "lowYield",
	"unwell":    "exitFailures",
	"weigh":     "keyUpdateGuard",
	"weighed":   "keyUpdateGuard",
	"wish":      "query",
	"withdraw":  "cancelTermination",
}

// refusedFuncs must not be the name of a function or method of the product.
var refusedFuncs = map[string]string{
	"account": "logAndCount",
	"do":      "post",
	"facts":   "logAttrs",
	"say":     "writeRecords",
	"tell":    "sendFatal",
	"well":    "pass",
}

// refusedText must be in no comment and no string.
var refusedText = []struct {
	text *regexp.Regexp
	use  string
}{
	{regexp.MustCompile("[\u00ab\u00bb]"), "plain double quotes"},
	{regexp.MustCompile(`(?i)\bpit\x{66}alls? \d`), "the RFC, CVE, issue or source file itself"},
}

// refusedPhrases must be in no string: in a message, a help text or an error.
var refusedPhrases = []struct {
	text *regexp.Regexp
	use  string
}{
	{regexp.MustCompile(`(?i)\bnewcomers?\b`), "new connections"},
	{regexp.MustCompile(`newcomers and live sessions are judged by it`), `"configuration reloaded"`},
	{regexp.MustCompile(`lines of the log are missing here`), `"log lines dropped"`},
	{regexp.MustCompile(`print every key as it comes out`), `"print the effective configuration and the source of each value"`},
	{regexp.MustCompile(`whoever is in by it is out`), `"its open sessions end within a second"`},
	{regexp.MustCompile(`\bwhat becomes of\b`), `"what happens to"`},
	{regexp.MustCompile(`\bwould get in\b`), `"is admitted"`},
	{regexp.MustCompile(`\bsays so\b`), `the exact verb`},
}

// TestWords refuses the words that docs/design.md has replaced, in every Go file.
func TestWords(t *testing.T) {
	t.Parallel()
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ".go") && path != filepath.Join("..", "internal", "words_test.go"):
			files++
			checkWords(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d files", files)
	}
}

func checkWords(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range wordProblems(t, path, text) {
		t.Error(p)
	}
}

// wordProblems returns what is wrong in a file, each with its position and a better word.
func wordProblems(t *testing.T, path string, text []byte) (problems []string) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	report := func(pos token.Pos, word, use string) {
		problems = append(problems, fset.Position(pos).String()+": "+word+": use "+use)
	}
	checkText := func(pos token.Pos, text string) {
		for _, r := range refusedText {
			if word := r.text.FindString(text); word != "" {
				report(pos, word, r.use)
			}
		}
	}
	for _, group := range file.Comments {
		for _, c := range group.List {
			checkText(c.Pos(), c.Text)
		}
	}
	product := isProduct(path)
	for _, name := range declaredNames(file) {
		if use, ok := refusedNames[name.Name]; ok && product {
			report(name.Pos(), name.Name, use)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if use, ok := refusedFuncs[n.Name.Name]; ok && product {
				report(n.Name.Pos(), n.Name.Name, use)
			}
		case *ast.Ident:
			for _, word := range identifierWords(n.Name) {
				if use, ok := refusedWords[word]; ok {
					report(n.Pos(), n.Name, use)
				}
			}
		case *ast.BasicLit:
			if n.Kind != token.STRING {
				break
			}
			checkText(n.Pos(), n.Value)
			for _, r := range refusedPhrases {
				if word := r.text.FindString(n.Value); word != "" {
					report(n.Pos(), word, r.use)
				}
			}
		}
		return true
	})
	return problems
}

// isProduct reports whether a file is part of what ships.
func isProduct(path string) bool {
	top, _, _ := strings.Cut(strings.TrimPrefix(filepath.ToSlash(path), "../"), "/")
	return !strings.HasSuffix(path, "_test.go") && slices.Contains([]string{"acl", "cmd", "config", "internal", "metrics", "proxy", "tlsconfig"}, top)
}

// declaredNames returns the names of functions, methods, types, fields, and of constants
// and variables of the package.
func declaredNames(file *ast.File) (names []*ast.Ident) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if v, ok := s.(*ast.ValueSpec); ok {
					names = append(names, v.Names...)
				}
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			names = append(names, n.Name)
		case *ast.StructType:
			for _, f := range n.Fields.List {
				names = append(names, f.Names...)
			}
		case *ast.InterfaceType:
			for _, f := range n.Methods.List {
				names = append(names, f.Names...)
			}
		}
		return true
	})
	return names
}

// identifierWords splits a camel-case identifier into words in lower case.
func identifierWords(name string) []string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) || r == '_' {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.Fields(b.String())
}

// The check finds what it must find, and allows the same words where they are ordinary.
func TestWordsAreFound(t *testing.T) {
	t.Parallel()
	bad := "package p\n// see pit\x66all 7\nvar farewellSent bool\ntype wish struct{ deaf bool }\nfunc (wish) say() { _ = \"\u00abx\u00bb and newcomers\" }\n"
	got := strings.Join(wordProblems(t, "../acl/bad.go", []byte(bad)), "\n")
	for _, want := range []string{"bad.go:2:1: pit\x66all 7", "bad.go:3:5: farewellSent", "bad.go:4:6: wish: use query", "bad.go:4:19: deaf", "bad.go:5:13: say: use writeRecords", "\u00ab: use plain", "newcomers: use new connections"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	good := "package p\nfunc f(shown bool, account string) (spare int) { weigh := account; _ = weigh; return 1 }\n"
	if got := wordProblems(t, "../acl/good.go", []byte(good)); len(got) > 0 {
		t.Error(got)
	}
}
