//go:build unix

package filewatch

import (
	"io/fs"
	"syscall"
)

const nonblock = syscall.O_NONBLOCK

// owner returns the number of the account that owns a file.
func owner(st fs.FileInfo) int {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}
