//go:build unix

// Command pgwicket-demo shows what pgwicket does: it makes a CA, certificates and a
// revocation list, starts a PostgreSQL that listens on a Unix socket only, runs the
// program pgwicket in front of it, and connects with psql in several ways. It is not
// part of a release; "make demo" builds and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `Usage: pgwicket-demo [--once] [--pgwicket FILE]

Make a throw-away CA, certificates and a revocation list, start a throw-away
PostgreSQL that listens on a Unix socket only, run pgwicket in front of it, and
show with psql which clients are admitted and which are refused, with what the
client sees and what the log says, and how a live session ends when its certificate
is revoked. Then keep running for you to try, until Ctrl-C
removes everything.

The programs of PostgreSQL (initdb, postgres, psql) must be installed. Nothing of
an existing PostgreSQL is touched.

Flags:
  --once            exit after the scenarios
  --pgwicket FILE   the program (default: beside this one, or else in PATH)

Exit status: 0 every result was as expected, 1 one was not, 2 wrong usage.
`

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("pgwicket-demo", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	once := f.Bool("once", false, "")
	program := f.String("pgwicket", "", "")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "pgwicket-demo: %v; see pgwicket-demo --help\n", err)
		return exitUsage
	case f.NArg() > 0:
		fmt.Fprintf(stderr, "pgwicket-demo: unexpected argument %q; see pgwicket-demo --help\n", f.Arg(0))
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// Else a closed pipe on the output would end this program and leave PostgreSQL and the gate behind
	// (os/signal, "SIGPIPE"). The signal alone says nothing: any socket that its peer has closed raises it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ok, err := show(ctx, *program, *once, &output{w: stdout, stop: stop})
	if err != nil {
		fmt.Fprintf(stderr, "pgwicket-demo: %v\n", err)
	}
	if err != nil || !ok {
		return exitFailed
	}
	return exitOK
}

// output is the output of the demo, whose end ends the demo.
type output struct {
	w    io.Writer
	stop func()
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		o.stop()
	}
	return n, err
}

// show runs the demo, and returns whether every scenario had its expected result.
func show(ctx context.Context, program string, once bool, out io.Writer) (ok bool, err error) {
	if program == "" {
		if program, err = findProgram(); err != nil {
			return false, err
		}
	}
	d, err := newDemo(ctx, out, program)
	if err != nil {
		return false, err
	}
	defer d.remove()
	if !d.run(ctx) {
		return false, nil
	}
	if !once {
		if err := d.writeCA(); err != nil {
			return false, err
		}
		d.printHints()
		<-ctx.Done()
		fmt.Fprintln(out, "\nremoving everything")
	}
	return true, nil
}

// findProgram returns the pgwicket beside this program, or else in PATH.
func findProgram() (string, error) {
	if self, err := os.Executable(); err == nil {
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), "pgwicket")); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("pgwicket")
	if err != nil {
		return "", errors.New("the program pgwicket is neither beside this one nor in PATH; build it with make build")
	}
	return path, nil
}
