// Package budget computes how much memory a gate may need when it is full, and reads
// how much it may have.
package budget

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// What each part of a full gate takes of resident memory, in bytes. The garbage
// collector lets the heap grow to twice of what is held.
const (
	// Base is a gate without clients, with its configuration and the handshakes that
	// are computed at a time.
	Base = 40 << 20
	// Startup is an unproved connection: at most 96 KiB are held, whatever the client
	// has sent.
	Startup = 2 * 96 << 10
	// Session is a session whose client sends no more certificates than its chain.
	Session = 2 * 16 << 10
)

// Budget is the memory of a full gate, in bytes.
type Budget struct{ Startups, Sessions, Total int64 }

// Of returns the budget of a gate with these limits. ok is false if one of them is 0,
// which is no limit.
func Of(startups, sessions int) (b Budget, ok bool) {
	if startups <= 0 || sessions <= 0 {
		return b, false
	}
	b = Budget{Startups: int64(startups) * Startup, Sessions: int64(sessions) * Session}
	b.Total = Base + b.Startups + b.Sessions
	return b, true
}

// unlimited is what the kernel shows for no limit in version 1: the largest multiple of
// a page, or less by some pages.
const unlimited = 1 << 60

// Limit returns the memory limit of a process's control group in bytes, of all that are
// above it the smallest; 0 if there is none. proc is its directory in /proc
// ("/proc/self"), and root where control groups are mounted ("/sys/fs/cgroup").
func Limit(proc, root string) (limit int64, err error) {
	text, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // no Linux, or no control groups
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		// hierarchy:controllers:path, see cgroups(7).
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		top, file := root, "memory.max"
		switch {
		case f[0] == "0" && f[1] == "":
		case contains(f[1], "memory"):
			top, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		found, err := lowest(top, f[2], file)
		if err != nil {
			return 0, err
		}
		if found > 0 && (limit == 0 || found < limit) {
			limit = found
		}
	}
	return limit, nil
}

func contains(controllers, name string) bool {
	for c := range strings.SplitSeq(controllers, ",") {
		if c == name {
			return true
		}
	}
	return false
}

// lowest returns the smallest limit from a group up to the top. In a container the path
// is often that of the host, and its own group is the top.
func lowest(top, group, file string) (limit int64, err error) {
	for dir := filepath.Join("/", group); ; dir = filepath.Dir(dir) {
		found, err := read(filepath.Join(top, dir, file))
		if err != nil {
			return 0, err
		}
		if found > 0 && (limit == 0 || found < limit) {
			limit = found
		}
		if dir == "/" {
			return limit, nil
		}
	}
}

func read(name string) (int64, error) {
	b, err := os.ReadFile(name)
	text := strings.TrimSpace(string(b))
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && text == "max":
		return 0, nil
	case err != nil:
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if n >= unlimited {
		return 0, nil
	}
	return n, nil
}
