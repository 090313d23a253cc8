package main

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pgwicket/config"
)

// sandbox is what Landlock leaves to the gate for the rest of its life, besides
// what it has open: to read below some directories, and to connect to PostgreSQL.
// What it has taken away cannot be had again, so a reload that needs more is
// refused. nil leaves everything.
type sandbox struct {
	dirs     []directory // may be read, with all below them
	commands bool        // programs may be run, and with that anything be read and connected to
	abstract bool        // Unix sockets with abstract names can be connected to
	sockets  []directory // Unix sockets below these can, too; nil: any
	ports    []uint16    // of TCP can be connected to,
	anywhere bool        // or any
	resolves bool        // names can be looked up
	removes  string      // files in this directory can be removed; empty: none

	// held keeps what is left of /proc: the kernel would forget it when memory is
	// short, make it anew, and that would not be in the sandbox.
	held []*os.File
}

// directory is one that was there at the start. Another one under the same name
// is not in the sandbox.
type directory struct {
	name string
	fs.FileInfo
}

func directories(names []string) (dirs []directory) {
	for _, name := range names {
		if st, err := os.Stat(name); err == nil {
			dirs = append(dirs, directory{name, st})
		}
	}
	return dirs
}

// below reports whether a path without links is in one of them, or is one.
func below(path string, dirs []directory) bool {
	for ; ; path = filepath.Dir(path) {
		st, err := os.Stat(path)
		if err == nil && slices.ContainsFunc(dirs, func(d directory) bool { return os.SameFile(d.FileInfo, st) }) {
			return true
		}
		if path == filepath.Dir(path) {
			return false
		}
	}
}

// confine gives up what the gate does not need any more: being root, if it was
// started so, then all that its sandbox does not name. Every listener must be
// open, and nobody served yet.
func (g *gate) confine(a *account, cfg *config.Config) error {
	names, hosts := config.Names(g.path), cfg.Policy.Hosts()
	if a != nil {
		if err := a.become(); err != nil {
			return err
		}
		if err := noNewPrivileges(); err != nil {
			return fmt.Errorf("user: %w", err)
		}
		g.log.Info("no longer root", "user", a.name, "uid", a.uid, "gid", a.gid, "groups", a.groups)
		a.warnUnreadable(g.log, names, hosts)
	}
	if !cfg.Landlock {
		g.log.Info("no sandbox: landlock is false")
		return nil
	}
	s := &sandbox{dirs: directories(readable(names)), commands: cfg.RunsCommands, abstract: cfg.RunsCommands}
	if cfg.Admin.Socket != "" && !cfg.ReusePort {
		s.removes = filepath.Dir(cfg.Admin.Socket)
	}
	sockets := []string{os.Getenv("NOTIFY_SOCKET")}
	for _, h := range hosts {
		if h.Network == "unix" {
			sockets = append(sockets, h.Address)
			continue
		}
		port, resolves := remote(h.Address)
		s.ports, s.resolves = append(s.ports, port), s.resolves || resolves
	}
	s.abstract = s.abstract || slices.ContainsFunc(sockets, isAbstract)
	s.sockets = directories(socketDirs(sockets...))
	var err error
	if g.sandbox, err = s.enter(g.log, cfg.Listen); err != nil {
		return fmt.Errorf("landlock: %w; landlock: false does without", err)
	}
	return nil
}

// remote takes host:port apart: the port, and whether the host is a name, to be
// looked up.
func remote(address string) (port uint16, resolves bool) {
	host, text, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(text, 10, 16)
	_, err := netip.ParseAddr(host)
	return uint16(n), err != nil
}

func isAbstract(socket string) bool { return strings.HasPrefix(socket, "@") }

