//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pgwicket/cmd/pgwicket/cli"
)

// printed runs a command and returns what it prints.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	if status := run(args, cli.Streams{In: os.Stdin, Out: &out, Err: &stderr}); status != cli.OK || stderr.Len() > 0 {
		t.Fatalf("pgwicket %s: status %d, %s", strings.Join(args, " "), status, stderr.String())
	}
	return out.String()
}

// commands returns all commands of the program.
func commands() []*cobra.Command {
	return rootCommand(cli.Streams{In: os.Stdin, Out: io.Discard, Err: io.Discard}).Commands()
}

// The help of each command explains its flags and, where it has any, its exit status.
func TestHelpOfEveryCommand(t *testing.T) {
	t.Parallel()
	for _, c := range commands() {
		help := printed(t, c.Name(), "--help")
		if c.Short == "" || !strings.HasPrefix(help, c.Long) {
			t.Errorf("%s is not explained", c.Name())
		}
		if c.Flags().Lookup("config") != nil && !strings.Contains(help, "\nExit status: ") {
			t.Errorf("the exit status of %s is not explained", c.Name())
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			_, usage := pflag.UnquoteUsage(f)
			if usage == "" || !strings.Contains(help, " --"+f.Name+" ") || !strings.Contains(help, usage) {
				t.Errorf("--%s of %s is not explained", f.Name, c.Name())
			}
		})
	}
}

// completions are words of a command line, and what is offered for the last.
var completions = []struct {
	words []string
	want  []string // nil: nothing
	files bool     // the shell offers files
}{
	{[]string{"fire"}, []string{"firewall"}, false},
	{[]string{"ca", "re"}, []string{"renew", "revoke"}, false},
	{[]string{"ca", "export", "app", "--format", "p"}, []string{"pem", "pkcs12"}, false},
	{[]string{"ca", "revoke", "app", "--reason", "k"}, []string{"keyCompromise"}, false},
	{[]string{"co"}, []string{"completion", "config"}, false},
	{[]string{"firewall", "--f"}, []string{"--format"}, false},
	{[]string{"firewall", "--"}, []string{"--action", "--check", "--config", "--format", "--help"}, false},
	{[]string{"firewall", "--format", ""}, []string{"nftables", "systemd"}, false},
	{[]string{"firewall", "--check", "--action", "d"}, []string{"drop"}, false},
	{[]string{"explain", "--user", "app", "--sou"}, []string{"--source"}, false},
	{[]string{"explain", "--replication", ""}, []string{"database", "physical"}, false},
	{[]string{"completion", "f"}, []string{"fish"}, false},
	{[]string{"help", "expl"}, []string{"explain"}, false},
	{[]string{"serve", "--config", "pg"}, nil, true},
	{[]string{"explain", "--cert", "pgw"}, nil, true},
	{[]string{"explain", "--user", ""}, nil, false},
	{[]string{"check", "pgw"}, nil, true},
	{[]string{"version", ""}, nil, false},
}

// TestComplete asks as the scripts of the shells do.
func TestComplete(t *testing.T) {
	t.Parallel()
	for _, c := range completions {
		var out bytes.Buffer
		run(append([]string{"__complete"}, c.words...), cli.Streams{In: os.Stdin, Out: &out, Err: io.Discard})
		var got []string
		directive, last := "", c.words[len(c.words)-1]
		for line := range strings.Lines(out.String()) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			switch {
			case strings.HasPrefix(word, ":"):
				directive = word
			case word != "-h" && strings.HasPrefix(word, last) && word != "":
				got = append(got, word)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) || (directive == ":0") != c.files {
			t.Errorf("%q: %q and %s, want %q, files %t", c.words, got, directive, c.want, c.files)
		}
	}
}

// stageCompletion makes a directory with the script for a shell and files to complete.
func stageCompletion(t *testing.T, shell string) (dir string) {
	t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		t.Skipf("there is no %s", shell)
	}
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "pg dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"pgwicket.yaml": "", "completion": printed(t, "completion", shell)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// offered runs a shell and returns the lines that it prints, sorted.
func offered(t *testing.T, dir string, command ...string) (lines []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8", "TERM=dumb")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Errorf("%s: %v: %s%s", command[0], err, out, stderr.String())
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// An interactive bash completes commands, flags, words and files.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	dir := stageCompletion(t, "bash")
	const library = "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(library); err != nil {
		t.Skip("there is no bash-completion")
	}
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("there is no script")
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qec", "bash --norc --noprofile -i", "/dev/null")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8", "TERM=dumb", "PS1=$ ", "INPUTRC=/dev/null", "HISTFILE=")
	cmd.Stdin = strings.NewReader("source " + library + "\nsource ./completion\n" +
		"pgwicket() { if [ \"$1\" = __complete ]; then command pgwicket \"$@\"; else printf 'got:<%s>' \"$@\"; echo; fi; }\n" +
		"pgwicket fire\t--fo\tsys\t\npgwicket serve --config pgw\t\nexit\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"got:<firewall>got:<--format>got:<systemd>", "got:<serve>got:<--config>got:<pgwicket.yaml>"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %s in %q", want, out)
		}
	}
}

