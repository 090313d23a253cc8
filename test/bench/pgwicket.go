package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"pgwicket/test/gate"
	"pgwicket/test/harness"
)

const gatePackage = "pgwicket/cmd/pgwicket"

func pgwicket(id, title string) contender { return tuned(id, title, func(*setting) {}) }

// tuned is pgwicket with other settings than its defaults.
func tuned(id, title string, change func(*setting)) contender {
	return contender{
		id: id, title: title,
		about:   "its defaults, no log line for each session",
		version: func(l *lab) string { return firstLine(l.pgwicket, "version") },
		start: func(l *lab, s setting) (*gate.Process, error) {
			change(&s)
			config := filepath.Join(s.Dir, "pgwicket.yaml")
			if err := os.WriteFile(config, gate.Config(s.Address, s.keys()), 0o600); err != nil {
				return nil, err
			}
			return s.launch(nil, cmp.Or(s.binary, l.pgwicket), "serve", "--config", config)
		},
	}
}

// keys are pgwicket's configuration: the defaults, but TLS 1.3 only like its peers,
// no limits, no admin port, and no log line for each session, which the peers do
// not write either.
func (s setting) keys() map[string]string {
	keys := map[string]string{
		"tls.cert_file": "server.crt", "tls.key_file": "server.key", "tls.min_protocol_version": "TLSv1.3", "tls.client_cert": "none",
		"acl.allow":              "[" + strings.Join(append([]string{"127.0.0.0/8"}, s.Allow...), ", ") + "]",
		"backend.host":           s.SocketDir,
		"limits.max_connections": "0", "limits.max_connections_per_source": "0", "limits.connection_rate": "0",
		"admin.address": `""`, "log.level": "warn",
	}
	if s.Cert {
		keys["tls.client_cert"], keys["tls.ca_file"] = "require", "ca.crt"
		if s.CRL != "" {
			keys["tls.crl_file"] = s.CRL
		}
	}
	if len(s.Rules) > 0 {
		// A line for each, so that the file can be read.
		var rules strings.Builder
		for _, user := range s.Rules {
			fmt.Fprintf(&rules, "\n    - {name: %q, action: allow, users: [%q], databases: [shop], certificate: {cn: %q}}", user, user, user)
		}
		keys["acl.rules"] = rules.String() + "\n    - {name: last, action: allow, users: [all]}"
	}
	maps.Copy(keys, s.extra)
	return keys
}

// build builds a Go program as releases are built, with more flags if need be.
func build(ctx context.Context, to, pkg string, flags ...string) (string, error) {
	version := firstLine("git", "describe", "--tags", "--always", "--dirty")
	if strings.Contains(version, " ") { // an error of git, so this is no checkout
		version = ""
	}
	return to, harness.Build(ctx, pkg, to, nil, append([]string{"-ldflags=-w -X main.version=" + version}, flags...)...)
}
