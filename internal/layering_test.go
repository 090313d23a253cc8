// Package internal_test holds what docs/design.md says about the tree as a whole: who imports whom, the sizes, the words.
package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "pgwicket/"

// layers says what of ours each package may import. One that is not here has not been given its place.
var layers = map[string][]string{
	"acl":                 {"internal/dn"},
	"metrics":             {"internal/health"},
	"internal/der":        nil,
	"internal/privkey":    nil,
	"internal/signature":  {"internal/der"},
	"internal/certs":      {"internal/der", "internal/dn", "internal/signature"},
	"internal/crl":        {"internal/certs", "internal/dn", "internal/signature"},
	"internal/dn":         nil,
	"internal/nearest":    nil,
	"internal/pgconf":     {"internal/statefile"},
	"internal/pgtest":     nil,
	"internal/status":     nil,
	"internal/pgwire":     nil,
	"internal/tlstest":    nil,
	"internal/account":    nil,
	"internal/unixsocket": {"internal/account"},
	"internal/passphrase": {"internal/account"},
	"tlsconfig":           {"internal/certs", "internal/crl", "internal/dn", "internal/nearest", "internal/passphrase", "internal/privkey", "internal/verdicts"},
	"internal/relay":      {"internal/pgwire", "internal/tlsrecord"},
	"internal/socket":     nil,
	"internal/tlsrecord":  nil,
	"internal/handover":   nil,
	"internal/verdicts":   {"internal/certs"},

	"internal/outcome":     {"internal/pgwire", "internal/relay"},
	"internal/printable":   nil,
	"internal/group":       {"acl", "internal/backend", "internal/socket"},
	"internal/health":      nil,
	"internal/limit":       {"internal/printable"},
	"internal/lock":        {"acl", "internal/statefile"},
	"internal/refusallog":  nil,
	"internal/sessionid":   nil,
	"internal/audit":       {"internal/statefile"},
	"internal/statefile":   nil,
	"internal/backend":     {"internal/limit", "internal/pgwire", "internal/relay", "internal/socket", "internal/tlsrecord"},
	"internal/clientcert":  {"acl", "internal/certs", "internal/printable"},
	"internal/handshake":   {"internal/outcome", "internal/pgwire", "internal/relay"},
	"internal/policy":      {"acl", "internal/backend", "internal/limit", "internal/lock", "internal/outcome"},
	"internal/proxyheader": {"internal/relay"},
	"proxy": {
		"acl", "metrics", "internal/backend", "internal/certs", "internal/clientcert", "internal/handshake", "internal/limit", "internal/lock", "internal/outcome", "internal/pgwire", "internal/policy", "internal/printable",
		"internal/proxyheader", "internal/refusallog", "internal/relay", "internal/sessionid", "internal/socket", "internal/tlsrecord",
	},
	"config": {"acl", "internal/outcome", "internal/policy", "proxy", "tlsconfig", "internal/nearest"},

	"internal/crlfetch": {"internal/certs", "internal/crl", "internal/statefile"},
	"internal/pki":      {"internal/certs", "internal/crl", "internal/passphrase", "internal/privkey", "internal/statefile"},

	"internal/budget":    nil,
	"internal/phrase":    nil,
	"internal/logwriter": nil,
	"internal/filewatch": nil,
	"internal/systemd":   {"proxy"},
	"internal/nftables":  {"acl", "proxy", "internal/phrase"},
	"internal/sandbox":   {"config", "proxy", "internal/account", "internal/filewatch"},
	"internal/doctor": {
		"acl", "config", "proxy", "tlsconfig", "internal/doctor/machine", "internal/doctor/postgres", "internal/doctor/report", "internal/nftables", "internal/pgconf", "internal/pgwire", "internal/phrase", "internal/policy", "internal/printable", "internal/socket",
	},
	"internal/doctor/machine":  {"internal/doctor/report", "internal/phrase", "internal/printable", "internal/statefile"},
	"internal/doctor/postgres": {"internal/doctor/report", "internal/phrase", "internal/printable", "internal/statefile"},
	"internal/doctor/report":   {"internal/phrase", "internal/printable", "internal/statefile"},
	"internal/upgrade":         {"acl", "metrics", "proxy", "internal/handover", "internal/health", "internal/lock"},
	"internal/gate": {
		"internal/certs",
		"acl", "config", "metrics", "proxy", "tlsconfig", "internal/account", "internal/audit", "internal/dn", "internal/filewatch", "internal/group", "internal/health", "internal/lock", "internal/phrase", "internal/policy", "internal/sandbox",
		"internal/socket", "internal/status", "internal/systemd", "internal/upgrade", "internal/unixsocket",
	},
	"internal/adminclient": {"config", "internal/printable"},
	"internal/explain":     {"acl", "config", "internal/certs", "internal/policy", "proxy", "tlsconfig", "internal/gate", "internal/outcome", "internal/phrase", "internal/printable"},

	"cmd/pgwicket/cli":    {"config", "internal/nearest"},
	"cmd/pgwicket/prompt": nil,
	"cmd/pgwicket/ca":     {"cmd/pgwicket/cli", "cmd/pgwicket/prompt", "config", "internal/adminclient", "internal/gate", "internal/phrase", "internal/pki", "internal/printable", "internal/sandbox"},
	"cmd/pgwicket": {
		"cmd/pgwicket/ca", "cmd/pgwicket/cli", "cmd/pgwicket/prompt", "config", "metrics", "tlsconfig", "internal/adminclient", "internal/audit", "internal/budget", "internal/crl", "internal/crlfetch", "internal/doctor", "internal/doctor/machine", "internal/doctor/report", "internal/explain",
		"internal/filewatch", "internal/gate", "internal/lock", "internal/logwriter", "internal/nftables", "internal/phrase", "internal/printable", "internal/sandbox", "internal/socket", "internal/status", "internal/systemd", "internal/upgrade",
	},
	"cmd/pgwicket-demo": {"internal/pgtest", "internal/tlstest"}, // runs the binary as its users do

	"internal/golden":         nil, // compares long texts, for tests
	"internal/docpage":        nil, // runs the pages of docs, for tests
	"internal/tlstest/chains": nil, // chains for the tests of certs and of what uses it
}

