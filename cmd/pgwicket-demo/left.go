//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const dirPrefix = "pgwicket-demo-"

// lockDir locks a directory for as long as this process lives, however it ends.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// removeLeft ends the processes and removes the directories that demos of this account have left
// which were killed.
func removeLeft(out io.Writer, in string) {
	dirs, _ := filepath.Glob(filepath.Join(in, dirPrefix+"*"))
	for _, dir := range dirs {
		// Not what another account has put there.
		if st, err := os.Lstat(dir); err != nil || !st.IsDir() || st.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, "lock")); err != nil {
			continue // another demo has only just made it
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue // it runs
		}
		fmt.Fprintln(out, "removing what a demo that was killed has left:", dir)
		kill(dir)
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}
}

// kill ends the programs of a demo, and waits until they are gone.
func kill(dir string) {
	for range 100 {
		found := programs(dir)
		if len(found) == 0 {
			return
		}
		for pid, name := range found {
			signal := syscall.SIGKILL
			if name == "postgres" { // ends its processes, and removes its shared memory
				signal = syscall.SIGQUIT
			}
			_ = syscall.Kill(pid, signal)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// programs returns those that a demo starts with files in a directory, by process.
func programs(dir string) map[int]string {
	found := make(map[int]string)
	for pid, args := range commandLines() {
		name := filepath.Base(args[0])
		ours := slices.Contains([]string{"pgwicket", "postgres", "initdb"}, name)
		if ours && slices.ContainsFunc(args[1:], func(arg string) bool { return strings.Contains(arg, dir+"/") }) {
			found[pid] = name
		}
	}
	return found
}

// commandLines returns the arguments of all processes, from /proc, or from ps where there is none.
func commandLines() map[int][]string {
	lines := make(map[int][]string)
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, _ := os.ReadFile(file) // empty if the process has ended
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if args := strings.Split(string(bytes.TrimRight(text, "\x00")), "\x00"); err == nil && args[0] != "" {
			lines[pid] = args
		}
	}
	if len(files) > 0 {
		return lines
	}
	out, _ := exec.Command("ps", "-axo", "pid=,args=").Output()
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if pid, err := strconv.Atoi(fields[0]); err == nil {
			lines[pid] = fields[1:]
		}
	}
	return lines
}
