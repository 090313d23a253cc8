package ca_test

import (
	"context"
	"os"
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

// The function of docs/certificates.md that fetches lists replaces a list by a list alone.
func TestFetchList(t *testing.T) {
	for _, needs := range []string{"curl", "openssl", "bash"} {
		if _, err := exec.LookPath(needs); err != nil {
			t.Skip(err)
		}
	}
	fetch := strings.Join(commands(t)["Other certificate authorities"], "")
	if !strings.Contains(fetch, "fetch_list()") {
		t.Fatalf("the page has no fetch_list: %s", fetch)
	}
	c := newOpenSSLCA(t)
	c.run(t, "openssl ca -config ca.cnf -gencrl -out ca.pem")
	c.run(t, "openssl crl -in ca.pem -outform DER -out ca.der")
	write(t, c.file("error.html"), []byte("<html>not found</html>"))
	write(t, c.file("have.crl"), []byte("the list in use"))
	for _, tt := range []struct {
		from string
		want bool
	}{{"ca.der", true}, {"ca.pem", true}, {"error.html", false}, {"missing.crl", false}} {
		write(t, c.file("have.crl"), []byte("the list in use"))
		cmd := exec.Command("bash", "-c", fetch+"\nfetch_list file://"+c.file(tt.from)+" "+c.file("have.crl"))
		out, err := cmd.CombinedOutput()
		got, _ := os.ReadFile(c.file("have.crl"))
		if replaced := string(got) != "the list in use"; replaced != tt.want || (err == nil) != tt.want {
			t.Errorf("%s: replaced: %t, %v: %s", tt.from, replaced, err, out)
		}
	}
}
