package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HideMemory keeps the memory of this process, which has keys and passwords in it, from
// other processes of the same account and from core dumps: nobody but root may trace it or
// read its part of /proc, and the kernel writes no dump. It is to be called before the
// first key is read, and again after the account has changed, which resets it.
func HideMemory() error {
	// A dump follows neither; the limit also reaches programs that this one runs. A filter
	// of system calls may forbid it, as that of the unit does, which has LimitCORE=.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("the memory of this process cannot be protected (PR_SET_DUMPABLE): %w", err)
	}
	return nil
}
