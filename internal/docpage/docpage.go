//go:build unix

// Package docpage reads the blocks of commands in a page of the documentation and runs
// them as its reader would. Tests of the pages use it.
package docpage

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

// Block is a fenced block of a page.
type Block struct {
	Lang    string
	Text    string
	Line    int    // of its first line of text
	Section string // the heading above it
}

// Read returns the blocks of a page, in their order.
func Read(t *testing.T, path string) (all []Block) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var section, indent string
	var open *Block
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		before, lang, fence := strings.Cut(line, "```")
		switch fence = fence && strings.TrimSpace(before) == ""; {
		case open != nil && fence:
			all, open = append(all, *open), nil
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent)
		case fence: // within a list it is indented
			indent = before
			open = &Block{Lang: strings.TrimSpace(lang), Line: n + 1, Section: section}
		case strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	if open != nil {
		t.Fatalf("%s: the block of line %d has no end", path, open.Line)
	}
	return all
}

// blockDeadline is how long a block may take: one of them builds pgwicket, which
// takes minutes on a busy machine that has never done so.
const blockDeadline = 8 * time.Minute

// Shell is the bash that a reader pastes blocks into.
type Shell struct {
	t       *testing.T
	inside  string // the directory of its files, as it sees it
	outside string // and as the test sees it
	stdin   io.WriteCloser
	ended   chan struct{}
	n       int
}

// NewShell starts one in the directory cwd. What it leaves running is killed when the
// test ends.
func NewShell(t *testing.T, cwd string, env []string) *Shell {
	t.Helper()
	cmd := exec.Command("bash", "--noprofile", "--norc")
	cmd.Dir, cmd.Env = cwd, env
	dir := t.TempDir()
	return StartShell(t, cmd, dir, dir)
}

// StartShell starts cmd, which must be a bash that reads its commands from its standard input, such
// as one in another namespace. It and the test have a directory in common, which is inside
// for the bash and outside for the test.
func StartShell(t *testing.T, cmd *exec.Cmd, inside, outside string) *Shell {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second // for what it leaves running
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &Shell{t: t, inside: inside, outside: outside, stdin: stdin, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
		if t.Failed() && said.Len() > 0 {
			t.Logf("the shell: %s", said.Bytes())
		}
	})
	s.Run("set -E -o pipefail; trap 'echo \"$BASH_COMMAND\" >>" + inside + "/failed' ERR")
	return s
}

// Run pastes a block, and returns what it prints and which of its commands have
// failed.
func (s *Shell) Run(text string) (out, failed string) {
	s.t.Helper()
	s.n++
	name := fmt.Sprint(s.n)
	path := filepath.Join(s.outside, name)
	if err := os.WriteFile(path+".sh", []byte(text), 0o644); err != nil { //nolint:gosec // the shell may be another account's
		s.t.Fatal(err)
	}
	fmt.Fprintf(s.stdin, "source %s.sh </dev/null >%[1]s.out 2>&1; : >%[1]s.done\n", filepath.Join(s.inside, name))
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
	failed = s.read(filepath.Join(s.outside, "failed"))
	_ = os.Remove(filepath.Join(s.outside, "failed"))
	return s.read(path + ".out"), failed
}

func (s *Shell) read(path string) string {
	text, _ := os.ReadFile(path)
	return string(bytes.ToValidUTF8(text, []byte("?")))
}

// Follow runs the sh blocks, and compares what they print with the text block
// below, if there is one. adapt changes in both what a reader would, and other
// is called with each block of another kind in its turn.
func (s *Shell) Follow(page []Block, adapt func(Block) string, other func(Block)) {
	s.t.Helper()
	for i, b := range page {
		if b.Lang != "sh" {
			if b.Lang != "text" {
				other(b)
			}
			continue
		}
		out, failed := s.Run(adapt(b))
		shown := ""
		if i+1 < len(page) && page[i+1].Lang == "text" {
			shown = adapt(page[i+1])
		}
		if failed != "" && !strings.Contains(shown, "error:") && !strings.Contains(shown, "refused:") {
			s.t.Fatalf("line %d: %s\nhas failed in\n%s\n%s", b.Line, failed, b.Text, out)
		}
		if shown != "" && !Matches(out, shown) {
			s.t.Fatalf("line %d:\n%s\nprints\n%s\nand the page shows\n%s", b.Line, b.Text, out, shown)
		}
	}
}

var trailing = regexp.MustCompile(`(?m)[ \t]+$`)

// Matches compares an output with one in which … stands for anything.
func Matches(out, shown string) bool {
	clean := func(text string) string { return strings.TrimSpace(trailing.ReplaceAllString(text, "")) }
	pattern := strings.ReplaceAll(regexp.QuoteMeta(clean(shown)), "…", "(?s:.*)")
	return regexp.MustCompile("^" + pattern + "$").MatchString(clean(out))
}

// Adapt returns a block of assignments with other values. Each of them must
// be there.
func Adapt(t *testing.T, b Block, values map[string]string) string {
	t.Helper()
	text := b.Text
	for name, value := range values {
		re := regexp.MustCompile(`(?m)^` + name + `=("[^"]*"|\S+)`)
		if !re.MatchString(text) {
			t.Fatalf("line %d: no variable %s in\n%s", b.Line, name, text)
		}
		text = re.ReplaceAllLiteralString(text, name+`="`+value+`"`)
	}
	return text
}
