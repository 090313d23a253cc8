//go:build unix

package tlsconfig

import (
	"io/fs"
	"syscall"
)

// fileOwner returns the user that owns a file; -1, which is nobody, if it is not known.
func fileOwner(st fs.FileInfo) (uid int, ok bool) {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid), true
	}
	return -1, true
}
