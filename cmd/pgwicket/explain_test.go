//go:build unix

package main

import (
	"bytes"
	"crypto/x509"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"pgwicket/cmd/pgwicket/cli"
	"pgwicket/internal/tlstest"
)

// documents is the rest of every configuration of the documented policies.
const documents = `
listen: [{address: "10.0.0.5:5432"}]
tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_file: ca.crl, client_cert: optional}
`

// stageExplain makes the files of the examples in a temporary directory, and changes
// to it.
func stageExplain(t *testing.T) (ca *tlstest.CA, alice *tlstest.Pair) {
	t.Helper()
	t.Chdir(t.TempDir())
	ca = tlstest.NewCA("Example CA")
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := ca.Server("db.example.com").WriteFiles("server.crt", "server.key"); err != nil {
		t.Fatal(err)
	}
	write("ca.crt", ca.CertPEM())
	write("ca.crl", ca.CRL(nil))
	alice = ca.Client("alice", func(c *x509.Certificate) { c.EmailAddresses = []string{"alice@example.com"} })
	write("alice.crt", alice.CertPEM())
	write("app.crt", ca.Client("app").CertPEM())
	write("standby.crt", ca.Client("standby").CertPEM())
	write("web.crt", ca.Client("web", func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/ns/prod/sa/web"}}
	}).CertPEM())
	return ca, alice
}

// explained runs the command in the test's directory.
func explained(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status = run(append([]string{"explain"}, args...), cli.Streams{In: os.Stdin, Out: &stdout, Err: &stderr})
	if stderr.Len() > 0 && status != cli.BadConfig && status != cli.Usage {
		t.Errorf("on standard error: %s", stderr.String())
	}
	return status, stdout.String() + stderr.String()
}

var policyBlock = regexp.MustCompile("(?s)\n##+ ([^\n]+)\n\n```yaml\n(.*?)```\n\n```console\n(.*?)```")

// The policies in docs decide as documented.
func TestDocumentedPolicies(t *testing.T) {
	var blocks [][]string
	for _, page := range pages(t) {
		blocks = append(blocks, policyBlock.FindAllStringSubmatch(readPage(t, page), -1)...)
	}
	stageExplain(t)
	if len(blocks) < 10 {
		t.Fatalf("%d policies, want ten", len(blocks))
	}
	for _, b := range blocks {
		t.Run(b[1], func(t *testing.T) {
			if err := os.WriteFile("pgwicket.yaml", []byte(b[2]+documents), 0o600); err != nil {
				t.Fatal(err)
			}
			for ask := range strings.SplitSeq(strings.TrimPrefix(b[3], "$ "), "\n$ ") {
				command, answer, _ := strings.Cut(ask, "\n")
				args := strings.Fields(strings.TrimPrefix(command, "pgwicket explain "))
				status, out := explained(t, args...)
				if want := strings.HasPrefix(answer, "admitted"); want != (status == cli.OK) || status > cli.Failed {
					t.Errorf("%s: status %d\n%s", command, status, out)
				}
				rest := out
				for line := range strings.SplitSeq(strings.TrimRight(answer, "\n"), "\n") {
					_, after, found := strings.Cut(rest, line+"\n")
					if !found {
						t.Errorf("%s: does not say %q:\n%s", command, line, out)
					}
					rest = after
				}
			}
		})
	}
}

