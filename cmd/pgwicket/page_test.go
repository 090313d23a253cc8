//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is a fenced block of a page of docs.
type block struct {
	lang    string
	text    string
	line    int    // of its first line of text
	section string // the heading above it
}

// pages returns the names of the pages of docs.
func pages(t *testing.T) (names []string) {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

func readPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks returns those of a page, in their order.
func blocks(t *testing.T, page string) (all []block) {
	t.Helper()
	text := readPage(t, page)
	var section, indent string
	var open *block
	n := 0
	for line := range strings.Lines(text) {
		n++
		before, lang, fence := strings.Cut(line, "```")
		switch fence = fence && strings.TrimSpace(before) == ""; {
		case open != nil && fence:
			all, open = append(all, *open), nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent)
		case fence: // within a list it is indented
			indent = before
			open = &block{lang: strings.TrimSpace(lang), line: n + 1, section: section}
		case strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	if open != nil {
		t.Fatalf("docs/%s: the block of line %d has no end", page, open.line)
	}
	return all
}

// blockDeadline is how long a block may take: one of them builds pgwicket, which
// takes minutes on a busy machine that has never done so.
const blockDeadline = 8 * deadline

// shell is the bash that a reader pastes blocks into.
type shell struct {
	t     *testing.T
	dir   string // for its own files
	stdin io.WriteCloser
	ended chan struct{}
	n     int
}

// newShell starts one in the directory cwd. What it leaves running is killed
// when the test ends.
func newShell(t *testing.T, cwd string, env []string) *shell {
	t.Helper()
	cmd := exec.Command("bash", "--noprofile", "--norc")
	cmd.Dir, cmd.Env = cwd, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, dir: t.TempDir(), stdin: stdin, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
	})
	s.run("set -E -o pipefail; trap 'echo \"$BASH_COMMAND\" >>" + s.dir + "/failed' ERR")
	return s
}

// run pastes a block, and returns what it prints and which of its commands have
// failed.
func (s *shell) run(text string) (out, failed string) {
	s.t.Helper()
	s.n++
	path := filepath.Join(s.dir, fmt.Sprint(s.n))
	if err := os.WriteFile(path+".sh", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(s.stdin, "source %s.sh </dev/null >%[1]s.out 2>&1; : >%[1]s.done\n", path)
	for end := time.Now().Add(blockDeadline); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path + ".done"); err == nil {
			break
		}
		select {
		case <-s.ended:
			s.t.Fatalf("the shell has ended in\n%s\n%s", text, s.read(path+".out"))
		default:
		}
		if time.Now().After(end) {
			s.t.Fatalf("after %v it still runs\n%s\n%s", blockDeadline, text, s.read(path+".out"))
		}
	}
	failed = s.read(filepath.Join(s.dir, "failed"))
	_ = os.Remove(filepath.Join(s.dir, "failed"))
	return s.read(path + ".out"), failed
}

func (s *shell) read(path string) string {
	text, _ := os.ReadFile(path)
	return string(bytes.ToValidUTF8(text, []byte("?")))
}

// follow runs the sh blocks, and compares what they print with the text block
// below, if there is one. adapt changes in both what a reader would, and other
// is called with each block of another kind in its turn.
func (s *shell) follow(page []block, adapt func(block) string, other func(block)) {
	s.t.Helper()
	for i, b := range page {
		if b.lang != "sh" {
			if b.lang != "text" {
				other(b)
			}
			continue
		}
		out, failed := s.run(adapt(b))
		shown := ""
		if i+1 < len(page) && page[i+1].lang == "text" {
			shown = adapt(page[i+1])
		}
		if failed != "" && !strings.Contains(shown, "error:") && !strings.Contains(shown, "refused:") {
			s.t.Fatalf("line %d: %s\nhas failed in\n%s\n%s", b.line, failed, b.text, out)
		}
		if shown != "" && !looksLike(out, shown) {
			s.t.Fatalf("line %d:\n%s\nprints\n%s\nand the page shows\n%s", b.line, b.text, out, shown)
		}
	}
}

var trailing = regexp.MustCompile(`(?m)[ \t]+$`)

// looksLike compares an output with one in which … stands for anything.
func looksLike(out, shown string) bool {
	clean := func(text string) string { return strings.TrimSpace(trailing.ReplaceAllString(text, "")) }
	pattern := strings.ReplaceAll(regexp.QuoteMeta(clean(shown)), "…", "(?s:.*)")
	return regexp.MustCompile("^" + pattern + "$").MatchString(clean(out))
}

// adapted returns a block of assignments with other values. Each of them must
// be there.
func adapted(t *testing.T, b block, values map[string]string) string {
	t.Helper()
	text := b.text
	for name, value := range values {
		re := regexp.MustCompile(`(?m)^` + name + `=("[^"]*"|\S+)`)
		if !re.MatchString(text) {
			t.Fatalf("line %d: no variable %s in\n%s", b.line, name, text)
		}
		text = re.ReplaceAllLiteralString(text, name+`="`+value+`"`)
	}
	return text
}

func TestLooksLike(t *testing.T) {
	for _, c := range []struct {
		out, shown string
		want       bool
	}{
		{"a\nb\n", "a\nb", true},
		{"a  \nb", "a\nb", true},
		{"a\nb\nc", "a\n…\nc", true},
		{"until 2030 (3 days)", "until … (3 days)", true},
		{"a\nb\nc", "a\nc", false},
		{"a\nb", "a", false},
		{"(1 row)", "(2 row)", false},
	} {
		if got := looksLike(c.out, c.shown); got != c.want {
			t.Errorf("%q and %q: %t", c.out, c.shown, got)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([a-z-]*\.md)?(?:#([^)]+))?\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped = regexp.MustCompile(`[^\w\- ]`)
)

// TestPagesLinks: what a page of docs refers to within docs has a heading of that
// name.
func TestPagesLinks(t *testing.T) {
	text := make(map[string]string)
	anchors := make(map[string]bool)
	for _, name := range pages(t) {
		text[name] = readPage(t, name)
		for _, m := range heading.FindAllStringSubmatch(text[name], -1) {
			anchors[name+"#"+strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
		}
	}
	for name, page := range text {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			to, anchor := m[1], m[2]
			if to == "" {
				to = name
			}
			if text[to] == "" {
				t.Errorf("docs/%s refers to %s, which is not there", name, to)
			} else if anchor != "" && !anchors[to+"#"+anchor] {
				t.Errorf("docs/%s refers to %s, which has no heading %s", name, to, anchor)
			}
		}
	}
}
