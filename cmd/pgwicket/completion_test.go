package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// printed runs a command that prints something, and returns that.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	var out, said bytes.Buffer
	if status := run(args, streams{os.Stdin, &out, &said}); status != exitOK || said.Len() > 0 {
		t.Fatalf("pgwicket %s: status %d, %s", strings.Join(args, " "), status, said.String())
	}
	return out.String()
}

// Each command has its flags told without being run, and says of each what it is for.
func TestFlagsOfEveryCommand(t *testing.T) {
	for _, c := range commands() {
		f := flagsOf(c)
		if f == nil || f.Name() != c.name {
			t.Errorf("%s does not tell its flags: it must call parse before all else", c.name)
			continue
		}
		help := printed(t, c.name, "--help")
		f.VisitAll(func(fl *flag.Flag) {
			_, usage := flag.UnquoteUsage(fl)
			if usage == "" || !strings.Contains(help, "  --"+fl.Name+" ") || !strings.Contains(help, usage) {
				t.Errorf("--%s of %s is not explained", fl.Name, c.name)
			}
		})
	}
}

// completes are words that somebody has begun, and what is offered for the last.
var completes = []struct {
	words []string
	want  []string
}{
	{[]string{"fire"}, []string{"firewall"}},
	{[]string{"co"}, []string{"completion", "config"}},
	{[]string{"firewall", "--f"}, []string{"--format"}},
	{[]string{"firewall", "--"}, []string{"--action", "--check", "--config", "--format", "--help"}},
	{[]string{"firewall", "--format", ""}, []string{"nftables", "systemd"}},
	{[]string{"firewall", "--check", "--action", "d"}, []string{"drop"}},
	{[]string{"explain", "--user", "app", "--sou"}, []string{"--source"}},
	{[]string{"completion", "f"}, []string{"fish"}},
	{[]string{"help", "expl"}, []string{"explain"}},
	{[]string{"serve", "--config", "pg"}, []string{"pg dir/", "pgwicket.yaml"}},
	{[]string{"explain", "--cert", "pgw"}, []string{"pgwicket.yaml"}},
	{[]string{"explain", "--user", ""}, nil},
}

// stageCompletion is a directory with files to be completed.
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

// offered runs a shell, and returns the lines that it prints, in order.
func offered(t *testing.T, dir string, command ...string) (lines []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8", "TERM=dumb")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || said.Len() > 0 {
		t.Errorf("%s: %v: %s%s", command[0], err, out, said.String())
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// A bash has the function complete what is on its command line, as readline would.
func TestCompletionInBash(t *testing.T) {
	dir := stageCompletion(t, "bash")
	const ask = `source ./completion
compopt() { :; } # which only readline may call
COMP_WORDS=(pgwicket "$@") COMP_CWORD=$#
$(complete -p pgwicket | sed 's/.*-F \([^ ]*\).*/\1/')
printf '%s\n' "${COMPREPLY[@]}"`
	for _, c := range completes {
		want := slices.Clone(c.want)
		if i := slices.Index(want, "pg dir/"); i >= 0 {
			want[i] = "pg dir" // to which readline adds the slash
		}
		if got := offered(t, dir, append([]string{"bash", "--norc", "-c", ask, "bash"}, c.words...)...); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", c.words, got, want)
		}
	}
	for _, words := range [][]string{{"firewall", "--format", "=", "sys"}, {"firewall", "--format", "="}} { // as bash cuts --format=sys
		if got := offered(t, dir, append([]string{"bash", "--norc", "-c", ask, "bash"}, words...)...); !slices.Contains(got, "systemd") {
			t.Errorf("%q: %q", words, got)
		}
	}
}

