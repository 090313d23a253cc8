package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf returns the processor time that a process has used, in nanoseconds. It
// is the sum of its threads' schedstat, but also of the threads that have ended:
// stunnel has one for each connection.
func cpuOf(pid int) (time.Duration, error) {
	var ts unix.Timespec
	clock := int32(^pid)<<3 | 2 // clock_getcpuclockid(3): CPUCLOCK_SCHED of a process
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
