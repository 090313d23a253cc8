// Package prompt asks for secrets at the terminal. Whatever signal ends or stops the process
// meanwhile, the terminal has its echo back first.
package prompt

import (
	"errors"
	"io"
	"os"

	"golang.org/x/term"
)

// ErrInterrupted says that a signal came at a prompt.
var ErrInterrupted = errors.New("interrupted by a signal")

// At returns a function that shows a text and reads a line without echo; nil if in is not a
// terminal. raise gets a signal that would end the process, when the terminal has its echo
// back; if it returns, the function returns ErrInterrupted.
func At(in *os.File, out io.Writer, raise func(os.Signal)) func(text string) ([]byte, error) {
	if !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	return func(text string) ([]byte, error) {
		secret, err := read(in, out, text, raise)
		if errors.Is(err, io.EOF) {
			err = errors.New("the terminal has ended before a line was typed")
		}
		return secret, err
	}
}
