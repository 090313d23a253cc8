package tlsconfig

import (
	"fmt"
	"strings"
	"time"

	"pgwicket/internal/passphrase"
)

// passphrases gets the passphrase of an encrypted key from the command, or else from a person. Its errors hold neither the
// command, which may have secrets in it, nor what the command printed on its standard output.
type passphrases struct {
	command string
	ask     func(text string) ([]byte, error)
	timeout time.Duration
	owner   int    // Options.KeyOwner
	account string // Options.Account
}

// passphraseError is a fault of passphrase_command and not of the key file.
type passphraseError struct{ text string }

func (e *passphraseError) Error() string { return e.text }

// get returns the passphrase for the key in file; the caller clears it.
func (p passphrases) get(file string) ([]byte, error) {
	text := "Enter PEM pass phrase for " + file + ":"
	if p.command == "" && p.ask == nil {
		return nil, fmt.Errorf("%q is encrypted and there is no terminal to ask for the passphrase: set passphrase_command or start from a terminal", file)
	}
	if p.command == "" {
		secret, err := p.ask(text)
		if err != nil {
			return nil, fmt.Errorf("%q is encrypted and its passphrase could not be read: %q", file, err.Error())
		}
		return secret, nil
	}
	// The shell reads the text inside the quotes that the command has around %p, so a file name that could end them is left
	// out.
	if strings.ContainsFunc(file, func(r rune) bool { return r < ' ' || strings.ContainsRune("'\"`$\\!", r) }) {
		text = "Enter PEM pass phrase:"
	}
	command, err := expand(p.command, text)
	if err != nil {
		return nil, err
	}
	secret, err := passphrase.Command{Line: command, Account: p.account, Timeout: p.timeout}.Run()
	if err != nil {
		return nil, &passphraseError{err.Error()}
	}
	return secret, nil
}

// expand replaces %p and %% and refuses any other, as PostgreSQL's replace_percent_placeholders (percentrepl.c) does.
func expand(command, text string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(command, "%")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(after, "p"):
			b.WriteString(text)
		case strings.HasPrefix(after, "%"):
			b.WriteByte('%')
		default:
			return "", &passphraseError{`after "%" only "p" (the prompt) and "%" are known: write "%%" for a plain percent sign`}
		}
		command = after[1:]
	}
}
