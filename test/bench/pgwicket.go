package main

import (
	"cmp"
	"context"
	"strings"

	"pgwicket/test/harness"
)

const gatePackage = "pgwicket/cmd/pgwicket"

func pgwicket(id, title string) contender { return tuned(id, title, func(*setting) {}) }

// tuned is pgwicket with something else than its defaults.
func tuned(id, title string, change func(*setting)) contender {
	return contender{
		id: id, title: title,
		about:   "its defaults, no log line for each session",
		version: func(l *lab) string { return firstLine(l.pgwicket, "version") },
		start: func(l *lab, s setting) (*process, error) {
			change(&s)
			config, err := s.render("pgwicket.yaml")
			if err != nil {
				return nil, err
			}
			return s.launch(nil, cmp.Or(s.binary, l.pgwicket), "serve", "--config", config)
		},
	}
}

// build makes a Go program of this module as releases are made, with more flags
// if need be. It works inside the module only.
func build(ctx context.Context, to, pkg string, flags ...string) (string, error) {
	version := firstLine("git", "describe", "--tags", "--always", "--dirty")
	if strings.Contains(version, " ") { // a complaint of git, so this is no checkout
		version = ""
	}
	return to, harness.Build(ctx, pkg, to, nil, append([]string{"-ldflags=-w -X main.version=" + version}, flags...)...)
}
