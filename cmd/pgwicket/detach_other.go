//go:build !unix

package main

import (
	"errors"
	"os/exec"

	"pgwicket/internal/upgrade"
)

// detachAs does nothing: no such system has upgrades.
func detachAs(*exec.Cmd, upgrade.Account) error { return nil }

func closeOnExec(int) {}

// hangUp fails.
func hangUp(int) error { return errors.New("the system has no SIGHUP") }
