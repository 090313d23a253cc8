// Command pgwicket is a TLS gate in front of PostgreSQL: it verifies who
// connects, by network, TLS and certificate, and hands the session to the
// server over a Unix socket.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
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
		{"healthcheck", "[--ready]", "say whether the gate is alive, for containers", healthcheckHelp, healthcheck},
		{"wait", "[--timeout 30s]", "wait until the gate is ready", waitHelp, waitReady},
		{"sessions", "[--json]", "list the open sessions", sessionsHelp, sessions},
		{"reload", "", "have the gate reload, and say how that went", reloadHelp, askReload},
		{"demo", "[--once]", "see a working gate, with a PostgreSQL and certificates of its own", demoHelp, demo},
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
		fmt.Fprintf(w, "  %-22s %s\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
	}
	fmt.Fprint(w, `
«pgwicket help COMMAND» explains one of them. The keys of the configuration
file are explained in config.example.yaml.

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
	case f.NArg() > 0:
		fmt.Fprintf(s.err, "pgwicket %s: unexpected %q; «pgwicket help %s» explains its flags\n", f.Name(), f.Arg(0), f.Name())
		return exitUsage, false
	}
	return exitOK, true
}

func commandHelp(f *flag.FlagSet, w io.Writer) {
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
		fmt.Fprintf(w, "  --%-14s %s\n", fl.Name, fl.Usage)
	})
}

// configFlag adds the flag that names the configuration file.
func configFlag(f *flag.FlagSet) *string {
	return f.String("config", "/etc/pgwicket/pgwicket.yaml", "the configuration file (default /etc/pgwicket/pgwicket.yaml)")
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
