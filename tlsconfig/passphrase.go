package tlsconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	passphraseTimeout = 30 * time.Second
	passphraseLimit   = 1024 // OpenSSL's PEM_BUFSIZE, and so PostgreSQL's
	stderrLimit       = 256
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
	return p.run(command)
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

// run gives the command a process group, where there are any: the children of a killed shell would keep our pipe open.
func (p passphrases) run(command string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	killWithChildren(cmd)
	if err := runAs(cmd, p.account); err != nil {
		return nil, &passphraseError{"the command is not run: " + err.Error()}
	}
	cmd.WaitDelay = time.Second
	stdout := &bounded{limit: passphraseLimit + len("\r\n")}
	stderr := &bounded{limit: stderrLimit}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()

	secret := stdout.data
	if cut, ok := bytes.CutSuffix(secret, []byte("\n")); ok {
		secret = bytes.TrimSuffix(cut, []byte("\r"))
	}
	// A process in the background, such as an agent, may keep our pipe open. What was printed is still good.
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	switch {
	case ctx.Err() != nil:
		err = &passphraseError{fmt.Sprintf("the command did not end within %v and was killed: it must not wait for input", p.timeout)}
	case err != nil:
		err = &passphraseError{"the command failed: " + err.Error() + stderr.quote(secret) + p.as()}
	case len(secret) == 0:
		err = &passphraseError{"the command printed no passphrase on its standard output" + stderr.quote(nil) + p.as()}
	case len(secret) > passphraseLimit:
		err = &passphraseError{fmt.Sprintf("the command printed more than %d bytes", passphraseLimit)}
	}
	if err != nil {
		clear(stdout.data)
		return nil, err
	}
	return secret, nil
}

// as says for an error as which account the command has run, if root has started it.
func (p passphrases) as() string {
	if p.account == "" || os.Geteuid() != 0 {
		return ""
	}
	return fmt.Sprintf(" (it runs as the account in user, %s)", p.account)
}

// bounded keeps the first bytes and discards the rest: SIGPIPE would end a command that prints too much, and the error would
// be misleading.
type bounded struct {
	data  []byte
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.data = append(b.data, p[:min(len(p), b.limit-len(b.data))]...)
	return len(p), nil
}

// quote returns what a command wrote about its failure, unless that holds the secret (set -x prints it).
func (b *bounded) quote(secret []byte) string {
	text := strings.Join(strings.Fields(string(b.data)), " ")
	if text == "" || len(secret) > 0 && strings.Contains(string(b.data), string(secret)) {
		return ""
	}
	return fmt.Sprintf(", saying %q", text)
}
