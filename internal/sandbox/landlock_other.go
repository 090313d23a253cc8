//go:build !linux

package sandbox

import (
	"errors"
	"log/slog"
)

// Only Linux has capabilities, no_new_privs and Landlock.

func checkNoCapabilities() error { return nil }
func NoNewPrivileges() error     { return nil }

// ABI returns the version of the kernel's Landlock that can be used, or why there is
// none.
func ABI() (int, error) { return 0, errors.New("only Linux has it") }

func (*Sandbox) enter(log *slog.Logger, _ []string) (*Sandbox, error) {
	_, err := ABI()
	log.Info("no sandbox: the system has no Landlock, or forbids it", "error", err.Error())
	return nil, nil //nolint:nilnil // nil is no sandbox
}
