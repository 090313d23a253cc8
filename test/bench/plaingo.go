package main

import (
	"path/filepath"
	"runtime"

	"pgwicket/test/gate"
)

// plainGo is the proxy of test/bench/plain.
func plainGo() contender {
	return contender{
		id: "plain", title: "plain Go proxy",
		about:   "crypto/tls and two io.Copy, no tickets (test/bench/plain)",
		version: func(*lab) string { return runtime.Version() },
		start: func(l *lab, s setting) (*gate.Process, error) {
			argv := []string{l.plain, s.Address, s.SocketFile, filepath.Join(s.Dir, "server.crt"), filepath.Join(s.Dir, "server.key")}
			if s.Cert {
				argv = append(argv, filepath.Join(s.Dir, "ca.crt"))
			}
			return s.launch(nil, argv...)
		},
	}
}