// owners are the only packages that may import what begins with the key.
var owners = map[string][]string{
	"gopkg.in/yaml":                   {"config"},
	"go.yaml.in/yaml":                 {"config"},
	"github.com/jackc/pgproto3":       {"internal/pgwire"}, // archived, GO-2026-4518
	"github.com/prometheus/":          {"metrics"},
	"github.com/fsnotify/":            {"internal/filewatch"},
	"github.com/coreos/go-systemd/":   {"internal/systemd"},
	"github.com/landlock-lsm/":        {"internal/sandbox"},
	"github.com/spf13/":               {"cmd/pgwicket", "cmd/pgwicket/ca", "cmd/pgwicket/cli"},
	"github.com/pires/go-proxyproto":  {"internal/proxyheader"},
	"golang.org/x/time":               {"internal/limit", "internal/refusallog"},
	"github.com/hashicorp/golang-lru": {"internal/clientcert", "internal/limit", "internal/refusallog"},
	"flag":                            {"cmd/pgwicket-demo", "internal/golden"},
	"os/signal":                       {"cmd/pgwicket", "cmd/pgwicket/prompt", "cmd/pgwicket-demo"},
	"testing":                         {"internal/docpage", "internal/golden"},                           // its flags would be ours, and nothing that ships may need it
	"github.com/jackc/pgx":            {"internal/doctor", "internal/doctor/postgres", "internal/group"}, // and the tests, as the second implementation
	"github.com/youmark/pkcs8":        {"cmd/pgwicket-demo", "internal/pki"},
	"software.sslmate.com/":           {"internal/pki"},
	"go.uber.org/goleak":              nil,
	"github.com/rogpeppe/go-internal": nil,
	"pgregory.net/rapid":              nil,
}

type listed struct {
	Dir, ImportPath        string
	GoFiles, Imports, Deps []string
}

// list asks the go command, which knows build constraints.
func list(t *testing.T, goos string) (packages []listed) {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,GoFiles,Imports,Deps", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestLayers(t *testing.T) {
	for _, goos := range []string{"linux", "darwin"} {
		seen := map[string]bool{}
		for _, p := range list(t, goos) {
			name := strings.TrimPrefix(p.ImportPath, module)
			if len(p.GoFiles) == 0 {
				continue // nothing but tests
			}
			seen[name] = true
			// For go test, which sees what we open and not what go list does: else it would show an old result.
			if _, err := os.ReadDir(p.Dir); err != nil {
				t.Error(err)
			}
			may, ok := layers[name]
			if !ok {
				t.Errorf("%s has no place among the layers", name)
			}
			for _, path := range p.Imports {
				if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(may, ours) {
					t.Errorf("%s: %s must not import %s", goos, name, ours)
				}
				for what, who := range owners {
					if strings.HasPrefix(path, what) && !slices.Contains(who, name) {
						t.Errorf("%s: %s must not import %s", goos, name, path)
					}
				}
			}
			// Not by way of a dependency either.
			if slices.Contains(p.Deps, "testing") && !slices.Contains(owners["testing"], name) {
				t.Errorf("%s: %s depends on testing", goos, name)
			}
		}
		for name := range layers {
			if !seen[name] {
				t.Errorf("%s: there is no package %s", goos, name)
			}
		}
	}
}
