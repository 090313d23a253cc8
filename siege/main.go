//go:build linux

// Command siege hurts a pgwicket that serves real clients in front of a real
// PostgreSQL, in every way that a network, a client, a server or a machine has,
// and sees that nobody notices but those it happens to.
//
//	go run ./siege faults    each fault once; say what became of it
//	go run ./siege soak      all of it at once, for a given time, by a seeded plan
package main

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

type command struct {
	name    string
	args    string
	summary string
	run     func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	return []command{
		{"faults", "[--only NAMES] [--quick] [--list] [--into FILE]", "every fault once, with a table of what became of it", faults},
		{"soak", "[--time 10m] [--seed N] [--into FILE]", "mixed clients, reloads, revocations, kills and floods by a seeded plan; every answer is checked", runSoak},
	}
}

const about = `siege starts a throw-away PostgreSQL and pgwickets in front of it, with the race
detector where there is a C compiler, and then breaks something, again and
again, while other sessions go on and check every answer.

It needs PostgreSQL's programs (postgres, psql, pgbench) and Go, and to be
started in the module. As root it can do more: PostgreSQL then runs under an
unprivileged account, and a network cable can be cut. What it starts it ends,
and what it writes it removes, at Ctrl-C too.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted; everything that was started has been ended and removed")
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "siege:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		usage(stderr)
		return errors.New("say which of them")
	}
	if strings.HasPrefix(args[0], "-") || args[0] == "help" {
		usage(stdout)
		return nil
	}
	for _, c := range commands() {
		if c.name == args[0] {
			err := c.run(ctx, args[1:], stdout, stderr)
			if errors.Is(err, flag.ErrHelp) {
				return nil
			}
			return err
		}
	}
	return fmt.Errorf("there is no %q; «go run ./siege help» lists what there is", args[0])
}

func usage(w io.Writer) {
	fmt.Fprint(w, about, "\nUsage: go run ./siege COMMAND [FLAGS]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %s %s\n      %s\n", c.name, c.args, c.summary)
	}
	fmt.Fprint(w, "\n«go run ./siege COMMAND --help» explains its flags.\n")
}
