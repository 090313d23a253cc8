// Package cli holds what the commands have in common: streams, exit statuses, the kinds
// of flags with their completion, and the errors for wrong usage.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pgwicket/internal/nearest"
)

// Exit statuses. 78 is EX_CONFIG of sysexits.h.
const (
	OK        = 0
	Failed    = 1
	Usage     = 2
	BadConfig = 78
)

// Streams are what a command reads from and writes to.
type Streams struct {
	In       *os.File
	Out, Err io.Writer
}

// Status is the error of a command that has printed what there is to say.
type Status int

func (e Status) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Fail prints the error of a command and returns its status.
func Fail(s Streams, command string, err error) int {
	fmt.Fprintf(s.Err, "pgwicket %s: %v\n", command, err)
	return Failed
}

// Runs completes a command that takes flags and no arguments.
func Runs(cmd *cobra.Command, run func() int) *cobra.Command {
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return nil
		case cmd.HasSubCommands() && args[0] == "list": // what it does without one
			return fmt.Errorf("unknown command %q (did you mean %s alone?)", args[0], cmd.CommandPath())
		case cmd.HasSubCommands():
			return UnknownCommand(cmd, args[0])
		case cmd.Flags().Lookup("config") != nil && isFile(args[0]):
			return fmt.Errorf("unexpected argument %q (did you mean --config %[1]s?)", args[0])
		}
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(*cobra.Command, []string) error {
		if status := run(); status != OK {
			return Status(status)
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

// UnknownCommand is the error for a name that is no command below parent.
func UnknownCommand(parent *cobra.Command, name string) error {
	var names []string
	for _, c := range parent.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return fmt.Errorf("unknown command %q%s", name, didYouMean(name, names, ""))
}

// FlagError adds a suggestion to the error of an unknown flag.
func FlagError(cmd *cobra.Command, err error) error {
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
