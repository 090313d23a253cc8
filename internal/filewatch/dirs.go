package filewatch

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// watchSet is what must be watched to hear of any change of some paths.
type watchSet struct {
	dirs  map[string]bool // true: every entry matters
	names map[string]bool // the entries that matter in the other directories
}

// Links returns the symbolic links that decide where paths lead, and the entries
// that paths end at.
func Links(paths []string) []string { return slices.Sorted(maps.Keys(watchSetOf(paths).names)) }

// matters reports whether an event at name can change a path: at an entry, or at
// the directory itself.
func (p watchSet) matters(name string) bool {
	name = filepath.Clean(name) // names in the root directory begin with two slashes
	_, dir := p.dirs[name]
	return dir || p.names[name] || p.dirs[filepath.Dir(name)]
}

func watchSetOf(paths []string) watchSet {
	p := watchSet{dirs: make(map[string]bool), names: make(map[string]bool)}
	for _, path := range paths {
		dir := p.follow(path)
		if dir == "" {
			continue
		}
		p.dirs[dir] = true
		entries, _ := Entries(dir) // a directory that cannot be read can be watched
		for _, e := range entries {
			if e.Type() == fs.ModeSymlink {
				p.follow(filepath.Join(dir, e.Name()))
			}
		}
	}
	return p
}

// follow resolves a path as the kernel does, and adds the entries that decide where
// it leads: the file's own, each symbolic link on the way (..data of Kubernetes is
// one), and, where nothing exists, the entry that would have to appear. If path is
// a directory, follow returns it without its links.
func (p watchSet) follow(path string) (directory string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	const root, maxLinks = "/", 40 // MAXSYMLINKS of Linux, include/linux/namei.h
	at, rest, links := root, components(path), 0
	for len(rest) > 0 {
		var name string
		name, rest = rest[0], rest[1:]
		if name == ".." { // of a link's target
			at = filepath.Dir(at)
			continue
		}
		full := filepath.Join(at, name)
		st, err := os.Lstat(full)
		switch {
		case err == nil && st.IsDir():
			at = full
			continue
		case err == nil && st.Mode().Type() == fs.ModeSymlink && links < maxLinks:
			p.add(at, full)
			links++
			target, _ := os.Readlink(full)
			if filepath.IsAbs(target) {
				at = root
			}
			rest = append(components(target), rest...)
			continue
		}
		p.add(at, full)
		return ""
	}
	return at
}

func (p watchSet) add(dir, full string) {
	if _, ok := p.dirs[dir]; !ok {
		p.dirs[dir] = false
	}
	p.names[full] = true
}

func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}
