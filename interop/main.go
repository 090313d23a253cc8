//go:build linux

// Command interop sees that what works with PostgreSQL works with PostgreSQL
// behind pgwicket: with every release that is kept up, and with the libraries and
// tools that people connect with.
//
//	go run ./interop matrix         every client and feature, through a gate and straight
//	go run ./interop replication    backups, standbys, WAL and logical replication
//	go run ./interop tools          PostgreSQL's own tools
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
		{"matrix", "[--quick] [--only CLIENTS] [--servers RELEASES] [--into FILE]", "what each client sees through a gate, and straight; a difference is a failure", runMatrix},
		{"replication", "[--quick] [--into FILE]", "backups, standbys, WAL and logical replication through a gate, by checksum", runReplication},
		{"tools", "[--quick] [--source DIR] [--into FILE]", "PostgreSQL's own tools through a gate, by checksum", runTools},
	}
}

const about = `interop installs servers and clients into .interop, starts each server, with a
pgwicket in front of it, and does the same things through the gate and straight
to the server. What works straight and not through the gate is a failure.

It needs Go, PostgreSQL's programs, npm, node, python3, perl and java, and to be
started in the module. A client that cannot be had is a row that says so. As root
on Debian it installs what is missing with apt-get. What it starts it ends, at
Ctrl-C too.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted; everything that was started has been ended")
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
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
	return fmt.Errorf("there is no %q; «go run ./interop help» lists what there is", args[0])
}

func usage(w io.Writer) {
	fmt.Fprint(w, about, "\nUsage: go run ./interop COMMAND [FLAGS]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %s %s\n      %s\n", c.name, c.args, c.summary)
	}
	fmt.Fprint(w, "\n«go run ./interop COMMAND --help» explains its flags.\n")
}
