package sandbox

import (
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pgwicket/config"
	"pgwicket/internal/filewatch"
)

// below reports whether a path without links is one of dirs or lies below one.
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

// remote returns the port of host:port, and whether the host is a name that must be
// looked up.
func remote(address string) (port uint16, resolves bool) {
	host, text, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(text, 10, 16)
	_, err := netip.ParseAddr(host)
	return uint16(n), err != nil
}

func isAbstract(socket string) bool { return strings.HasPrefix(socket, "@") }

// readable returns the directories that must stay readable, so that a reload can
// read what replaces the files of today: the directory that the configuration names,
// the one that the file is in, and the one of a link on the way that leads to a
// neighbour, as the ..data of Kubernetes does, which will lead to another one.
func readable(names []config.Name) []string {
	var paths []string
	for _, n := range names {
		if !n.Backend {
			paths = append(paths, n.Path)
		}
	}
	for _, p := range slices.Clone(paths) {
		entries, _ := filewatch.Entries(p)
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
	for _, link := range filewatch.Links(paths) {
		target, err := os.Readlink(link)
		if dir := filepath.Dir(link); err == nil && !strings.Contains(target, "/") && !isSystem(dir) {
			add(dir)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// isSystem reports a directory that holds the passwords of the system.
func isSystem(dir string) bool { return dir == "/" || dir == "/etc" }

// socketDirs returns the directories below which sockets may be connected to. Each
// is the parent of the socket's directory: one in /run is often replaced when
// PostgreSQL starts, and the new one would not be in the sandbox. A directory in the
// root is a mount, which stays.
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

// existing returns a directory without its links, or the nearest parent that exists.
func existing(dir string) string {
	for {
		if real, err := filepath.EvalSymlinks(dir); err == nil || dir == filepath.Dir(dir) {
			return real
		}
		dir = filepath.Dir(dir)
	}
}
