//go:build !linux

package main

import (
	"errors"
	"log/slog"
)

// Other systems have nothing of the kind.
func withoutCapabilities() error { return nil }
func noNewPrivileges() error     { return nil }

func landlockABI() (int, error) { return 0, errors.New("it is Linux's") }

func (s *sandbox) enter(log *slog.Logger, _ []string) (*sandbox, error) {
	_, err := landlockABI()
	log.Info("no sandbox: the system has no Landlock, or does not let it be used", "error", err.Error())
	return nil, nil //nolint:nilnil // none is as good an answer as one
}
