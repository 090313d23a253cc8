// Package sandbox takes from the process what a gate does not need: root, by
// becoming another account, and on Linux, by Landlock, every file outside of the
// directories of the configuration, writing, running programs, and connecting
// elsewhere than to PostgreSQL. What it has taken does not come back, so it also
// explains why a reload cannot have something.
//
// It may import config and proxy, whose values say what a gate needs, and
// internal/filewatch, which knows the links on the way to a file. Only this package
// imports go-landlock. Systems other than Linux have accounts and no sandbox;
// Windows has neither.
package sandbox

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"pgwicket/config"
	"pgwicket/proxy"
)

// Sandbox is what Landlock leaves to the process, besides the files and sockets
// that are open already. nil is no sandbox: it leaves everything.
type Sandbox struct {
	dirs     []directory // readable, with everything below
	commands bool        // programs may run, and with that anything be read and connected to
	abstract bool        // Unix sockets with abstract names may be connected to
	sockets  []directory // Unix sockets below these may, too; nil: any
	ports    []uint16    // TCP ports that may be connected to,
	anywhere bool        // or any
	resolves bool        // names may be looked up
	removes  string      // files in this directory may be removed; empty: none
	writes   []directory // in these, files may be made, written, renamed and removed

	// held keeps what is left of /proc open: the kernel drops its inodes when memory
	// is short, and the new ones would not be in the sandbox.
	held []*os.File
}

// directory is one that existed when the sandbox was entered. Another one under the
// same name is not part of the sandbox.
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

// Options say what a sandbox leaves to the process.
type Options struct {
	// Names are the paths of the configuration.
	Names []config.Name
	// Hosts are the backends that may be connected to.
	Hosts []*proxy.Host
	// Listen are the addresses of the listeners: the watchdog of systemd connects
	// to them.
	Listen []string
	// Commands leaves running programs, and what those may read and connect to.
	Commands bool
	// Remove is a file that may be removed, with others in its directory; empty: none.
	Remove string
	// Write are directories in which files may be read, made, written, renamed and
	// removed.
	Write []string
}

// Enter confines every thread of the process, for good, as far as the kernel can,
// and logs what it has left open. It returns nil and no error on a system without
// Landlock. Every listener must be open, and no connection accepted yet.
func Enter(log *slog.Logger, o Options) (*Sandbox, error) {
	s := &Sandbox{dirs: directories(readable(o.Names)), commands: o.Commands, abstract: o.Commands}
	for _, dir := range o.Write {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			s.writes = append(s.writes, directories([]string{real})...)
		}
	}
	if o.Remove != "" {
		s.removes = filepath.Dir(o.Remove)
	}
	sockets := []string{os.Getenv("NOTIFY_SOCKET")}
	for _, h := range o.Hosts {
		if h.Network == "unix" {
			sockets = append(sockets, h.Address)
			continue
		}
		port, resolves := remote(h.Address)
		s.ports, s.resolves = append(s.ports, port), s.resolves || resolves
	}
	s.abstract = s.abstract || slices.ContainsFunc(sockets, isAbstract)
	s.sockets = directories(socketDirs(sockets...))
	entered, err := s.enter(log, o.Listen)
	if err != nil {
		return nil, fmt.Errorf("landlock: %w; landlock: false does without", err)
	}
	return entered, nil
}
