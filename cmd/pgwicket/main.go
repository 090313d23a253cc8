// Command pgwicket is a TLS gate in front of PostgreSQL: it verifies clients by
// network, TLS and certificate, and relays their sessions to the server over a Unix
// socket.
//
// The package holds the commands: each parses its flags, calls a package, prints the
// result and returns an exit status.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pgwicket/internal/nearest"
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

// devVersion is the version of a build from a commit without a tag before it.
const devVersion = "0.1.0-dev"

// streams are what a command reads from and writes to.
type streams struct {
	in       *os.File
	out, err io.Writer
}

const rootHelp = `pgwicket is a TLS gate in front of PostgreSQL. It terminates TLS with an enforced
minimum version and cipher list, verifies client certificates against a CA and
revocation lists, admits the networks and sessions that its configuration allows,
and relays them to PostgreSQL over a Unix socket, or over TCP with TLS.

"pgwicket check" tries a configuration, "pgwicket serve" runs a gate with it, and
"pgwicket doctor" examines both the gate and PostgreSQL. "pgwicket explain" says why
a client is admitted or refused.

config.example.yaml explains the keys of the configuration file. A variable of the
environment sets each of them, too: PGWICKET_TLS_CERT_FILE sets cert_file in tls.

Exit status: 0 done, 1 failed, 2 wrong usage, 78 the configuration is wrong.`

func main() { os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})) }

// run executes a command line and returns its exit status. Wrong usage is one line on
// standard error.
func run(args []string, s streams) int {
	root := rootCommand(s)
	if len(args) == 0 {
		fmt.Fprint(s.err, root.UsageString())
		return exitUsage
	}
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	var status exitStatus
	var name string
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	}
	if n, _ := fmt.Sscanf(err.Error(), "unknown command %q for", &name); n == 1 && !cmd.HasParent() {
		err = unknownCommand(root, name)
	}
	fmt.Fprintf(s.err, "%s: %v; see %q\n", cmd.CommandPath(), err, cmd.CommandPath()+" --help")
	return exitUsage
}

// exitStatus is the error of a command that has printed what there is to say.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func rootCommand(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:                "pgwicket",
		Short:              "TLS gate in front of PostgreSQL",
		Long:               rootHelp,
		Version:            versionLine(),
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true, // they would be further lines; unknownCommand has them
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		serveCommand(s), checkCommand(s), explainCommand(s), doctorCommand(s), healthcheckCommand(s), waitCommand(s),
		sessionsCommand(s), terminateCommand(s), lockCommand(s), unlockCommand(s), locksCommand(s), auditCommand(s), backoffsCommand(s), reloadCommand(s), configCommand(s), firewallCommand(s), caCommand(s), fetchCommand(s), completionCommand(s), manCommand(s), versionCommand(s), tryAccessCommand(s),
	)
	return root
}

// runs completes a command that takes flags and no arguments.
func runs(cmd *cobra.Command, run func() int) *cobra.Command {
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return nil
		case cmd.HasSubCommands() && args[0] == "list": // what it does without one
			return fmt.Errorf("unknown command %q (did you mean %s alone?)", args[0], cmd.CommandPath())
		case cmd.HasSubCommands():
			return unknownCommand(cmd, args[0])
		case cmd.Flags().Lookup("config") != nil && isFile(args[0]):
			return fmt.Errorf("unexpected argument %q (did you mean --config %[1]s?)", args[0])
		}
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(*cobra.Command, []string) error {
		if status := run(); status != exitOK {
			return exitStatus(status)
		}
		return nil
	}
	return cmd
}

// isFile reports whether a word is meant as the name of a file.
func isFile(word string) bool {
	_, err := os.Stat(word)
	return err == nil || strings.HasSuffix(word, ".yaml") || strings.HasSuffix(word, ".yml")
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Explain a command",
		Long:  "Explain a command, its flags and its exit status.",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && c.IsAvailableCommand() && strings.HasPrefix(c.Name(), prefix) {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil {
				return unknownCommand(cmd.Root(), args[0])
			}
			if len(rest) > 0 {
				return fmt.Errorf("unexpected argument %q", rest[0])
			}
			of.InitDefaultHelpFlag()
			of.InitDefaultVersionFlag()
			return of.Help()
		},
	}
}

// unknownCommand is the error for a name that is no command below parent.
func unknownCommand(parent *cobra.Command, name string) error {
	var names []string
	for _, c := range parent.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return fmt.Errorf("unknown command %q%s", name, didYouMean(name, names, ""))
}

// flagError adds a suggestion to the error of an unknown flag.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	name := unknown.GetSpecifiedName()
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		name = short // -config is read as -c -o -n ...
	}
	if name == "config" && !cmd.HasParent() {
		return fmt.Errorf("%w; it belongs to a command, such as check", err)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return fmt.Errorf("%w%s", err, didYouMean(name, names, "--"))
}

func didYouMean(name string, known []string, prefix string) string {
	if word, ok := nearest.Word(name, known); ok {
		return fmt.Sprintf(" (did you mean %s%s?)", prefix, word)
	}
	return ""
}

func versionCommand(s streams) *cobra.Command {
	return runs(&cobra.Command{
		Use: "version", Short: "Print the version",
		Long: "Print the version of pgwicket, the version of Go that built it, and the platform.",
	}, func() int {
		fmt.Fprintln(s.out, versionLine())
		return exitOK
	})
}

func versionLine() string {
	v, goVersion, platform := buildVersion()
	return fmt.Sprintf("pgwicket %s (%s, %s)", v, goVersion, platform)
}

// buildVersion returns the version that the linker has set. Without one it is devVersion with the commit.
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
		v = devVersion
		if rev := settings["vcs.revision"]; rev != "" {
			v += "+" + rev[:min(12, len(rev))]
			if settings["vcs.modified"] == "true" {
				v += ".dirty"
			}
		}
	}
	return v, goVersion, settings["GOOS"] + "/" + settings["GOARCH"]
}
