package main

import (
	"context"
	_ "embed" // the source of the forwarder
	"os"
	"path/filepath"

	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

//go:embed forward/forward.c
var forwardSource []byte

// floor is the forwarder of test/bench/forward: what is left of a gate without TLS.
func forwarder() contender {
	return contender{
		id: "floor", title: "C forwarder, no TLS",
		about:   "one thread, epoll, one read and one write for each message (test/bench/forward), `cc -O2`",
		dialect: plainText, noCert: true, program: "cc", pkg: "gcc",
		version: func(*lab) string { return firstLine(program("cc"), "--version") },
		start: func(l *lab, s setting) (*gate.Process, error) {
			return s.launch(nil, l.forward, s.Port, s.SocketFile)
		},
	}
}

func compileForwarder(ctx context.Context, dir string) (string, error) {
	source, to := filepath.Join(dir, "forward.c"), filepath.Join(dir, "forward")
	if err := os.WriteFile(source, forwardSource, 0o600); err != nil {
		return "", err
	}
	return to, harness.Complete(ctx, os.Environ(), program("cc"), "-O2", "-o", to, source)
}
