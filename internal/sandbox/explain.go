package sandbox

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"pgwicket/config"
	"pgwicket/internal/filewatch"
)

// Explain returns the problems of a load, with the sandbox named as the reason where
// it is, and with a new problem for each path that a later load could not read. file
// is the configuration and names its paths.
func (s *Sandbox) Explain(problems []config.Problem, file string, names []config.Name) []config.Problem {
	if s == nil {
		return problems
	}
	for _, n := range names {
		if s.allows(n) {
			continue
		}
		const why = "outside of the sandbox that this process entered at its start (landlock); restart pgwicket to include it"
		explained := false
		for i, p := range problems {
			if p.Key == n.Key && !p.Warning {
				problems[i].Text += "; it is " + why
				explained = true
			}
		}
		if !explained {
			where := file
			if n.Line == 0 {
				where = config.Variable(n.Key)
			}
			problems = append(problems, config.Problem{File: where, Line: n.Line, Key: n.Key, Text: fmt.Sprintf("%q is %s", n.Path, why)})
		}
	}
	for i, p := range problems {
		if strings.HasSuffix(p.Key, ".sslrootcert") && strings.HasPrefix(p.Text, "system:") && !p.Warning {
			problems[i].Text += "; in the sandbox (landlock) this process cannot read them, as it needed none at its start; restart pgwicket"
		}
		if !strings.HasSuffix(p.Key, "tls.passphrase_command") || p.Warning {
			continue
		}
		if s.commands {
			problems[i].Text += "; if it worked at the start: in the sandbox (landlock) it can write only to /dev and the directories for temporary files, and gains no privileges"
		} else {
			problems[i].Text += "; in the sandbox (landlock) this process cannot run programs, as it needed none at its start; restart pgwicket"
		}
	}
	return problems
}

// allows reports whether the sandbox leaves a path. One that does not exist counts
// as left.
func (s *Sandbox) allows(n config.Name) bool {
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
	entries, _ := filewatch.Entries(real)
	return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		end, err := filepath.EvalSymlinks(filepath.Join(real, e.Name()))
		return err == nil && !below(end, s.dirs)
	})
}
