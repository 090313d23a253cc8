//go:build !unix

package upgrade

// ProgramID is not known on this system.
func ProgramID() string { return "" }
