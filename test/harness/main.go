// Package harness is what the programs beside the product have in common: bench,
// siege and interop start real servers and gates, and each keeps a part of a page
// of the documentation.
package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Run is a program, or one of its commands, without its name in args. It ends
// everything that it has started when ctx ends.
type Run func(ctx context.Context, args []string, stdout, stderr io.Writer) error

// Command is a command of a program.
type Command struct {
	Name    string
	Args    string // its flags, as the usage shows them
	Summary string
	Run     Run
}

// Main runs a program, until Ctrl-C or SIGTERM, and returns its exit status.
func Main(name string, run Run) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted; everything that was started has been ended and removed")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// Dispatch returns a program that is one of its commands. about explains it.
func Dispatch(name, about string, commands []Command) Run {
	usage := func(w io.Writer) {
		fmt.Fprintf(w, "%s\nUsage: %s COMMAND [FLAGS]\n\n", about, name)
		for _, c := range commands {
			fmt.Fprintf(w, "  %s %s\n      %s\n", c.Name, c.Args, c.Summary)
		}
		fmt.Fprintf(w, "\n%q explains its flags.\n", name+" COMMAND --help")
	}
	return func(ctx context.Context, args []string, stdout, stderr io.Writer) error {
		if len(args) == 0 {
			usage(stderr)
			return errors.New("missing command")
		}
		if strings.HasPrefix(args[0], "-") || args[0] == "help" {
			usage(stdout)
			return nil
		}
		for _, c := range commands {
			if c.Name == args[0] {
				err := c.Run(ctx, args[1:], stdout, stderr)
				if errors.Is(err, flag.ErrHelp) {
					return nil
				}
				return err
			}
		}
		return fmt.Errorf("there is no command %q; %q lists them", args[0], name+" help")
	}
}