func TestCompletionInFish(t *testing.T) {
	t.Parallel()
	dir := stageCompletion(t, "fish")
	for _, c := range completions {
		line := "pgwicket " + strings.Join(c.words, " ")
		var got []string
		for _, l := range offered(t, dir, "fish", "--no-config", "-c", "source ./completion; complete -C '"+line+"'") {
			word, _, _ := strings.Cut(l, "\t")
			got = append(got, word)
		}
		want := c.want
		if c.files {
			want = []string{"pgwicket.yaml"}
			got = slices.DeleteFunc(got, func(w string) bool { return strings.HasPrefix(w, "pg dir") || strings.HasPrefix(w, `pg\ dir`) })
		}
		got = slices.DeleteFunc(got, func(w string) bool { return w == "-h" })
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// zsh loads the script and completes pgwicket with it.
func TestCompletionInZsh(t *testing.T) {
	t.Parallel()
	dir := stageCompletion(t, "zsh")
	const load = `autoload -U compinit
compinit -u -D
source ./completion
print -r -- ${_comps[pgwicket]}
whence -w _pgwicket`
	if got, want := offered(t, dir, "zsh", "-f", "-c", load), []string{"_pgwicket", "_pgwicket: function"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The manual page has every command, flag and help text, and neither mandoc nor groff
// complains.
func TestMan(t *testing.T) {
	t.Parallel()
	root := rootCommand(cli.Streams{In: os.Stdin, Out: io.Discard, Err: io.Discard})
	page, err := renderMan(root, "1.0", time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pgwicket.8")
	if err := os.WriteFile(path, page, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, checker := range [][]string{{"mandoc", "-T", "lint", "-W", "warning"}, {"groff", "-man", "-ww", "-Tutf8", "-z"}} {
		if _, err := exec.LookPath(checker[0]); err != nil {
			t.Logf("without %s", checker[0])
			continue
		}
		if out, err := exec.Command(checker[0], append(checker[1:], path)...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", checker[0], err, out)
		}
	}
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("there is no mandoc")
	}
	out, err := exec.Command("mandoc", "-T", "utf8", "-O", "width=200", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	text := asWords(overstrike(string(out)))
	for _, c := range root.Commands() {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(text, " --"+f.Name+" ") {
				t.Errorf("--%s of %s is missing", f.Name, c.Name())
			}
		})
		for paragraph := range strings.SplitSeq(c.Long, "\n\n") {
			if !strings.Contains(text, asWords(paragraph)) {
				t.Errorf("%s: %q is missing", c.Name(), paragraph)
			}
		}
		if !strings.Contains(text, asWords(c.Example)) {
			t.Errorf("%s: the examples are missing", c.Name())
		}
	}
}

// overstrike removes the backspaces by which mandoc prints bold and underlined text.
func overstrike(text string) string {
	var out []rune
	for _, r := range text {
		if r == '\b' && len(out) > 0 {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, r)
	}
	return string(out)
}

func asWords(text string) string { return strings.Join(strings.Fields(text), " ") }

// Wrong usage is one line on standard error, with the way to help.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`pgwicket: unknown command "serv" (did you mean serve?); see "pgwicket --help"`:                                       {"serv"},
		`pgwicket: unknown flag: --verson (did you mean --version?); see "pgwicket --help"`:                                   {"--verson"},
		`pgwicket firewall: unknown flag: --formt (did you mean --format?); see "pgwicket firewall --help"`:                   {"firewall", "--formt", "nftables"},
		`pgwicket check: unknown shorthand flag: 'c' in -config (did you mean --config?); see "pgwicket check --help"`:        {"check", "-config", "x"},
		`pgwicket serve: unexpected argument "a.yaml" (did you mean --config a.yaml?); see "pgwicket serve --help"`:           {"serve", "a.yaml"},
		`pgwicket doctor: unexpected argument "main.go" (did you mean --config main.go?); see "pgwicket doctor --help"`:       {"doctor", "main.go"},
		`pgwicket config: unexpected argument "x"; see "pgwicket config --help"`:                                              {"config", "x"},
		`pgwicket backoffs: unknown command "list" (did you mean pgwicket backoffs alone?); see "pgwicket backoffs --help"`:   {"backoffs", "list"},
		`pgwicket doctor: --session-cert is missing: a certificate and its key belong together; see "pgwicket doctor --help"`: {"doctor", "--session-key", "x"},
		`pgwicket help: unknown command "zzzzzzzz"; see "pgwicket help --help"`:                                               {"help", "zzzzzzzz"},
		`pgwicket completion: write bash, zsh or fish; see "pgwicket completion --help"`:                                      {"completion"},
	} {
		var stderr bytes.Buffer
		if status := run(args, cli.Streams{In: os.Stdin, Out: io.Discard, Err: &stderr}); status != cli.Usage || stderr.String() != want+"\n" {
			t.Errorf("%q: status %d, %s", args, status, stderr.String())
		}
	}
	for _, args := range [][]string{{"tcsh"}, {"bash", "zsh"}, {"--bash"}} {
		var stderr bytes.Buffer
		if status := run(append([]string{"completion"}, args...), cli.Streams{In: os.Stdin, Out: io.Discard, Err: &stderr}); status != cli.Usage || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q: status %d, %q", args, status, stderr.String())
		}
	}
}
