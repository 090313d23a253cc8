package ca_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgwicket/internal/docpage"
)

// commands returns the blocks of commands of docs/certificates.md, by their headings.
func commands(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, b := range docpage.Read(t, filepath.Join("..", "..", "docs", "certificates.md")) {
		if b.Lang == "sh" {
			found[b.Section] = append(found[b.Section], b.Text)
		}
	}
	return found
}

// configurationOf returns the part of a configuration in a section of the same page.
func configurationOf(t *testing.T, section string) string {
	t.Helper()
	for _, b := range docpage.Read(t, filepath.Join("..", "..", "docs", "certificates.md")) {
		if b.Section == section && b.Lang == "yaml" {
			return b.Text
		}
	}
	t.Fatalf("%s has no configuration", section)
	return ""
}

// The lines of docs/certificates.md make a CA whose client is admitted, and then refused.
func TestDocumentedCAs(t *testing.T) {
	page := commands(t)
	for title, needs := range map[string]string{"openssl ca": "openssl", "easy-rsa": "/usr/share/easy-rsa/easyrsa", "GnuTLS certtool": "certtool"} {
		t.Run(title, func(t *testing.T) {
			if _, err := exec.LookPath(needs); err != nil {
				t.Skip(err)
			}
			blocks := page[title]
			if len(blocks) != 2 {
				t.Fatalf("%d blocks, want one that makes the CA and one that revokes", len(blocks))
			}
			dir := t.TempDir()
			run := func(block string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(context.Background(), deadline)
				defer cancel()
				cmd := exec.CommandContext(ctx, "bash", "-c", "set -e\n"+block)
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s\n%s", err, out, block)
				}
			}
			run(blocks[0])
			g := newGate(t, dir)
			if out := g.output(); strings.Contains(out, "tls.c") {
				t.Errorf("the gate warns: %s", out)
			}
			g.admits(t, "app")
			live := g.session(t, "app")
			run(environment(blocks[0]) + blocks[1])
			live.wait(t, "the end of the session", func() bool { return strings.Contains(live.output(), "certificate was revoked") })
			g.refuses(t, "app", "client certificate was revoked on")
		})
	}
}

// environment returns the lines of a block that set variables for the next one.
func environment(block string) (lines string) {
	for line := range strings.Lines(block) {
		if strings.HasPrefix(line, "export ") {
			lines += line
		}
	}
	return lines
}
