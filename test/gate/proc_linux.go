package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// Descriptors counts the open ones. Only root may list those of a gate; from Linux 6.2 on
// the size of the directory is their number.
func (p *Process) Descriptors() (int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", p.PID())
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrPermission) {
		if st, statErr := os.Stat(dir); statErr == nil && st.Size() > 0 {
			return int(st.Size()), nil
		}
	}
	return len(entries), err
}

// Resident is the memory that the process has, in bytes.
func (p *Process) Resident() (int64, error) { return p.memory("VmRSS:") }

// PeakResident is the most memory that the process has had, in bytes.
func (p *Process) PeakResident() (int64, error) { return p.memory("VmHWM:") }

func (p *Process) memory(line string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	for text := range strings.Lines(string(b)) {
		if f := strings.Fields(text); len(f) > 1 && f[0] == line {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("the process has no memory any more")
}

// CPU is the processor time that the process has used, in steps of 10 ms.
func (p *Process) CPU() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte(") ")) // the name may hold anything
	f := strings.Fields(string(rest))
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is too short", p.PID())
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2) // ticks, on every Linux
}
