//go:build !unix

package tlsconfig

import "os/exec"

// killWithChildren does nothing: without process groups only the command itself is killed.
func killWithChildren(*exec.Cmd) {}

// runAs does nothing: other systems than Unix have no root.
func runAs(*exec.Cmd, string) error { return nil }
