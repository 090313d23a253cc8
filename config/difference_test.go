package config

import (
	"slices"
	"strings"
	"testing"
)

// compared loads two texts with the required keys and returns what the second one has
// changed and lost.
func compared(t *testing.T, s *site, old, now string) (changes, gone []string) {
	t.Helper()
	load := func(text string) *Settings {
		cfg, problems := s.load(t, "pgwicket.yaml", text)
		if cfg == nil {
			t.Fatal(problems)
		}
		return cfg.Settings
	}
	before, after := load(old), load(now)
	for _, line := range append(after.Differences(before), after.Gone(before)...) {
		changes = append(changes, strings.ReplaceAll(line, s.dir, "$DIR"))
	}
	n := len(after.Gone(before))
	return changes[:len(changes)-n], changes[len(changes)-n:]
}

const (
	comparedTLS  = "listen: [{address: \"127.0.0.1:5432\"}]\nbackend: {host: \"@postgresql\"}\n"
	comparedWith = "tls: {cert_file: server.crt, key_file: server.key, ca_file: ca.crt, crl_file: ca.crl}\n"
)

func TestDifferences(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const head = comparedTLS + comparedWith
	for _, c := range []struct {
		name, old, now string
		changes, gone  []string
	}{
		{"nothing", head + "acl: {allow: [10.0.0.0/8]}\n", head + "# a comment\nacl:\n  allow: [10.0.0.0/8]\n", nil, nil},
		{
			"networks", head + "acl: {allow: [10.0.0.0/8], deny: [10.1.0.0/16, 10.2.0.0/16]}\n", head + "acl: {allow: [10.0.0.0/8, 192.0.2.7], deny: [10.2.0.0/15]}\n",
			[]string{"acl.allow: added 192.0.2.7", "acl.deny: added 10.2.0.0/15", "acl.deny: removed 10.1.0.0/16", "acl.deny: removed 10.2.0.0/16"},
			[]string{"acl.deny: 10.1.0.0/16 is gone"},
		},
		{
			"rules", head + "acl: {allow: [10.0.0.0/8], rules: [{name: a, action: allow, users: [app], certificate: {cn: app}}]}\n", head + "acl: {allow: [10.0.0.0/8]}\n",
			[]string{"acl.rules: removed a"},
			[]string{"acl.rules: all rules are gone"},
		},
		{
			"conditions", head + "acl: {allow: [10.0.0.0/8], rules: [{name: a, action: allow, users: [app], databases: [x], certificate: {cn: app}, replication: none}]}\n",
			head + "acl: {allow: [10.0.0.0/8], rules: [{name: a, action: allow, users: [web]}]}\n",
			[]string{"acl.rules[a].databases: removed x", "acl.rules[a].users: added web", "acl.rules[a].users: removed app", "acl.rules[a].certificate.cn: not set, was app", "acl.rules[a].replication: not set, was none"},
			[]string{`acl.rules: certificate.cn of "a" is gone`, `acl.rules: databases of "a" is gone`, `acl.rules: replication of "a" is gone`},
		},
		{
			"reject", head + "acl: {allow: [10.0.0.0/8], rules: [{name: no, action: reject, users: [bob]}, {name: a, action: allow, users: [app]}]}\n",
			head + "acl: {allow: [10.0.0.0/8], rules: [{name: a, action: allow, users: [app]}]}\n",
			[]string{"acl.rules: removed no"},
			[]string{`acl.rules: "no", which rejects, is gone`},
		},
		{
			"a stricter rule", head + "acl: {allow: [10.0.0.0/8]}\n", head + "acl: {allow: [10.0.0.0/8], rules: [{name: a, action: allow, users: [app]}]}\n",
			[]string{"acl.rules: added a"},
			nil,
		},
		{
			"limits", head + "acl: {allow: [10.0.0.0/8]}\nlimits: {max_connections: 77, max_cancel_requests: 0, auth_refusal: 10m, session_lifetime: 1h, max_startups: 2000, idle_timeout: 5m, drain_timeout: 1s}\n",
			head + "acl: {allow: [10.0.0.0/8]}\nlimits: {idle_timeout: 10m}\n",
			[]string{
				"limits.max_cancel_requests: 64, was 0", "limits.max_startups: 1000, was 2000", "limits.max_connections: 10000, was 77", "limits.auth_refusal: 1m, was 10m",
				"limits.idle_timeout: 10m, was 5m", "limits.session_lifetime: 0s, was 1h", "limits.drain_timeout: 30s, was 1s",
			},
			[]string{"limits.max_cancel_requests: 0 is gone", "limits.max_connections: 77 is gone", "limits.auth_refusal: 10m is gone", "limits.session_lifetime: 1h is gone"},
		},
		{
			"lists", head + "acl: {allow: [10.0.0.0/8]}\n", strings.ReplaceAll(head, ", crl_file: ca.crl", "") + "acl: {allow: [10.0.0.0/8]}\n",
			[]string{"tls.crl_file: not set, was $DIR/ca.crl"},
			[]string{"tls.crl_file: $DIR/ca.crl is gone"},
		},
		{
			"lists in another place", head + "acl: {allow: [10.0.0.0/8]}\n", strings.ReplaceAll(head, "crl_file: ca.crl", "crl_dir: crls") + "acl: {allow: [10.0.0.0/8]}\n",
			[]string{"tls.crl_file: not set, was $DIR/ca.crl", "tls.crl_dir: $DIR/crls, was not set"},
			nil,
		},
		{
			"certificates", head + "acl: {allow: [10.0.0.0/8]}\n", strings.ReplaceAll(head, "ca_file", "client_cert: optional, ca_file") + "acl: {allow: [10.0.0.0/8]}\n",
			[]string{"tls.client_cert: optional, was require"},
			[]string{"tls.client_cert: require is gone"},
		},
		{
			"a version", strings.ReplaceAll(head, "ca_file", "min_protocol_version: TLSv1.3, ca_file") + "acl: {allow: [10.0.0.0/8]}\n", head + "acl: {allow: [10.0.0.0/8]}\n",
			[]string{"tls.min_protocol_version: TLSv1.2, was TLSv1.3"},
			[]string{"tls.min_protocol_version: TLSv1.3 is gone"},
		},
		{
			"a secret", strings.ReplaceAll(head, "ca_file", "passphrase_command: echo one, ca_file") + "acl: {allow: [10.0.0.0/8]}\n",
			strings.ReplaceAll(head, "ca_file", "passphrase_command: echo two, ca_file") + "acl: {allow: [10.0.0.0/8]}\nlimits: {drain_timeout: 5m, max_connections: 7}\n",
			[]string{"tls.passphrase_command: changed", "limits.max_connections: 7, was 10000", "limits.drain_timeout: 5m, was 30s"},
			nil,
		},
		{
			"cancel requests", head + "acl: {allow: [10.0.0.0/8], cancel_requests: known}\n", head + "acl: {allow: [10.0.0.0/8]}\n",
			[]string{"acl.cancel_requests: any, was known"},
			[]string{"acl.cancel_requests: known is gone"},
		},
	} {
		changes, gone := compared(t, s, c.old, c.now)
		if !slices.Equal(changes, c.changes) {
			t.Errorf("%s: changes %q, want %q", c.name, changes, c.changes)
		}
		if !slices.Equal(gone, c.gone) {
			t.Errorf("%s: gone %q, want %q", c.name, gone, c.gone)
		}
	}
}
