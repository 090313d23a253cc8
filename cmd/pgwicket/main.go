// Command pgwicket is a TLS gate in front of PostgreSQL: it verifies who
// connects, by network, TLS and certificate, and hands the session to the
// server over a Unix socket.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"pgwicket/config"
)

// Exit statuses. 78 is EX_CONFIG of sysexits.h.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78
)

// version is set by the linker for a release; see Makefile.
var version = ""

// streams are where a command reads and writes.
type streams struct {
	in       *os.File
	out, err io.Writer
}

type command struct {
	name    string
	args    string
	summary string
	help    string
	run     func(args []string, s streams) int
}

func commands() []command {
	return []command{
		{"serve", "--config FILE", "run the gate", serveHelp, serve},
		{"check", "--config FILE", "say whether serve would start, and all that is wrong", checkHelp, check},
		{"explain", "--source ADDRESS --user ROLE ...", "say who would get in, and why", explainHelp, explain},
		{"doctor", "--config FILE [--json]", "examine the gate, its certificates and PostgreSQL, with what to mend", doctorHelp, examine},
		{"healthcheck", "[--ready]", "say whether the gate is alive, for containers", healthcheckHelp, healthcheck},
		{"wait", "[--timeout 30s]", "wait until the gate is ready", waitHelp, waitReady},
		{"sessions", "[--json]", "list the open sessions", sessionsHelp, sessions},
		{"reload", "", "have the gate reload, and say how that went", reloadHelp, askReload},
		{"config", "--config FILE", "print every key as it comes out, and where its value is from", configHelp, printConfig},
		{"firewall", "--config FILE", "print the allowlist as a firewall's rules", firewallHelp, firewall},
		{"completion", "bash|zsh|fish", "print a script with which the shell completes commands and flags", completionHelp, completion},
		{"man", "", "print the manual page", manHelp, man},
		{"version", "", "print the version", "Print the version of pgwicket, of the Go that built it, and the platform.\n", printVersion},
	}
}

func main() { os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})) }

func run(args []string, s streams) int {
	if len(args) == 0 {
		usage(s.err)
		return exitUsage
	}
	if isHelp(args[0]) {
		if len(args) > 1 && !isHelp(args[1]) {
			return run([]string{args[1], "--help"}, s)
		}
		usage(s.out)
		return exitOK
	}
	if slices.Contains([]string{"-v", "-version", "--version"}, args[0]) {
		return printVersion(nil, s)
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:], s)
		}
	}
	fmt.Fprintf(s.err, "pgwicket: there is no command %q; «pgwicket help» lists them\n", args[0])
	return exitUsage
}

func isHelp(word string) bool {
	return slices.Contains([]string{"help", "-h", "-help", "--help"}, word)
}

func usage(w io.Writer) {
	fmt.Fprint(w, `pgwicket is a TLS gate in front of PostgreSQL.

Usage: pgwicket COMMAND [FLAGS]

`)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-24s %s\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
	}
	fmt.Fprint(w, `
«pgwicket help COMMAND» explains one of them. The keys of the configuration
file are explained in config.example.yaml. Each can be set by a variable of the
environment, too: PGWICKET_TLS_CERT_FILE for cert_file below tls.

Exit status: 0 done, 1 failed while running, 2 wrong usage, 78 the
configuration is wrong.
`)
}

// flags returns the flag set of a command; parse reads args with it and says
// whether to go on, else with which status to exit.
func flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

func parse(f *flag.FlagSet, args []string, s streams) (status int, goOn bool) {
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		commandHelp(f, s.out)
		return exitOK, false
	case err != nil:
		fmt.Fprintf(s.err, "pgwicket %s: %v; «pgwicket help %s» explains its flags\n", f.Name(), err, f.Name())
		return exitUsage, false
	case namesNothing(f):
		fmt.Fprintf(s.err, "pgwicket %s: --config names no file; «pgwicket help %s» explains its flags\n", f.Name(), f.Name())
		return exitUsage, false
	case f.NArg() > 0:
		fmt.Fprintf(s.err, "pgwicket %s: unexpected %q; «pgwicket help %s» explains its flags\n", f.Name(), f.Arg(0), f.Name())
		return exitUsage, false
	}
	return exitOK, true
}

