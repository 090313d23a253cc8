package pki

import (
	"bytes"
	"errors"
	"fmt"

	"pgwicket/internal/passphrase"
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

const minPassphrase = 8 // bytes, of a new one

// passphrase returns the passphrase of a key file, which the caller clears. A new one is
// typed twice.
func (s Secrets) passphrase(file string, isNew bool) ([]byte, error) {
	var secret []byte
	var err error
	switch {
	case s.Command != "":
		command := passphrase.Command{Line: s.Command, Env: []string{"PGWICKET_CA_KEY=" + file}, Timeout: passphrase.Timeout}
		if secret, err = command.Run(); err != nil {
			err = fmt.Errorf("--passphrase-command: %w", err)
		}
	case s.Ask == nil:
		return nil, errors.New("there is no terminal to ask for its passphrase: give --passphrase-command")
	default:
		secret, err = s.Ask("Passphrase of " + file + ": ")
	}
	switch {
	case err != nil:
		return nil, err
	case len(secret) > passphrase.MaxSize:
		return nil, fmt.Errorf("the passphrase is longer than %d bytes", passphrase.MaxSize)
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
