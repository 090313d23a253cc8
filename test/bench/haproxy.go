package main

import (
	"os"
	"path/filepath"

	"pgwicket/test/gate"
)

func haproxy() contender {
	return contender{
		id: "haproxy", title: "HAProxy",
		about:   "direct TLS with ALPN (it cannot answer an SSLRequest, so not in the scenarios of libpq), `mode tcp`, one thread, no tickets",
		dialect: directTLS, program: "haproxy", pkg: "haproxy",
		version: func(*lab) string { return firstLine(program("haproxy"), "-v") },
		start: func(_ *lab, s setting) (*gate.Process, error) {
			config, err := s.render("haproxy.cfg")
			if err != nil {
				return nil, err
			}
			if err := joinFiles(s.Dir, "server.pem", "server.crt", "server.key"); err != nil {
				return nil, err
			}
			return s.launch(nil, program("haproxy"), "-db", "-f", config)
		},
	}
}

// joinFiles writes the one file that HAProxy wants for a certificate and its key.
func joinFiles(dir, to string, from ...string) error {
	var all []byte
	for _, name := range from {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		all = append(all, b...)
	}
	return os.WriteFile(filepath.Join(dir, to), all, 0o600) //nolint:gosec // in our own directory
}