// namesNothing reports a --config of an empty text: a variable that the caller
// has not set, most often, and no wish to do without a file.
func namesNothing(f *flag.FlagSet) (yes bool) {
	f.Visit(func(fl *flag.Flag) { yes = yes || fl.Name == "config" && fl.Value.String() == "" })
	return yes
}

// flagsOf returns the flags of a command, which are those that its help would
// show: parse ends it before it does anything.
func flagsOf(c command) *flag.FlagSet {
	asked := new(flagTaker)
	c.run([]string{"--help"}, streams{os.Stdin, asked, io.Discard})
	return asked.FlagSet
}

// flagTaker stands where the help would be written, and takes the flags themselves.
type flagTaker struct{ *flag.FlagSet }

func (*flagTaker) Write(p []byte) (int, error) { return len(p), nil }

func commandHelp(f *flag.FlagSet, w io.Writer) {
	if t, ok := w.(*flagTaker); ok {
		t.FlagSet = f
		return
	}
	for _, c := range commands() {
		if c.name == f.Name() {
			fmt.Fprintf(w, "Usage: %s\n\n%s", strings.TrimSpace("pgwicket "+c.name+" "+c.args), c.help)
		}
	}
	first := true
	f.VisitAll(func(fl *flag.Flag) {
		if first {
			fmt.Fprint(w, "\nFlags:\n")
			first = false
		}
		_, usage := flag.UnquoteUsage(fl)
		fmt.Fprintf(w, "  --%-14s %s\n", fl.Name, usage)
	})
}

const defaultConfig = "/etc/pgwicket/pgwicket.yaml"

// configFlag adds the flag that names the configuration file; empty is none, and
// all is in the environment. As in the usage of every flag that takes a file, it is
// the word in backquotes that says so to the shell's completion.
func configFlag(f *flag.FlagSet) *string {
	return f.String("config", configFile(os.Environ()), "the configuration `file` (default $PGWICKET_CONFIG, or else "+defaultConfig+")")
}

// configFile is the one that is read where no flag names one. Only the last resort
// may be missing, where the environment has keys to do without it: whoever names
// a file wants it read. What is decided here holds for as long as the process
// lives, so a file that goes away later is a failed reload.
func configFile(environ []string) string {
	if path := os.Getenv(config.FileVariable); path != "" {
		return path
	}
	if _, err := os.Stat(defaultConfig); errors.Is(err, fs.ErrNotExist) && config.InEnvironment(environ) {
		return ""
	}
	return defaultConfig
}

// choice is a flag that takes one of a few words.
type choice struct {
	value string
	words []string
}

// choiceFlag adds one; the first of the words is the default.
func choiceFlag(f *flag.FlagSet, name, usage string, words ...string) *choice {
	c := &choice{words[0], words}
	f.Var(c, name, usage+": "+strings.Join(words, " or ")+" (default "+words[0]+")")
	return c
}

func (c *choice) String() string { return c.value }

func (c *choice) Set(word string) error {
	if !slices.Contains(c.words, word) {
		return fmt.Errorf("it is one of %s", strings.Join(c.words, ", "))
	}
	c.value = word
	return nil
}

func printVersion(args []string, s streams) int {
	if status, ok := parse(flags("version"), args, s); !ok {
		return status
	}
	v, goVersion, platform := buildVersion()
	fmt.Fprintf(s.out, "pgwicket %s (%s, %s)\n", v, goVersion, platform)
	return exitOK
}

// buildVersion names the build: what the linker was told, else the commit it
// was built from.
func buildVersion() (v, goVersion, platform string) {
	v = version
	settings := make(map[string]string)
	if bi, ok := debug.ReadBuildInfo(); ok {
		goVersion = bi.GoVersion
		for _, s := range bi.Settings {
			settings[s.Key] = s.Value
		}
	}
	if v == "" {
		v = "devel"
		if rev := settings["vcs.revision"]; rev != "" {
			v += "-" + rev[:min(12, len(rev))]
		}
	}
	return v, goVersion, settings["GOOS"] + "/" + settings["GOARCH"]
}
