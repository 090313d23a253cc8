//go:build !unix

package prompt

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// read prints a text and reads a line from a terminal without echo.
func read(tty *os.File, out io.Writer, text string, _ func(os.Signal)) ([]byte, error) {
	fmt.Fprint(out, text)
	defer fmt.Fprintln(out)
	return term.ReadPassword(int(tty.Fd()))
}

// Raise is for signals, which this system does not have.
func Raise(os.Signal) {}
