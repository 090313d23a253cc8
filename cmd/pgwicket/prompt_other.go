//go:build !unix

package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// readSecret prints a text and reads a line from a terminal without echo.
func readSecret(tty *os.File, out io.Writer, text string, _ func(os.Signal)) ([]byte, error) {
	fmt.Fprint(out, text)
	defer fmt.Fprintln(out)
	return term.ReadPassword(int(tty.Fd()))
}

// raise is for signals, which this system does not have.
func raise(os.Signal) {}
