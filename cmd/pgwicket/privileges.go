package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"pgwicket/config"
	"pgwicket/proxy"
)

// account is what a gate that was started as root becomes.
type account struct {
	name     string
	group    string
	uid, gid int
	groups   []int // all of them
}

// accountOf returns the account that this process is to become, nil for none. A
// Problem that is not a warning means that it cannot.
func accountOf(cfg *config.Config, file string) (*account, []config.Problem) {
	if cfg.UserLine == 0 {
		file = config.Variable("user")
	}
	say := func(warning bool, format string, args ...any) []config.Problem {
		return []config.Problem{{File: file, Line: cfg.UserLine, Key: "user", Text: fmt.Sprintf(format, args...), Warning: warning}}
	}
	me := os.Geteuid()
	if cfg.User == "" {
		if me != 0 {
			return nil, nil
		}
		return nil, say(true, "is missing, and started as root the gate stays root; name an account of its own, or start it as one (User= of a systemd unit)")
	}
	a, err := findAccount(cfg.User)
	switch {
	case err != nil:
		return nil, say(false, "%v; make one with useradd --system, or name another", err)
	case a.uid == 0:
		return nil, say(false, "%s is root, which the gate is to leave; name an account of its own", cfg.User)
	case me == 0:
		return a, nil
	case me != a.uid:
		return nil, say(false, "is %s (%d), but this is started as %d, and only root can become another; start it as one of the two, or remove the key", cfg.User, a.uid, me)
	}
	return nil, nil
}

// findAccount reads /etc/passwd and /etc/group, and nothing else where it is
// built without cgo, as it is for a release.
func findAccount(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("there is no account %q in /etc/passwd", name)
	}
	a := &account{name: name, group: u.Gid}
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		a.group = g.Name
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("the groups of %q cannot be found: %w", name, err)
	}
	numbers := make([]int, 0, 2+len(ids))
	for _, id := range append([]string{u.Uid, u.Gid}, ids...) {
		n, err := strconv.Atoi(id)
		if err != nil {
			return nil, fmt.Errorf("the account %q has no number: %w", name, err)
		}
		numbers = append(numbers, n)
	}
	a.uid, a.gid, a.groups = numbers[0], numbers[1], numbers[2:]
	return a, nil
}

// become makes every thread of this process a's, for good, and fails unless that
// is so: neither the account nor a capability of before can be had again.
func (a *account) become() error {
	for _, step := range []struct {
		name string
		err  func() error
	}{ // the order matters: the first two need what the third gives up
		{"setgroups", func() error { return syscall.Setgroups(a.groups) }},
		{"setgid", func() error { return syscall.Setgid(a.gid) }},
		{"setuid", func() error { return syscall.Setuid(a.uid) }},
	} {
		if err := step.err(); err != nil {
			return fmt.Errorf("user: cannot become %s: %s: %w; it takes CAP_SETUID and CAP_SETGID", a.name, step.name, err)
		}
	}
	groups, err := syscall.Getgroups()
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	for _, list := range [][]int{groups, a.groups} {
		slices.Sort(list)
	}
	switch {
	case syscall.Setuid(0) == nil, a.gid != 0 && syscall.Setgid(0) == nil:
		return fmt.Errorf("user: the system lets %s become root again", a.name)
	case syscall.Getuid() != a.uid || syscall.Geteuid() != a.uid || syscall.Getgid() != a.gid || syscall.Getegid() != a.gid ||
		!slices.Equal(slices.Compact(groups), slices.Compact(slices.Clone(a.groups))):
		return fmt.Errorf("user: the system has not made all of this process %s's", a.name)
	}
	return withoutCapabilities()
}

// warnUnreadable names what root has read and the account, which this process is
// by now, will not: the next reload would fail over it.
func (a *account) warnUnreadable(log *slog.Logger, names []config.Name, hosts []*proxy.Host) {
	for _, h := range hosts {
		if h.Network == "unix" && errors.Is(syscall.Access(h.Address, writable), fs.ErrPermission) {
			log.Warn("PostgreSQL's socket is closed to the account; no session will get through until it is let in",
				"socket", h.Address, "user", a.name)
		}
	}
	for _, n := range names {
		if n.Backend {
			continue
		}
		if path, fix := a.closed(n.Path); fix != "" {
			log.Warn("the account cannot read what root has read; a reload will fail until it can",
				"file", path, "key", n.Key, "line", n.Line, "user", a.name, "fix", fix)
		}
	}
}

const writable = 2 // W_OK of access(2)

// closed returns what keeps the account from reading a file or directory, and
// the command that lets it; nothing if it can read it, or not for want of
// permission.
func (a *account) closed(name string) (path, fix string) {
	var paths []string
	if name, err := filepath.Abs(name); err == nil {
		paths = append(paths, name)
	}
	entries, _ := visible(name)
	for _, e := range entries {
		paths = append(paths, filepath.Join(name, e.Name()))
	}
	for _, p := range paths {
		f, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would make it wait
		if err == nil {
			_ = f.Close()
			continue
		}
		if !errors.Is(err, fs.ErrPermission) {
			continue
		}
		st, err := os.Stat(p)
		for err != nil && p != filepath.Dir(p) { // a directory on the way is closed
			p = filepath.Dir(p)
			st, err = os.Stat(p)
		}
		mode := "0640"
		if err == nil && st.IsDir() {
			mode = "0750"
		}
		return p, fmt.Sprintf("chgrp %s %[2]q && chmod %[3]s %[2]q", a.group, p, mode)
	}
	return "", ""
}
