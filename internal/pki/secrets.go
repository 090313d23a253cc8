package pki

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Secrets say where passphrases come from. The zero value has none.
type Secrets struct {
	// Ask asks a person. It may be nil.
	Ask func(prompt string) ([]byte, error)
	// Attempts is how often Ask is called for a passphrase that is wrong; 0 is once.
	Attempts int
	// Command is for /bin/sh and prints the passphrase. PGWICKET_CA_KEY is the file of the
	// key in its environment. It is used instead of Ask if it is not empty.
	Command string
}

const (
	minPassphrase  = 8    // bytes, of a new one
	maxPassphrase  = 1024 // OpenSSL's PEM_BUFSIZE
	commandTimeout = 30 * time.Second
)

// passphrase returns the passphrase of a key file, which the caller clears. A new one is
// typed twice.
func (s Secrets) passphrase(file string, isNew bool) ([]byte, error) {
	var secret []byte
	var err error
	switch {
	case s.Command != "":
		secret, err = s.run(file)
	case s.Ask == nil:
		return nil, errors.New("there is no terminal to ask for its passphrase: give --passphrase-command")
	default:
		secret, err = s.Ask("Passphrase of " + file + ": ")
	}
	switch {
	case err != nil:
		return nil, err
	case len(secret) > maxPassphrase:
		return nil, fmt.Errorf("the passphrase is longer than %d bytes", maxPassphrase)
	case !isNew:
		return secret, nil
	case len(secret) < minPassphrase:
		return nil, fmt.Errorf("the passphrase is shorter than %d bytes", minPassphrase)
	case s.Command != "":
		return secret, nil
	}
	again, err := s.Ask("The same again: ")
	if err == nil && !bytes.Equal(again, secret) {
		err = errors.New("the two passphrases differ")
	}
	clear(again)
	return secret, err
}

// run runs the command. Its errors hold nothing of the passphrase.
func (s Secrets) run(file string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", s.Command)
	cmd.Env = append(os.Environ(), "PGWICKET_CA_KEY="+file)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	secret := bytes.TrimRight(out, "\r\n")
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("the passphrase command did not end within %v", commandTimeout)
	case err != nil:
		return nil, fmt.Errorf("the passphrase command failed: %w", err)
	case len(secret) == 0:
		return nil, errors.New("the passphrase command printed nothing")
	}
	return secret, nil
}
