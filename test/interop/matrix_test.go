//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
)

// The smallest form of the matrix, so that every run of the tests has one: the
// distribution's PostgreSQL, and three clients that share no code, as far as they are
// here already.
func TestSmallMatrix(t *testing.T) {
	t.Parallel()
	l, err := newLab(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.remove)
	l.frozen = true
	have, _ := l.releases(t.Context())
	have = slices.DeleteFunc(have, func(r release) bool { return r.libDir != "" })
	if len(have) == 0 {
		t.Skip("no PostgreSQL in /usr/lib/postgresql; install it with \"apt-get install postgresql\"")
	}
	newest := have[len(have)-1:]
	rows := slices.DeleteFunc(clients(newest), func(c client) bool {
		name, _, _ := strings.Cut(c.name, "-")
		return !slices.Contains([]string{"psql", "pgx", "asyncpg"}, name)
	})
	p := &page{quick: true}
	failed, err := newMatrix(l, true).all(t.Context(), rows, newest, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range failed {
		t.Error(f)
	}
	if !slices.Contains(p.rows, "psql-"+newest[0].major) || !slices.Contains(p.rows, "pgx") {
		t.Errorf("only %q have run: %q", p.rows, p.unavailable)
	}
	for line := range strings.Lines(p.markdown()) {
		if strings.Contains(line, failsBothWays) {
			t.Errorf("a driver is wrong, or what it needs is missing: %s", line)
		}
	}
}

// A client that fails both ways shows nothing, and must not be read as one that
// both refuse.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	ok, wrong, lacks := cell{"ok", "7"}, cell{"error", "no"}, cell{"unsupported", "it has none"}
	for _, c := range []struct {
		feature, major    string
		straight, through cell
		failed            bool
		gate, server      string
	}{
		{"scram", "17", ok, ok, false, "ok 7", "ok 7"},
		{"scram", "17", ok, cell{"ok", "8"}, true, "**differs**: ok 8", "ok 7"},
		{"scram", "17", ok, wrong, true, "**differs**: refused: no", "ok 7"},
		{"scram", "17", wrong, wrong, false, "fails both ways: no", "fails both ways: no"},
		{"scram", "17", lacks, lacks, false, "– it has none", "– it has none"},
		{"channel-binding", "17", ok, wrong, false, "refused: no (pgwicket's limit: " + byDesign("channel-binding") + ")", "ok 7"},
		{"sslmode-disable", "17", wrong, wrong, false, "refused: no (TLS is required)", "refused: no (TLS is required)"},
		{"sslmode-disable", "17", wrong, ok, true, "**differs**: ok 7", "refused: no (TLS is required)"},
		{"direct", "16", wrong, ok, false, "ok 7", "refused (PostgreSQL's limit: it has direct TLS since 17)"},
		{"direct", "16", wrong, wrong, false, "fails both ways: no", "refused (PostgreSQL's limit: it has direct TLS since 17)"},
		{"direct", "17", wrong, wrong, false, "fails both ways: no", "fails both ways: no"},
		{"protocol-3.2", "17", wrong, wrong, false, "refused: no (PostgreSQL's limit: it speaks 3.2 since 18)", "refused: no (PostgreSQL's limit: it speaks 3.2 since 18)"},
	} {
		v := judge(&server{release: release{major: c.major}}, "a client", c.feature, c.straight, c.through)
		if gate, server := throughGate(v), straightOn(v); v.failed != c.failed || gate != c.gate || server != c.server {
			t.Errorf("%s at %s, straight %s, through %s: failed %v, %q, %q", c.feature, c.major, c.straight, c.through, v.failed, gate, server)
		}
	}
}
