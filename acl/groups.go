package acl

import (
	"maps"
	"slices"
	"time"
)

// Groups has the members of the roles that rules name with +role, by the name of the backend that
// has told them; "" is the default one. A backend that is missing has told nothing. Nobody may
// change it once a request has it.
type Groups map[string]*Members

// NextChange returns the first moment after a time at which members are no longer known; the zero
// time: none.
func (g Groups) NextChange(after time.Time) (next time.Time) {
	for _, m := range g {
		if u := m.Until(); u.After(after) && (next.IsZero() || u.Before(next)) {
			next = u
		}
	}
	return next
}

// Members are the members of some roles of one server. They are immutable and safe for concurrent
// use. The nil Members knows none.
type Members struct {
	of    map[string]map[string]struct{}
	until time.Time
}

// NewMembers returns the members of the roles in of: the role itself, and its members by other
// roles, too. A role that does not exist has none. They are known before until; the zero time:
// forever.
func NewMembers(of map[string][]string, until time.Time) *Members {
	m := &Members{of: make(map[string]map[string]struct{}, len(of)), until: until}
	for role, names := range of {
		set := make(map[string]struct{}, len(names))
		for _, name := range names {
			set[name] = struct{}{}
		}
		m.of[role] = set
	}
	return m
}

// Until returns when m is no longer known; the zero time: never, or m is nil.
func (m *Members) Until() time.Time {
	if m == nil {
		return time.Time{}
	}
	return m.until
}

// KeptUntil returns the same members with another end.
func (m *Members) KeptUntil(until time.Time) *Members { return &Members{m.of, until} }

// KnownAt reports whether m is known at a time.
func (m *Members) KnownAt(at time.Time) bool {
	return m != nil && (m.until.IsZero() || !at.IsZero() && at.Before(m.until))
}

// Knows reports whether m has the members of every one of some roles.
func (m *Members) Knows(roles []string) bool {
	return m != nil && !slices.ContainsFunc(roles, func(role string) bool { _, ok := m.of[role]; return !ok })
}

// Same reports whether another has the same members of the same roles, whenever it ends.
func (m *Members) Same(other *Members) bool {
	if m == nil || other == nil {
		return m == other
	}
	return maps.EqualFunc(m.of, other.of, maps.Equal)
}

// Counts returns how many members each role has, itself included; 0: there is no such role.
func (m *Members) Counts() map[string]int {
	counts := make(map[string]int)
	if m != nil {
		for role, names := range m.of {
			counts[role] = len(names)
		}
	}
	return counts
}

// Has reports whether a user is a member of a role, as far as that is known.
func (m *Members) Has(role, user string) bool {
	if m == nil {
		return false
	}
	_, member := m.of[role][user]
	return member
}

// Joined returns the members of a role that another does not have, sorted.
func (m *Members) Joined(role string, since *Members) (names []string) {
	if m == nil {
		return nil
	}
	for name := range m.of[role] {
		if since != nil {
			if _, was := since.of[role][name]; was {
				continue
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// has reports whether a user is a member of a role, and whether that is known. Names are compared
// as PostgreSQL does, with their case. It is is_member in src/backend/libpq/hba.c: a membership by
// other roles counts, whatever its INHERIT and SET options (is_member_of_role_nosuper in
// src/backend/utils/adt/acl.c), and being a superuser does not.
func (m *Members) has(role, user string, at time.Time) (member, known bool) {
	if !m.KnownAt(at) {
		return false, false
	}
	names, known := m.of[role]
	_, member = names[user]
	return member, known
}

// Groups returns the roles that the rule names with +role.
func (rule *Rule) Groups() (roles []string) {
	for i := range rule.users {
		if p := &rule.users[i]; p.kind == group {
			roles = append(roles, p.text)
		}
	}
	return roles
}

// Unknown returns the roles whose members would have to be known to decide on a request as the
// rules say, sorted. Decide treats everybody as if that were a reason to refuse.
func (r *Rules) Unknown(q *Request) (roles []string) {
	w := r.query(q)
	for _, rule := range r.list {
		m := rule.firstMismatch(&w)
		if m == noMismatch || m == mismatchUnknown {
			if matches, unknown := rule.hasUser(&w); !matches && unknown {
				roles = append(roles, rule.unknownTo(&w)...)
			}
		}
		if m == noMismatch {
			break
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

// unknownTo returns the roles of the rule whose members a query does not have.
func (rule *Rule) unknownTo(w *query) []string {
	return slices.DeleteFunc(rule.Groups(), func(role string) bool {
		_, known := w.Groups[rule.Backend].has(role, w.User, w.At)
		return known
	})
}
