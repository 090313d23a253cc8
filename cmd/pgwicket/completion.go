package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

const completionHelp = `Print a script with which the shell completes the commands and flags of pgwicket:

  pgwicket completion bash >/usr/share/bash-completion/completions/pgwicket
  pgwicket completion zsh  >/usr/share/zsh/vendor-completions/_pgwicket
  pgwicket completion fish >/usr/share/fish/vendor_completions.d/pgwicket.fish

or, for one shell only: source <(pgwicket completion bash).
`

func completion(args []string, s streams) int {
	writers := map[string]func(io.Writer, []completed){"bash": completeBash, "zsh": completeZsh, "fish": completeFish}
	f := flags("completion")
	if len(args) == 1 && writers[args[0]] != nil {
		writers[args[0]](s.out, completions())
		return exitOK
	}
	if status, ok := parse(f, args, s); !ok {
		return status
	}
	fmt.Fprintln(s.err, "pgwicket completion: write bash, zsh or fish; «pgwicket help completion» says where to put what it prints")
	return exitUsage
}

// completed is a command as the shells complete it.
type completed struct {
	name, summary string
	words         []string // in place of flags
	flags         []completedFlag
}

type completedFlag struct {
	name, usage string
	bare        bool     // it takes no value,
	file        bool     // or one that is a file,
	words       []string // or one of these, or any
}

// completions are all that there is to complete, by the table that help shows.
func completions() (all []completed) {
	help := completed{name: "help", summary: "explain a command"}
	for _, c := range commands() {
		one := completed{name: c.name, summary: c.summary}
		if strings.Contains(c.args, "|") && !strings.Contains(c.args, "-") {
			one.words = strings.Split(c.args, "|")
		}
		flagsOf(c).VisitAll(func(fl *flag.Flag) { one.flags = append(one.flags, completedFlagOf(fl)) })
		all = append(all, one)
		help.words = append(help.words, c.name)
	}
	return append(all, help)
}

func completedFlagOf(fl *flag.Flag) completedFlag {
	kind, usage := flag.UnquoteUsage(fl)
	f := completedFlag{name: fl.Name, usage: usage, file: kind == "file"}
	if b, ok := fl.Value.(interface{ IsBoolFlag() bool }); ok {
		f.bare = b.IsBoolFlag()
	}
	if c, ok := fl.Value.(*choice); ok {
		f.words = c.words
	}
	return f
}

// offers are what can stand behind a command.
func (c completed) offers() []string {
	out := slices.Clone(c.words)
	for _, f := range c.flags {
		out = append(out, "--"+f.name)
	}
	return append(out, "--help")
}

func completeBash(w io.Writer, all []completed) {
	fmt.Fprint(w, `# bash completion of pgwicket; made by «pgwicket completion bash»
_pgwicket() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words=
	if [ "$current" = = ]; then # of --flag=value, which are three words
		current=
	elif [ "$previous" = = ]; then
		previous=${COMP_WORDS[COMP_CWORD-2]}
	fi
	COMPREPLY=()
	case "$COMP_CWORD ${COMP_WORDS[1]} $previous" in
`)
	var names []string
	for _, c := range all {
		names = append(names, c.name)
	}
	fmt.Fprintf(w, "\t1\\ *) words='%s' ;;\n", strings.Join(names, " "))
	for _, c := range all {
		for _, f := range c.flags {
			pattern := fmt.Sprintf("*' %s --%s'", c.name, f.name)
			switch {
			case f.bare:
			case f.file:
				fmt.Fprintf(w, "\t%s) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); return ;;\n", pattern)
			default:
				fmt.Fprintf(w, "\t%s) words='%s' ;;\n", pattern, strings.Join(f.words, " "))
			}
		}
		fmt.Fprintf(w, "\t*' %s '*) words='%s' ;;\n", c.name, strings.Join(c.offers(), " "))
	}
	fmt.Fprint(w, `	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _pgwicket pgwicket
`)
}

func completeZsh(w io.Writer, all []completed) {
	fmt.Fprint(w, `#compdef pgwicket
# zsh completion of pgwicket; made by «pgwicket completion zsh»
_pgwicket() {
	if (( CURRENT == 2 )); then
		local -a names=(
`)
	for _, c := range all {
		fmt.Fprintf(w, "\t\t\t%s\n", quoted(zshWord(c.name)+":"+c.summary))
	}
	fmt.Fprint(w, `		)
		_describe command names
		return
	fi
	local command=$words[2]
	shift words
	(( CURRENT-- ))
	case $command in
`)
	for _, c := range all {
		fmt.Fprintf(w, "\t%s) _arguments", c.name)
		if len(c.words) > 0 {
			fmt.Fprintf(w, " %s", quoted("1:word:("+strings.Join(c.words, " ")+")"))
		}
		for _, f := range c.flags {
			spec := "--" + f.name + "[" + zshWord(f.usage) + "]"
			switch {
			case f.bare:
			case f.file:
				spec = strings.Replace(spec, "[", "=[", 1) + ":file:_files"
			default:
				spec = strings.Replace(spec, "[", "=[", 1) + ":value:(" + strings.Join(f.words, " ") + ")"
			}
			fmt.Fprintf(w, " \\\n\t\t%s", quoted(spec))
		}
		fmt.Fprintf(w, " \\\n\t\t'--help[explain it]' ;;\n")
	}
	fmt.Fprint(w, `	esac
}
if [ "$funcstack[1]" = _pgwicket ]; then
	_pgwicket "$@"
else
	compdef _pgwicket pgwicket
fi
`)
}

// zshWord takes away the meaning of what ends a text in a specification.
func zshWord(text string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, "[", `\[`, "]", `\]`).Replace(text)
}

// quoted is a text that a POSIX shell reads as it is.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func completeFish(w io.Writer, all []completed) {
	fmt.Fprint(w, "# fish completion of pgwicket; made by «pgwicket completion fish»\ncomplete -c pgwicket -f\n")
	for _, c := range all {
		fmt.Fprintf(w, "complete -c pgwicket -n __fish_use_subcommand -a %s -d %s\n", c.name, fishQuoted(c.summary))
		behind := "complete -c pgwicket -n " + fishQuoted("__fish_seen_subcommand_from "+c.name)
		if len(c.words) > 0 {
			fmt.Fprintf(w, "%s -a %s\n", behind, fishQuoted(strings.Join(c.words, " ")))
		}
		for _, f := range c.flags {
			fmt.Fprintf(w, "%s -l %s -d %s", behind, f.name, fishQuoted(f.usage))
			switch {
			case f.bare:
			case f.file:
				fmt.Fprint(w, " -r -F")
			case len(f.words) > 0:
				fmt.Fprintf(w, " -x -a %s", fishQuoted(strings.Join(f.words, " ")))
			default:
				fmt.Fprint(w, " -x")
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s -l help -d 'explain it'\n", behind)
	}
}

// fishQuoted is a text that fish reads as it is.
func fishQuoted(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
