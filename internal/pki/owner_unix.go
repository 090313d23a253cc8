//go:build unix

package pki

import (
	"io/fs"
	"syscall"
)

// ownerOf returns the number of the account that owns a file; -1 if it is not known.
func ownerOf(st fs.FileInfo) int {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}
