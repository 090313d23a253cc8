//go:build !linux

package sandbox

// HideMemory does nothing: only Linux has PR_SET_DUMPABLE.
func HideMemory() error { return nil }
