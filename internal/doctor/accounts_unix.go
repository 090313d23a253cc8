//go:build unix

package doctor

import (
	"io/fs"
	"syscall"
)

// ownerOf returns the numbers of the account and the group that own a file.
func ownerOf(st fs.FileInfo) (uid, gid int) {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid), int(sys.Gid)
	}
	return -1, -1
}
