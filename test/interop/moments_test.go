//go:build linux

package main

import (
	"slices"
	"testing"
)

// The hard moments of clients that share no code, as far as they are here already.
func TestSmallMoments(t *testing.T) {
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
	rows := slices.DeleteFunc(momentClients(have[len(have)-1]), func(c client) bool {
		return !slices.Contains([]string{"psql", "pgx", "node-postgres", "JDBC"}, c.name)
	})
	a, failed := l.album(t.Context(), rows, have[len(have)-1])
	for _, f := range failed {
		t.Error(f)
	}
	for _, m := range moments() {
		if got := a.of[m.title]; len(got)+len(a.unavailable) != len(rows) || len(got) == 0 { // pgx needs nothing
			t.Errorf("%s: %d clients, and %q", m.title, len(got), a.unavailable)
		}
	}
}

// A client that is told nothing, or that cannot come back, is a failure.
func TestWrongMoments(t *testing.T) {
	t.Parallel()
	good := map[string]told{}
	for _, m := range moments() {
		words := map[string]string{
			"The limit is reached": "FATAL: sorry, too many clients already", "Drain": "the gate is shutting down",
			"The certificate is of an unknown CA": "signed by an unknown authority",
			"The backend restarts":                "the database cannot be reached", "The certificate is revoked": "client certificate was revoked on 2026-11-30",
		}[m.title]
		seen := []reply{{"error", "57P01", words}, {"error", "57P01", words}, {"ok", "", ""}, {"ok", "", ""}, {"ok", "", ""}}[:len(m.sees)]
		if m.title == "The limit is reached" {
			seen[1] = reply{"ok", "", ""}
		}
		good[m.title] = told{"a client", seen, slices.Clone(seen)}
	}
	if wrong := wrongMoments(good); len(wrong) > 0 {
		t.Errorf("what is right is wrong: %q", wrong)
	}
	for _, m := range moments() {
		for i, other := range map[int]reply{0: {"ok", "", ""}, len(m.sees) - 1: {"error", "08006", "no words"}} {
			if m.title == "A query is cancelled at the limit" && i > 0 {
				continue // not judged
			}
			bad := map[string]told{}
			for title, what := range good {
				bad[title] = told{what.client, slices.Clone(what.through), what.straight}
			}
			bad[m.title].through[i] = other
			if wrong := wrongMoments(bad); len(wrong) != 1 {
				t.Errorf("%s: %q for column %d is not noticed: %q", m.title, other, i, wrong)
			}
		}
	}
}
