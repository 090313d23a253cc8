//go:build unix

package gate

import "syscall"

// restrictMode makes a socket accessible to its owner only, before it has a name.
func restrictMode(fd uintptr) { _ = syscall.Fchmod(int(fd), ownerOnly) }
