// Command pgwicket is a TLS gate in front of PostgreSQL: it verifies clients by
// network, TLS and certificate, and relays their sessions to the server over a Unix
// socket.
//
// The package holds the commands: each parses its flags, calls a package, prints the
// result and returns an exit status. Those below "pgwicket ca" are in ca, and what all of
// them have in common is in cli.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"pgwicket/cmd/pgwicket/ca"
	"pgwicket/cmd/pgwicket/cli"
)

// version is set by the linker for a release; see Makefile.
var version = ""

// devVersion is the version of a build from a commit without a tag before it.
const devVersion = "0.1.0-dev"

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

func main() { os.Exit(run(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})) }

// run executes a command line and returns its exit status. Wrong usage is one line on
// standard error.
func run(args []string, s cli.Streams) int {
	root := rootCommand(s)
	if len(args) == 0 {
		fmt.Fprint(s.Err, root.UsageString())
		return cli.Usage
	}
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	var status cli.Status
	var name string
	switch {
	case err == nil:
		return cli.OK
	case errors.As(err, &status):
		return int(status)
	}
	if n, _ := fmt.Sscanf(err.Error(), "unknown command %q for", &name); n == 1 && !cmd.HasParent() {
		err = cli.UnknownCommand(root, name)
	}
	fmt.Fprintf(s.Err, "%s: %v; see %q\n", cmd.CommandPath(), err, cmd.CommandPath()+" --help")
	return cli.Usage
}

func rootCommand(s cli.Streams) *cobra.Command {
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
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(cli.FlagError)
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		serveCommand(s), checkCommand(s), explainCommand(s), doctorCommand(s), healthcheckCommand(s), waitCommand(s),
		sessionsCommand(s), terminateCommand(s), lockCommand(s), unlockCommand(s), locksCommand(s), auditCommand(s), backoffsCommand(s), reloadCommand(s), upgradeCommand(s), configCommand(s), firewallCommand(s), ca.Command(s, askAt(s, raise)), fetchCommand(s), completionCommand(s), manCommand(s), versionCommand(s), tryAccessCommand(s),
	)
	return root
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
				return cli.UnknownCommand(cmd.Root(), args[0])
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

func versionCommand(s cli.Streams) *cobra.Command {
	return cli.Runs(&cobra.Command{
		Use: "version", Short: "Print the version",
		Long: "Print the version of pgwicket, the version of Go that built it, and the platform.",
	}, func() int {
		fmt.Fprintln(s.Out, versionLine())
		return cli.OK
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
