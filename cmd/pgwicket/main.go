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
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pgwicket/config"
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

// streams are what a command reads from and writes to.
type streams struct {
	in       *os.File
	out, err io.Writer
}

const rootHelp = `pgwicket is a TLS gate in front of PostgreSQL. It terminates TLS with an enforced
minimum version and cipher list, verifies client certificates against a CA and
revocation lists, admits the networks and sessions that its configuration allows,
and relays them to PostgreSQL over a Unix socket.

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
	if n, _ := fmt.Sscanf(err.Error(), "unknown command %q for", &name); n == 1 {
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
		sessionsCommand(s), reloadCommand(s), configCommand(s), firewallCommand(s), completionCommand(s), manCommand(s), versionCommand(s),
	)
	return root
}

// runs completes a command that takes flags and no arguments.
func runs(cmd *cobra.Command, run func() int) *cobra.Command {
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unexpected argument %q", args[0])
		}
		return nil
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

func unknownCommand(root *cobra.Command, name string) error {
	var names []string
	for _, c := range root.Commands() {
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

const defaultConfig = "/etc/pgwicket/pgwicket.yaml"

// configFlag adds the flag that names the configuration file. Its value is empty
// where there is no file and the environment has the configuration.
func configFlag(cmd *cobra.Command) *string {
	path := configFile(os.Environ())
	fileFlag(cmd, &path, "config", "the configuration `file` (default $PGWICKET_CONFIG, or else "+defaultConfig+")")
	return &path
}

// configFile returns the file that is read where no flag names one. Only the default
// may be missing, if the environment has keys. This is decided once: if the file is
// removed later, a reload fails.
func configFile(environ []string) string {
	if path := os.Getenv(config.FileVariable); path != "" {
		return path
	}
	if _, err := os.Stat(defaultConfig); errors.Is(err, fs.ErrNotExist) && config.InEnvironment(environ) {
		return ""
	}
	return defaultConfig
}

// fileFlag adds a flag for the name of a file, which shells complete.
func fileFlag(cmd *cobra.Command, to *string, name, usage string) {
	cmd.Flags().Var((*fileName)(to), name, usage)
	cmd.Flags().Lookup(name).DefValue = "" // the usage has it
}

// fileName is the value of such a flag. An empty one is most often a variable of a
// shell that is not set, and is refused.
type fileName string

func (f *fileName) String() string { return string(*f) }
func (*fileName) Type() string     { return "file" }

func (f *fileName) Set(path string) error {
	if path == "" {
		return errors.New("it names no file")
	}
	*f = fileName(path)
	return nil
}

// textFlag adds a flag for a text that shells cannot complete.
func textFlag(cmd *cobra.Command, to *string, name, value, usage string) {
	cmd.Flags().StringVar(to, name, value, usage)
	completeWords(cmd, name)
}

// choiceFlag adds a flag that takes one of a few words; the first is the default.
func choiceFlag(cmd *cobra.Command, name, usage string, words ...string) *string {
	c := &choice{words[0], words}
	cmd.Flags().Var(c, name, usage+": "+strings.Join(words, " or "))
	completeWords(cmd, name, words...)
	return &c.value
}

type choice struct {
	value string
	words []string
}

func (c *choice) String() string { return c.value }
func (*choice) Type() string     { return "word" }

func (c *choice) Set(word string) error {
	if !slices.Contains(c.words, word) {
		return fmt.Errorf("it must be %s", strings.Join(c.words, " or "))
	}
	c.value = word
	return nil
}

// completeWords has shells complete these words for a flag, and no files.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	// It fails only for a flag that does not exist, which a test would find.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
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

// buildVersion returns the version that the linker has set, or else the commit.
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