// And so that its readline does it, at a terminal.
func TestCompletionAtTheTerminal(t *testing.T) {
	dir := stageCompletion(t, "bash")
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("there is no script")
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qec", "bash --norc --noprofile -i", "/dev/null")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8", "TERM=dumb", "PS1=$ ", "INPUTRC=/dev/null", "HISTFILE=")
	cmd.Stdin = strings.NewReader("source ./completion\npgwicket() { printf 'got:<%s>' \"$@\"; echo; }\npgwicket fire\t--fo\tsys\t\npgwicket serve --config pgw\t\nexit\n")
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
	dir := stageCompletion(t, "fish")
	for _, c := range completes {
		line := "pgwicket " + strings.Join(c.words, " ")
		var got []string
		for _, l := range offered(t, dir, "fish", "--no-config", "-c", "source ./completion; complete -C "+fishQuoted(line)) {
			word, _, _ := strings.Cut(l, "\t")
			got = append(got, word)
		}
		want := slices.Clone(c.want)
		if slices.Contains(c.words, "--") { // all that there is, and fish's own order
			got = slices.DeleteFunc(got, func(w string) bool { return !slices.Contains(want, w) })
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// zsh completes at a terminal only, so what the script tells zsh's own functions is looked at.
func TestCompletionInZsh(t *testing.T) {
	dir := stageCompletion(t, "zsh")
	const ask = `compdef() { :; }
_describe() { print -rl -- ${(P)2}; }
_arguments() { print -rl -- "$CURRENT" "$@"; }
source ./completion
words=(pgwicket "$@") CURRENT=$(( $# + 1 ))
_pgwicket`
	for _, c := range []struct {
		words, want []string
	}{
		{[]string{"fire"}, []string{"firewall:print the allowlist as a firewall's rules", "config:print every key as it comes out, and where its value is from"}},
		{[]string{"firewall", "--f"}, []string{"2", "--format=[whose rules\\: nftables or systemd (default nftables)]:value:(nftables systemd)", "--check[compare with what the kernel has, in nftables]"}},
		{[]string{"serve", "--config", "pgw"}, []string{"3", "--config=[the configuration file (default $PGWICKET_CONFIG, or else /etc/pgwicket/pgwicket.yaml)]:file:_files"}},
		{[]string{"completion", "z"}, []string{"2", "1:word:(bash zsh fish)"}},
	} {
		got := offered(t, dir, append([]string{"zsh", "-f", "-c", ask, "zsh"}, c.words...)...)
		for _, want := range c.want {
			if !slices.Contains(got, want) {
				t.Errorf("%q: no %q in %q", c.words, want, got)
			}
		}
	}
}

// The manual page has every command, flag and help text, and neither mandoc nor groff complains of it.
func TestMan(t *testing.T) {
	var page bytes.Buffer
	writeMan(&page, "1.0", "2026-01-31")
	for _, c := range commands() {
		flagsOf(c).VisitAll(func(fl *flag.Flag) {
			if !strings.Contains(page.String(), roff("--"+fl.Name)) {
				t.Errorf("--%s of %s is missing", fl.Name, c.name)
			}
		})
		for line := range strings.Lines(c.help) {
			if !strings.Contains(page.String(), roff(strings.TrimRight(line, "\n"))) {
				t.Errorf("%s: %q is missing", c.name, line)
			}
		}
	}
	for _, r := range page.String() {
		if r > '~' {
			t.Fatalf("%q is not for every roff", r)
		}
	}
	path := filepath.Join(t.TempDir(), "pgwicket.8")
	if err := os.WriteFile(path, page.Bytes(), 0o600); err != nil {
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
	if _, err := exec.LookPath("mandoc"); err == nil {
		out, err := exec.Command("mandoc", "-T", "utf8", path).Output()
		text := strings.NewReplacer("_\b", "", "\u00a0", " ").Replace(string(out))
		if err != nil || !strings.Contains(text, `pgwicket explain --config pgwicket.yaml --source 10.20.1.7 \`) {
			t.Errorf("mandoc: %v, and an example is not as it was in\n%s", err, text)
		}
	}
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "--flag": `\-\-flag`, `a\b`: `a\eb`, ".dot": `\&.dot`, "'quote": `\&'quote`, "a.b": "a.b", "«x»": `\[u00AB]x\[u00BB]`,
	} {
		if got := roff(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var b bytes.Buffer
	roffText(&b, "Text:\n\n  literal\n\n  more\nText\n  end\n")
	if got, want := b.String(), "Text:\n.PP\n.EX\n  literal\n.EE\n.PP\n.EX\n  more\n.EE\nText\n.EX\n  end\n.EE\n"; got != want {
		t.Errorf("got %q", got)
	}
}

// What cannot be completed for is wrong usage.
func TestCompletionUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"tcsh"}, {"bash", "zsh"}, {"--bash"}} {
		var said bytes.Buffer
		if status := run(append([]string{"completion"}, args...), streams{os.Stdin, io.Discard, &said}); status != exitUsage || said.Len() == 0 {
			t.Errorf("%q: status %d, %q", args, status, said.String())
		}
	}
}