// readable are the directories that must stay readable, so that a reload can
// read what comes in place of the files of now: the one that a file is written to
// be in, the one that it is in, and the one of a link on the way that leads to a
// neighbour of its own, as the ..data of Kubernetes does, which will be swapped
// for another neighbour.
func readable(names []config.Name) []string {
	var paths []string
	for _, n := range names {
		if !n.Backend {
			paths = append(paths, n.Path)
		}
	}
	for _, p := range slices.Clone(paths) {
		entries, _ := visible(p)
		for _, e := range entries {
			if e.Type() == fs.ModeSymlink {
				paths = append(paths, filepath.Join(p, e.Name()))
			}
		}
	}
	var dirs []string
	add := func(path string) {
		if path, err := filepath.EvalSymlinks(path); err == nil && !slices.Contains(dirs, path) {
			dirs = append(dirs, path)
		}
	}
	for _, p := range paths {
		if p, err := filepath.Abs(p); err == nil {
			if st, err := os.Stat(p); err == nil && st.IsDir() {
				add(p)
				continue
			}
			add(filepath.Dir(p))
			if end, err := filepath.EvalSymlinks(p); err == nil {
				add(filepath.Dir(end))
			}
		}
	}
	for link := range findPlaces(paths).names {
		target, err := os.Readlink(link)
		if dir := filepath.Dir(link); err == nil && !strings.Contains(target, "/") && !isSystem(dir) {
			add(dir)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// isSystem reports whether to leave a directory readable is to leave passwords
// readable.
func isSystem(dir string) bool { return dir == "/" || dir == "/etc" }

// socketDirs are where sockets may be connected to. It is the directory above
// theirs: one in /run is often made anew when PostgreSQL starts, and the new one
// would not be in the sandbox. A directory in the root is a mount.
func socketDirs(sockets ...string) (dirs []string) {
	for _, s := range sockets {
		if s == "" || isAbstract(s) {
			continue
		}
		dir := existing(filepath.Dir(s))
		if above := filepath.Dir(dir); above != "/" {
			dir = above
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// existing returns a directory without its links, or, of one that is not there,
// the nearest above it that is.
func existing(dir string) string {
	for {
		if real, err := filepath.EvalSymlinks(dir); err == nil || dir == filepath.Dir(dir) {
			return real
		}
		dir = filepath.Dir(dir)
	}
}

// explain says of a load what of it the sandbox stands in the way of: in the
// problems that it has caused, and in new ones.
func (s *sandbox) explain(problems []config.Problem, file string, names []config.Name) []config.Problem {
	if s == nil {
		return problems
	}
	for _, n := range names {
		if s.lets(n) {
			continue
		}
		const why = "outside of what the sandbox has left to this process at its start (landlock); restart pgwicket to let it in"
		blamed := false
		for i, p := range problems {
			if p.Key == n.Key && !p.Warning {
				problems[i].Text += "; it is " + why
				blamed = true
			}
		}
		if !blamed {
			where := file
			if n.Line == 0 {
				where = config.Variable(n.Key)
			}
			problems = append(problems, config.Problem{File: where, Line: n.Line, Key: n.Key, Text: fmt.Sprintf("%q is %s", n.Path, why)})
		}
	}
	for i, p := range problems {
		if !strings.HasSuffix(p.Key, "tls.passphrase_command") || p.Warning {
			continue
		}
		if s.commands {
			problems[i].Text += "; if it worked at the start: in the sandbox (landlock) it cannot write but to /dev and the directories for temporary files, and gains no privileges"
		} else {
			problems[i].Text += "; the sandbox (landlock) lets this process run no program, as it needed none at its start; restart pgwicket"
		}
	}
	return problems
}

// lets reports whether the sandbox is not in the way of a path. One that leads
// nowhere is not its business.
func (s *sandbox) lets(n config.Name) bool {
	switch {
	case n.Backend && isAbstract(n.Path):
		return s.abstract
	case n.Backend && strings.HasPrefix(n.Path, "/"):
		return s.sockets == nil || below(existing(n.Path), s.sockets)
	case n.Backend:
		port, resolves := remote(n.Path)
		return s.commands || s.anywhere || slices.Contains(s.ports, port) && (s.resolves || !resolves)
	case s.commands:
		return true
	}
	real, err := filepath.EvalSymlinks(n.Path)
	if err != nil {
		return true
	}
	if real, err = filepath.Abs(real); err != nil || !below(real, s.dirs) {
		return false
	}
	entries, _ := visible(real)
	return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		end, err := filepath.EvalSymlinks(filepath.Join(real, e.Name()))
		return err == nil && !below(end, s.dirs)
	})
}
