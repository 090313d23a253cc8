//go:build !unix

package gate

// ProgramID is not known on this system.
func ProgramID() string { return "" }
