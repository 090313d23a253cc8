package upgrade

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// neededFiles returns how many files a process must be able to open that goes on with so many connections, and accepts as
// many again: each has two. It is no more than this process may open.
func neededFiles(connections int) uint64 {
	const margin = 1000 // listeners, files of the configuration, the admin socket
	need := 4*uint64(max(connections, 0)) + margin
	var own unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &own) == nil {
		need = min(need, own.Cur)
	}
	return need
}

// allowFiles has this process open so many files at a time, if it may. It has the limit of the shell that has started it,
// and descriptors beyond that are lost on their way.
func allowFiles(need uint64) error {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil || own.Cur >= need {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: need, Max: max(need, own.Max)}); err != nil {
		return fmt.Errorf("the new process may open %d files, and needs %d: raise the limit (ulimit -n) where pgwicket upgrade runs", own.Cur, need)
	}
	return nil
}