// The whole answer, for a client that is admitted and for one that is refused.
func TestExplain(t *testing.T) {
	ca, alice := stageExplain(t)
	if err := os.WriteFile("rlo.crt", ca.Client("ad\u202enimda").CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	rules := `acl:
  allow: [10.0.0.0/8]
  deny: [10.66.0.0/16]
  rules:
    - {name: first, action: allow, users: [app], certificate: {cn: app}}
    - {name: own, action: allow, users: [samename]}
`
	if err := os.WriteFile("pgwicket.yaml", []byte(rules+documents), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := []string{"--config", "pgwicket.yaml", "--user", "alice", "--source"}
	for _, c := range []struct {
		name   string
		args   []string
		status int
		says   []string
	}{
		{"admitted", []string{"10.1.2.3", "--cert", "alice.crt"}, cli.OK, []string{
			`admitted by rule "own" (pgwicket.yaml:6)`, "source      10.1.2.3 is allowed by 10.0.0.0/8 of acl.allow",
			"cn      alice", "email   alice@example.com", "not revoked", `1 "first" (pgwicket.yaml:5) does not fit: the certificate does not match`,
			`2 "own" (pgwicket.yaml:6) fits: allow`,
		}},
		{"a name that a terminal turns round", []string{"10.1.2.3", "--cert", "rlo.crt"}, cli.Failed, []string{`cn      ad\u202enimda`}},
		{"denied network", []string{"10.66.2.3", "--cert", "alice.crt"}, cli.Failed, []string{"refused: source_denied", "denied by 10.66.0.0/16 of acl.deny", `fits: allow`}},
		{"no network", []string{"192.0.2.1"}, cli.Failed, []string{"refused: source_not_allowed", "in no network of acl.allow"}},
		{"mapped", []string{"::ffff:10.1.2.3", "--cert", "alice.crt"}, cli.OK, []string{"source      10.1.2.3 is allowed"}},
		{"no certificate", []string{"10.1.2.3"}, cli.Failed, []string{"refused: no_rule", "certificate none", "it requires a certificate, and the client sent none", "none fits: reject"}},
		{"expired one day", []string{"10.1.2.3", "--cert", "alice.crt", "--at", "2199-01-01T00:00:00Z"}, cli.Failed, []string{"refused: certificate_expired", "the client is told  FATAL 28000"}},
		{"not ours", []string{"10.1.2.3", "--cert", "stranger.crt"}, cli.Failed, []string{"refused: certificate_unknown_ca", "not checked: its chain does not end in ca_file"}},
		{"no such file", []string{"10.1.2.3", "--cert", "none.crt"}, cli.Usage, []string{"--cert: open none.crt"}},
		{"a key for a certificate", []string{"10.1.2.3", "--cert", "server.key"}, cli.Usage, []string{"holds no certificate in PEM"}},
		{"no address", []string{"db.example.com"}, cli.Usage, []string{`--source: "db.example.com" is not an IP address`}},
		{"no such time", []string{"10.1.2.3", "--at", "tomorrow"}, cli.Usage, []string{"tomorrow"}},
		{"no such replication", []string{"10.1.2.3", "--replication", "yes"}, cli.Usage, []string{"must be database or physical"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile("stranger.crt", tlstest.NewCA("stranger").Client("alice").CertPEM(), 0o600); err != nil {
				t.Fatal(err)
			}
			status, out := explained(t, append(ask, c.args...)...)
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			for _, s := range c.says {
				if !strings.Contains(out, s) {
					t.Errorf("does not say %q:\n%s", s, out)
				}
			}
		})
	}
	if err := os.WriteFile("ca.crl", ca.CRL(func(l *tlstest.CRL) { l.Revoke(alice.Leaf()) }), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out := explained(t, append(ask, "10.1.2.3", "--cert", "alice.crt")...)
	if status != cli.Failed || !strings.Contains(out, "refused: certificate_revoked") || !strings.Contains(out, "revoked on") {
		t.Errorf("revoked: status %d\n%s", status, out)
	}
	for refusal, told := range map[string]string{
		"close":   `nothing: the connection is closed (acl.refusal: close), and psql says "server closed the connection unexpectedly"`,
		"reset":   "nothing: the connection is reset (acl.refusal: reset), and psql says ",
		"explain": "FATAL 28000: no pgwicket allowlist entry for this address",
	} {
		if err := os.WriteFile(refusal+".yaml", []byte(strings.Replace(rules, "acl:", "acl:\n  refusal: "+refusal, 1)+documents), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, out := explained(t, "--config", refusal+".yaml", "--user", "alice", "--source", "10.66.2.3"); !strings.Contains(out, "  the client is told  "+told) {
			t.Errorf("acl.refusal %s:\n%s", refusal, out)
		}
	}
	if status, out := explained(t, "--config", "pgwicket.yaml", "--source", "10.1.2.3"); status != cli.Usage {
		t.Errorf("without a user: status %d\n%s", status, out)
	}
	if status, out := explained(t, "--config", "none.yaml", "--source", "10.1.2.3", "--user", "x"); status != cli.BadConfig {
		t.Errorf("without a configuration: status %d\n%s", status, out)
	}
}
