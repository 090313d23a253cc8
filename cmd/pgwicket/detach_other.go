//go:build !unix

package main

import (
	"os/exec"

	"pgwicket/internal/gate"
)

// detachAs does nothing: no such system has upgrades.
func detachAs(*exec.Cmd, gate.UpgradePlan) error { return nil }
