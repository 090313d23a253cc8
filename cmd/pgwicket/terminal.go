package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/gate"
	"pgwicket/internal/logwriter"
)

// newLogger returns a log that never blocks, one for lines about refused connections,
// which never displace a line of the first, and a function that writes what is queued,
// which must be called at the end. dropped is called for each dropped line.
func newLogger(s cli.Streams, format string, level slog.Leveler, dropped func()) (log, refusals *slog.Logger, flush func()) {
	opts := &slog.HandlerOptions{Level: level}
	handler := func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, opts) }
	file, isFile := s.Err.(*os.File)
	if format == "text" || format == "auto" && isFile && term.IsTerminal(int(file.Fd())) {
		handler = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, opts) }
	}
	// The Go runtime ends a program whose write to standard error fails with EPIPE,
	// unless it has asked for SIGPIPE (os/signal, "SIGPIPE").
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	w := logwriter.New(s.Err, dropped, func(w io.Writer, n int64) {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines dropped", 0)
		r.AddAttrs(slog.Int64("lines", n), slog.String("reason", "the log was not read or could not be written"))
		_ = handler(w).Handle(context.Background(), r)
	})
	return slog.New(handler(w)), slog.New(handler(w.LowPriority())), w.Close
}

// errInterrupted says that a signal came at a prompt.
var errInterrupted = errors.New("interrupted by a signal")

// askAt asks at the terminal of s for a secret; nil if s has none. raise gets a signal that
// would end the process, when the terminal has its echo back.
func askAt(s cli.Streams, raise func(os.Signal)) func(text string) ([]byte, error) {
	if !term.IsTerminal(int(s.In.Fd())) {
		return nil
	}
	return func(text string) ([]byte, error) {
		secret, err := readSecret(s.In, s.Err, text, raise)
		if errors.Is(err, io.EOF) {
			err = errors.New("the terminal has ended before a line was typed")
		}
		return secret, err
	}
}

// promptsOf returns prompts at the terminal of s; none if it has no terminal.
func promptsOf(s cli.Streams, raise func(os.Signal)) gate.Prompts {
	ask := askAt(s, raise)
	if ask == nil {
		return gate.Prompts{}
	}
	typed := make(map[string][]byte)
	return gate.Prompts{
		Ask: func(text string) ([]byte, error) {
			if p, ok := typed[text]; ok {
				return bytes.Clone(p), nil // the caller clears it
			}
			p, err := ask(text)
			if err == nil {
				typed[text] = bytes.Clone(p)
			}
			return p, err
		},
		Recall: func(text string) ([]byte, error) {
			if p, ok := typed[text]; ok {
				return bytes.Clone(p), nil
			}
			return nil, errors.New("it has not been typed yet; send SIGHUP to be asked for it")
		},
	}
}

// passphrasePrompt is the prompt of a command that loads once.
func passphrasePrompt(s cli.Streams) func(string) ([]byte, error) { return promptsOf(s, raise).Ask }
