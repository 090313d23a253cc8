// Package passphrase runs the command that prints the passphrase of an encrypted key.
package passphrase

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
	// MaxSize is how many bytes a passphrase may have: OpenSSL's PEM_BUFSIZE, and so PostgreSQL's.
	MaxSize = 1024
	// Timeout is for Command, unless a test is in a hurry.
	Timeout = 30 * time.Second

	stderrLimit = 256
)

// Command prints a passphrase on its standard output. Only Line and Timeout must be set.
type Command struct {
	Line    string        // for /bin/sh
	Env     []string      // for the command, besides this process's own environment
	Account string        // that runs the command if this process is root's
	Timeout time.Duration // after which the command is killed
}

// Run runs the command and returns what it printed without the newline at the end;
// the caller clears it. An error holds neither the command, which may have secrets
// in it, nor what it printed on its standard output.
func (c Command) Run() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.Line)
	if len(c.Env) > 0 {
		cmd.Env = append(os.Environ(), c.Env...)
	}
	killWithChildren(cmd) // the children of a killed shell would keep our pipe open
	if err := c.runAs(cmd); err != nil {
		return nil, fmt.Errorf("the command is not run: %w", err)
	}
	cmd.WaitDelay = time.Second
	stdout := &bounded{limit: MaxSize + len("\r\n")}
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
		err = fmt.Errorf("the command did not end within %v and was killed: it must not wait for input", c.Timeout)
	case err != nil:
		err = fmt.Errorf("the command failed: %w%s%s", err, stderr.quote(secret), c.as())
	case len(secret) == 0:
		err = fmt.Errorf("the command printed no passphrase on its standard output%s%s", stderr.quote(nil), c.as())
	case len(secret) > MaxSize:
		err = fmt.Errorf("the command printed more than %d bytes", MaxSize)
	}
	if err != nil {
		clear(stdout.data)
		return nil, err
	}
	return secret, nil
}

// as says for an error as which account the command has run, if root has started it.
func (c Command) as() string {
	if c.Account == "" || os.Geteuid() != 0 {
		return ""
	}
	return fmt.Sprintf(" (it runs as the account in user, %s)", c.Account)
}

// bounded keeps the first bytes and discards the rest: SIGPIPE would end a command
// that prints too much, and the error would be misleading.
type bounded struct {
	data  []byte
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.data = append(b.data, p[:min(len(p), b.limit-len(b.data))]...)
	return len(p), nil
}

// quote returns what a command wrote about its failure, unless that holds the secret
// (set -x prints it).
func (b *bounded) quote(secret []byte) string {
	text := strings.Join(strings.Fields(string(b.data)), " ")
	if text == "" || len(secret) > 0 && strings.Contains(string(b.data), string(secret)) {
		return ""
	}
	return fmt.Sprintf(", saying %q", text)
}
