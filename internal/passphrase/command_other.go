//go:build !unix

package passphrase

import "os/exec"

// killWithChildren does nothing: without process groups only the command itself is killed.
func killWithChildren(*exec.Cmd) {}

// runAs does nothing: other systems than Unix have no root.
func (Command) runAs(*exec.Cmd) error { return nil }
