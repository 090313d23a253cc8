//go:build unix

package sandbox

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
	"pgwicket/internal/filewatch"
	"pgwicket/proxy"
)

// Become makes every thread of this process the account's, for good, and keeps it
// from gaining privileges again. It fails unless the earlier account and its
// capabilities are really gone.
func (a *Account) Become() error {
	for _, step := range []struct {
		name string
		err  func() error
	}{ // the first two need the privileges that the third gives up
		{"setgroups", func() error { return syscall.Setgroups(a.Groups) }},
		{"setgid", func() error { return syscall.Setgid(a.GID) }},
		{"setuid", func() error { return syscall.Setuid(a.UID) }},
	} {
		if err := step.err(); err != nil {
			return fmt.Errorf("user: cannot become %s: %s: %w; it takes CAP_SETUID and CAP_SETGID", a.Name, step.name, err)
		}
	}
	groups, err := syscall.Getgroups()
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	for _, list := range [][]int{groups, a.Groups} {
		slices.Sort(list)
	}
	switch {
	case syscall.Setuid(0) == nil, a.GID != 0 && syscall.Setgid(0) == nil:
		return fmt.Errorf("user: the system lets %s become root again", a.Name)
	case syscall.Getuid() != a.UID || syscall.Geteuid() != a.UID || syscall.Getgid() != a.GID || syscall.Getegid() != a.GID ||
		!slices.Equal(slices.Compact(groups), slices.Compact(slices.Clone(a.Groups))):
		return fmt.Errorf("user: the system has not changed the whole process to %s", a.Name)
	}
	if err := checkNoCapabilities(); err != nil {
		return err
	}
	if err := NoNewPrivileges(); err != nil {
		return fmt.Errorf("user: %w", err)
	}
	return HideMemory()
}

// WarnUnreadable logs every path of the configuration that root has read and this
// process, which has become the account, cannot: the next reload would fail.
func (a *Account) WarnUnreadable(log *slog.Logger, names []config.Name, hosts []*proxy.Host) {
	for _, h := range hosts {
		if h.Network == "unix" && errors.Is(syscall.Access(h.Address, writable), fs.ErrPermission) {
			log.Warn("the account may not connect to PostgreSQL's socket; no session can start until it may",
				"socket", h.Address, "user", a.Name)
		}
	}
	for _, n := range names {
		if n.Backend {
			continue
		}
		if path, fix := a.denied(n.Path); fix != "" {
			log.Warn("the account cannot read what root has read; reloads fail until it can",
				"file", path, "key", n.Key, "line", n.Line, "user", a.Name, "fix", fix)
		}
	}
}

// current returns the account of this process, by its numbers where it has no name, as in a
// container. user.Current fails there without cgo.
func current() *Account {
	a := &Account{UID: os.Geteuid(), GID: os.Getegid()}
	a.Name, a.Group = strconv.Itoa(a.UID), strconv.Itoa(a.GID)
	if u, err := user.LookupId(a.Name); err == nil {
		a.Name = u.Username
	}
	if g, err := user.LookupGroupId(a.Group); err == nil {
		a.Group = g.Name
	}
	return a
}

const writable, enterable = 2, 1 // W_OK and X_OK of access(2)

// cannotWrite returns why this process can make no files in a directory; nil if it can, or if
// there is no such directory.
func cannotWrite(dir string) error {
	err := syscall.Access(dir, writable|enterable)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// denied returns the file or directory that denies the account reading name, and a
// command that allows it; nothing if it can be read, or fails for another reason.
func (a *Account) denied(name string) (path, fix string) {
	var paths []string
	if name, err := filepath.Abs(name); err == nil {
		paths = append(paths, name)
	}
	entries, _ := filewatch.Entries(name)
	for _, e := range entries {
		paths = append(paths, filepath.Join(name, e.Name()))
	}
	for _, p := range paths {
		f, err := os.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a FIFO would block
		if err == nil {
			_ = f.Close()
			continue
		}
		if !errors.Is(err, fs.ErrPermission) {
			continue
		}
		st, err := os.Stat(p)
		for err != nil && p != filepath.Dir(p) { // a directory on the way denies it
			p = filepath.Dir(p)
			st, err = os.Stat(p)
		}
		mode := "0640"
		if err == nil && st.IsDir() {
			mode = "0750"
		}
		return p, fmt.Sprintf("chgrp %s %[2]q && chmod %[3]s %[2]q", a.Group, p, mode)
	}
	return "", ""
}
