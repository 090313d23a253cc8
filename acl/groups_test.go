package acl_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/acl"
)

// inGroups answers with the members of dba (alice, by way of ops too) and ops (bob) on the default backend, and of
// dba (carol) on reports.
func inGroups(q *acl.Request, until time.Time) *acl.Request {
	q.Groups = acl.Groups{
		"":        acl.NewMembers(map[string][]string{"dba": {"dba", "alice", "ops", "bob"}, "ops": {"ops", "bob"}, "gone": nil}, until),
		"reports": acl.NewMembers(map[string][]string{"dba": {"dba", "carol"}}, until),
	}
	return q
}

func TestGroups(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		want   bool
		ask    string
		before time.Duration // of the end of what is known; 0: it has just ended
		rules  []string
	}{
		{true, "alice", 1, []string{"users: [+dba]"}},
		{true, "bob", 1, []string{"users: [+dba]"}},
		{true, "dba", 1, []string{"users: [+dba]"}}, // a role is a member of itself
		{false, "carol", 1, []string{"users: [+dba]"}},
		{true, "carol", 1, []string{"users: [+dba], backend: reports"}},
		{false, "alice", 1, []string{"users: [+dba], backend: reports"}},
		{false, "alice", 1, []string{"users: [+dba], backend: unheard"}},
		{true, "alice", 1, []string{"users: [+gone, +dba]"}},
		{true, "carol", 1, []string{"users: [+dba, carol]"}},
		{false, "carol", 1, []string{"users: [+gone]"}},
		{false, "gone", 1, []string{"users: [+gone]"}}, // there is no such role
		{false, "alice", 1, []string{"users: [+unasked]"}},
		// Names are compared with their case, and + is no part of them.
		{false, "Alice", 1, []string{"users: [+dba]"}},
		{false, "alice", 1, []string{"users: [+DBA]"}},
		{false, "+dba", 1, []string{"users: [+dba]"}},
		{true, "+dba", 1, []string{`users: ['/^\+dba$']`}},
		{false, "alice", 1, []string{`users: ['/^\+dba$']`}},
		// A superuser is admitted by name only.
		{false, "postgres", 1, []string{"users: [+dba]"}},
		{false, "alice", 1, []string{"action: reject, users: [+dba]", "users: [alice]"}},
		{true, "carol", 1, []string{"action: reject, users: [+dba]", "users: [carol]"}},
		// What is not known is a reason to refuse.
		{false, "alice", 0, []string{"users: [+dba]"}},
		{true, "alice", 0, []string{"users: [+dba, alice]"}},
		{true, "alice", 0, []string{"users: [+dba]", "users: [alice]"}},
		{false, "carol", 0, []string{"action: reject, users: [+dba]", "users: [carol]"}},
		{false, "carol", 1, []string{"action: reject, users: [+unasked]", "users: [carol]"}},
		{true, "carol", 0, []string{"action: reject, users: [+dba], databases: [other]", "users: [carol]"}},
	} {
		q := inGroups(request(t, c.ask), now.Add(c.before))
		q.At = now
		rule := newRules(t, c.rules...).Decide(q)
		if got := rule != nil && rule.Allow; got != c.want {
			t.Errorf("%s, %q, known for %v: admitted %t", c.ask, c.rules, c.before, got)
		}
	}
}

// A request without any groups, or without a time, is admitted by none.
func TestGroupsUnknown(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	rules := newRules(t, "action: reject, users: [+ops], databases: [shop]", "users: [+dba, +ops]", "users: [+gone]")
	q := request(t, "alice/shop")
	q.At = now
	for _, c := range []struct {
		what  string
		q     *acl.Request
		admit bool
		want  string
	}{
		{"none known", q, false, "ops"},
		{"known", inGroups(clone(q), now.Add(1)), true, ""},
		{"over", inGroups(clone(q), now), false, "ops"},
		{"over, in another database", inGroups(with(q, "other"), now), false, "dba gone ops"},
		{"known forever", inGroups(clone(q), time.Time{}), true, ""},
	} {
		rule := rules.Decide(c.q)
		if got := rule != nil && rule.Allow; got != c.admit {
			t.Errorf("%s: admitted %t", c.what, got)
		}
		if got := strings.Join(rules.Unknown(c.q), " "); got != c.want {
			t.Errorf("%s: %q are not known, not %q", c.what, got, c.want)
		}
	}
	atNoTime := inGroups(request(t, "alice"), now)
	if rule := rules.Decide(atNoTime); rule != nil {
		t.Errorf("without a time, %q admits", rule.Name)
	}
	steps := rules.Trace(inGroups(with(q, "other"), now))
	if last := steps[len(steps)-1]; last.Mismatch != "the members of a role in its users are not known now" {
		t.Errorf("%q", last.Mismatch)
	}
}

