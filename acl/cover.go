package acl

import (
	"net/netip"
	"slices"
)

// Shadow is a rule that decides on nothing, and the earlier one that has decided
// by then on all that it fits.
type Shadow struct{ Rule, By *Rule }

// Shadowed finds rules that one earlier rule covers. It claims no more than it can
// prove: that several rules together cover one, or that two expressions mean the
// same in other words, it does not see.
func (r *Rules) Shadowed() (found []Shadow) {
	for i, rule := range r.list {
		at := slices.IndexFunc(r.list[:i], func(earlier *Rule) bool { return r.covers(earlier, rule) })
		if at >= 0 {
			found = append(found, Shadow{rule, r.list[at]})
		}
	}
	return found
}

// Superusers are the roles that a rule must name to let them in.
func (r *Rules) Superusers() []string { return slices.Clone(r.superusers) }

// MayAdmit returns a rule by which somebody could come in as a user, nil if there is
// none.
func (r *Rules) MayAdmit(user string) *Rule {
	named := slices.Contains(r.superusers, user)
	for _, rule := range r.list {
		if rule.Allow && rule.mayBeFor(user) && (!named || rule.namesUser(user)) {
			return rule
		}
	}
	return nil
}

// Names says whether the rule names a user outright, and not by a pattern.
func (rule *Rule) Names(user string) bool { return rule.namesUser(user) }

// covers says that whatever fits b fits a: condition by condition, those of lacks.
func (r *Rules) covers(a, b *Rule) bool {
	return coversUsers(a, b) && // by which most rules differ
		coversNames(a.databases, b.databases) &&
		coversSources(a.sources, b.sources) &&
		(a.listeners == nil || b.listeners != nil && subset(b.listeners, a.listeners)) &&
		coversCertificate(a, b) &&
		coversNames(a.sni, b.sni) &&
		subset(b.sessions(), a.sessions()) &&
		r.coversSuperusers(a, b)
}

func subset[T comparable](some, all []T) bool {
	return !slices.ContainsFunc(some, func(one T) bool { return !slices.Contains(all, one) })
}

// sessions are the kinds of replication that a rule is for.
func (rule *Rule) sessions() []Replication {
	switch {
	case rule.replication != nil:
		return rule.replication
	case rule.Allow:
		return []Replication{NoReplication, LogicalReplication}
	}
	return []Replication{NoReplication, LogicalReplication, PhysicalReplication}
}

func coversSources(a, b []netip.Prefix) bool {
	if a == nil || b == nil {
		return a == nil
	}
	return !slices.ContainsFunc(b, func(p netip.Prefix) bool {
		return !slices.ContainsFunc(a, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
	})
}

// coversCertificate: what a asks of a kind of name, b asks too, or more of it.
func coversCertificate(a, b *Rule) bool {
	return !slices.ContainsFunc(a.certificate, func(want attribute) bool {
		return !slices.ContainsFunc(b.certificate, func(has attribute) bool {
			return has.kind == want.kind && want.covers(&has.pattern)
		})
	})
}

func coversNames(a, b []pattern) bool {
	switch {
	case a == nil || slices.ContainsFunc(a, func(p pattern) bool { return p.kind == everything }):
		return true
	case b == nil:
		return false
	}
	return !slices.ContainsFunc(b, func(p pattern) bool {
		return !slices.ContainsFunc(a, func(q pattern) bool { return q.covers(&p) })
	})
}

// covers says that all that q matches p matches, too.
func (p *pattern) covers(q *pattern) bool {
	switch {
	case p.kind == everything:
		return true
	case q.kind == literal && (p.kind == literal || p.kind == glob || p.kind == regex):
		return p.matches(q.text)
	case p.kind != q.kind:
		return false
	case p.kind == glob:
		return p.escapes == q.escapes && slices.Equal(p.parts, q.parts)
	case p.kind == regex:
		return p.re.String() == q.re.String()
	case p.kind == template:
		return slices.Equal(p.parts, q.parts)
	}
	return p.kind == same
}

// coversUsers: a template is worth what the expression finds that it refers to.
func coversUsers(a, b *Rule) bool {
	if !coversNames(a.users, b.users) {
		return false
	}
	if !slices.ContainsFunc(b.users, func(p pattern) bool { return p.kind == template }) {
		return true
	}
	return coversNames(a.users, []pattern{{kind: template}}) || a.finds(b)
}

// finds says that the same expression fills in the templates of both rules.
func (rule *Rule) finds(b *Rule) bool {
	expression := func(r *Rule) (found *attribute) {
		for i := range r.certificate {
			if r.certificate[i].captures() {
				found = &r.certificate[i]
			}
		}
		return found
	}
	mine, other := expression(rule), expression(b)
	return mine != nil && other != nil && mine.kind == other.kind && mine.re.String() == other.re.String()
}

// coversSuperusers: a rule that allows passes over those that it does not name.
func (r *Rules) coversSuperusers(a, b *Rule) bool {
	if !a.Allow {
		return true
	}
	return !slices.ContainsFunc(r.superusers, func(name string) bool {
		fits := b.namesUser(name) || !b.Allow && b.mayBeFor(name)
		return fits && !a.namesUser(name)
	})
}

// mayBeFor says whether there could be a request of that user that the rule fits.
func (rule *Rule) mayBeFor(user string) bool {
	return rule.users == nil || slices.ContainsFunc(rule.users, func(p pattern) bool {
		return p.kind == same || p.kind == template || p.matches(user)
	})
}
