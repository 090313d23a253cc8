//go:build !linux

package socket

// As calls f: on other systems than Linux a thread cannot have an account that the
// process has not.
func As(_ Account, f func()) { f() }
