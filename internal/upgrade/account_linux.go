package upgrade

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// AccountOf returns the account of a process as the kernel has it. A peer at the admin socket has named the process,
// so listener, the account that listens there, must be root or the same.
func AccountOf(pid, listener int) (a Account, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return a, fmt.Errorf("the account of process %d, which the gate has named as its own, is not known: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		name, values, _ := strings.Cut(line, ":")
		var ids []int
		switch name {
		case "Uid", "Gid", "Groups":
			for _, value := range strings.Fields(values) {
				id, err := strconv.Atoi(value)
				if err != nil {
					return a, fmt.Errorf("process %d: %q is no id", pid, value)
				}
				ids = append(ids, id)
			}
		}
		switch name {
		case "Uid":
			a.UID, err = onlyOne(ids)
		case "Gid":
			a.GID, err = onlyOne(ids)
		case "Groups":
			a.Groups = ids
		}
		if err != nil {
			return a, fmt.Errorf("process %d, which the gate has named as its own, is a program that has taken another account: %s", pid, strings.TrimSpace(line))
		}
	}
	if listener != 0 && listener != a.UID {
		return a, fmt.Errorf("the gate has named process %d of the account %d as its own, and the account %d listens at admin.socket", pid, a.UID, listener)
	}
	return a, nil
}

// onlyOne returns the id that is the real, the effective and the saved one of a process, and that of its file accesses. A
// program with a set-user-ID or set-group-ID bit has different ones, and its caller could name it.
func onlyOne(ids []int) (int, error) {
	if len(ids) == 0 {
		return 0, strconv.ErrSyntax
	}
	for _, id := range ids {
		if id != ids[0] {
			return 0, strconv.ErrRange
		}
	}
	return ids[0], nil
}