// Who may have to go to another backend or database goes nowhere, unless the rule has the very name.
func TestGroupsUnknownElsewhere(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		first, second string
		want          string // rule of alice while nothing is known; empty: none
	}{
		{"users: [+ops], backend: other", "users: [all]", ""},
		{"users: [+ops], backend: other", "users: ['al*']", ""},
		{"users: [+ops], backend: other", "action: reject, users: [all]", "rule 2"},
		{"users: [+ops], backend: other", "users: [bob, alice]", "rule 2"},
		{"users: [+ops], backend: other", "users: ['al*'], backend: other", "rule 2"},
		{"users: [+ops], database_as: sandbox", "users: [all]", ""},
		{"users: [+ops, alice], backend: other", "users: [all]", "rule 1"},
		{"users: [+ops], databases: [sandbox], backend: other", "users: [all]", "rule 2"},
		{"users: [+ops], until: '2027-01-31T11:00:00Z', backend: other", "users: [all]", "rule 2"},
		{"users: [+ops]", "users: [all]", "rule 2"},
	} {
		rules := newRules(t, c.first, c.second)
		q := request(t, "alice/shop")
		q.At = now
		got := ""
		if rule := rules.Decide(q); rule != nil {
			got = rule.Name
		}
		if got != c.want {
			t.Errorf("%q, %q: %q decides, want %q", c.first, c.second, got, c.want)
		}
		steps := rules.Trace(q)
		if last := steps[len(steps)-1]; (last.Mismatch == "") != (c.want != "") {
			t.Errorf("%q, %q: %q", c.first, c.second, last.Mismatch)
		}
		if c.want == "" && !slices.Equal(rules.Unknown(q), []string{"ops"}) {
			t.Errorf("%q, %q: %q are not known", c.first, c.second, rules.Unknown(q))
		}
	}
}

func clone(q *acl.Request) *acl.Request { c := *q; return &c }

func with(q *acl.Request, database string) *acl.Request {
	c := clone(q)
	c.Database = database
	return c
}

// The role of the gate itself is admitted by its name alone.
func TestReserved(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		users string
		admit bool
	}{{"[all]", false}, {"[lookup]", true}, {"['look*']", false}, {"[+dba]", false}, {"[+dba, lookup]", true}} {
		rules, problems := acl.NewRules(options(t, "databases: [a], users: "+c.users), listeners, superusers, "lookup")
		if rules == nil {
			t.Fatal(problems)
		}
		q := request(t, "lookup/a")
		q.Groups = acl.Groups{"": acl.NewMembers(map[string][]string{"dba": {"dba", "lookup"}}, time.Time{})}
		if got := rules.Decide(q) != nil; got != c.admit {
			t.Errorf("%s: admitted %t", c.users, got)
		}
		if got := rules.MayAdmit("lookup") != nil; got != c.admit {
			t.Errorf("%s: may admit %t", c.users, got)
		}
		if step := rules.Trace(q)[0]; !c.admit && step.Mismatch != `"lookup" is the user of groups, and its users do not name it` {
			t.Errorf("%s: %q", c.users, step.Mismatch)
		}
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	var none *acl.Members
	m := acl.NewMembers(map[string][]string{"dba": {"dba", "alice"}, "gone": nil}, now)
	later := m.KeptUntil(now.Add(time.Hour))
	switch {
	case !m.Same(later), m.Same(none), none.Same(m), !none.Same(nil):
		t.Error("Same")
	case m.Same(acl.NewMembers(map[string][]string{"dba": {"dba", "bob"}, "gone": nil}, now)):
		t.Error("other members are the same")
	case m.Same(acl.NewMembers(map[string][]string{"dba": {"dba", "alice"}}, now)):
		t.Error("other roles are the same")
	case m.KnownAt(now), !m.KnownAt(now.Add(-1)), none.KnownAt(now):
		t.Error("KnownAt")
	case !m.Knows([]string{"dba", "gone"}), m.Knows([]string{"dba", "ops"}), none.Knows(nil):
		t.Error("Knows")
	case m.Counts()["dba"] != 2, len(none.Counts()) != 0:
		t.Error("Counts")
	case !slices.Equal(m.Joined("dba", nil), []string{"alice", "dba"}), len(m.Joined("dba", later)) != 0:
		t.Error("Joined")
	}
	groups := acl.Groups{"": later, "b": m, "c": none, "d": m.KeptUntil(time.Time{})}
	for after, want := range map[time.Duration]time.Time{-1: now, 0: now.Add(time.Hour), time.Hour: {}} {
		if got := groups.NextChange(now.Add(after)); !got.Equal(want) {
			t.Errorf("after %v: %v", after, got)
		}
	}
}
