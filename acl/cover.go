package acl

import (
	"net/netip"
	"slices"
)

// Shadow is a rule that never decides, because the earlier rule By matches all its
// requests.
type Shadow struct{ Rule, By *Rule }

// Shadowed returns the rules that one earlier rule covers. It has no false positives.
// It does not find a rule that only several rules together cover, or two regular
// expressions with the same meaning and a different text.
func (r *Rules) Shadowed() (found []Shadow) {
	for i, rule := range r.list {
		at := slices.IndexFunc(r.list[:i], func(earlier *Rule) bool { return r.covers(earlier, rule) })
		if at >= 0 {
			found = append(found, Shadow{rule, r.list[at]})
		}
	}
	return found
}

// Superusers returns the roles that a rule admits only by their literal name.
func (r *Rules) Superusers() []string { return slices.Clone(r.superusers) }

// MayAdmit returns a rule that could admit a session of the user, or nil.
func (r *Rules) MayAdmit(user string) *Rule {
	named := slices.Contains(r.superusers, user) || slices.Contains(r.reserved, user)
	for _, rule := range r.list {
		if rule.Allow && rule.canMatchUser(user) && (!named || rule.namesUser(user)) {
			return rule
		}
	}
	return nil
}

// MayAdmitUnbound returns a rule that could admit a session of the user for a client whose
// certificate does not say that it is this user, or nil. A rule binds its users to certificates
// with samename or \1, or by asking for one name or key in the certificate.
func (r *Rules) MayAdmitUnbound(user string) *Rule {
	named := slices.Contains(r.superusers, user) || slices.Contains(r.reserved, user)
	for _, rule := range r.list {
		if rule.Allow && !rule.asksForOne() && rule.mayMatchUnbound(user) && (!named || rule.namesUser(user)) {
			return rule
		}
	}
	return nil
}

// asksForOne reports whether only certificates with a certain name or key match the rule. The
// name of a CA is none.
func (rule *Rule) asksForOne() bool {
	return slices.ContainsFunc(rule.certificate, func(a attribute) bool { return a.pattern.kind == literal && a.kind != "issuer" })
}

// mayMatchUnbound reports whether the rule could match the user by a word that has nothing to do
// with the certificate.
func (rule *Rule) mayMatchUnbound(user string) bool {
	return rule.users == nil || slices.ContainsFunc(rule.users, func(p pattern) bool {
		return p.kind != same && p.kind != template && (p.kind == group || p.matches(user))
	})
}

// Names reports whether the rule names the user literally, without a pattern.
func (rule *Rule) Names(user string) bool { return rule.namesUser(user) }

// covers reports whether a matches every request that b matches. It compares the
// conditions that firstMismatch checks, one by one.
func (r *Rules) covers(a, b *Rule) bool {
	return coversUsers(a, b) && // first, because most rules differ in it
		coversNames(a.databases, b.databases) &&
		coversSources(a.sources, b.sources) &&
		(a.listeners == nil || b.listeners != nil && subset(b.listeners, a.listeners)) &&
		coversCertificate(a, b) &&
		coversNames(a.sni, b.sni) &&
		subset(b.replicationKinds(), a.replicationKinds()) &&
		(a.maxCertLife == 0 || b.maxCertLife != 0 && b.maxCertLife <= a.maxCertLife) &&
		(a.when == nil || b.when != nil && a.when.text == b.when.text) &&
		r.coversSuperusers(a, b)
}

func subset[T comparable](some, all []T) bool {
	return !slices.ContainsFunc(some, func(one T) bool { return !slices.Contains(all, one) })
}

// replicationKinds returns the kinds of sessions that the rule applies to.
func (rule *Rule) replicationKinds() []Replication {
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

// coversCertificate reports whether b has a condition at least as strict for each
// kind of name that a checks.
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

// covers reports whether p matches every name that q matches.
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
	case p.kind == group:
		return p.text == q.text
	}
	return p.kind == same
}

// coversUsers compares templates together with the regular expressions that they
// refer to.
func coversUsers(a, b *Rule) bool {
	if !coversNames(a.users, b.users) {
		return false
	}
	// The members are those of the backend of each rule. While they are not known, a rule that rejects
	// matches everybody, and one that allows nobody.
	if (a.Backend != b.Backend || a.Allow && !b.Allow) && len(b.Groups()) > 0 && !coversNames(a.users, []pattern{{kind: group}}) {
		return false
	}
	if !slices.ContainsFunc(b.users, func(p pattern) bool { return p.kind == template }) {
		return true
	}
	return coversNames(a.users, []pattern{{kind: template}}) || a.sameCapture(b)
}

// sameCapture reports whether the same expression fills in the templates of both
// rules.
func (rule *Rule) sameCapture(b *Rule) bool {
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

// coversSuperusers: a rule that allows does not match superusers that it does not
// name.
func (r *Rules) coversSuperusers(a, b *Rule) bool {
	if !a.Allow {
		return true
	}
	return !slices.ContainsFunc(slices.Concat(r.superusers, r.reserved), func(name string) bool {
		fits := b.namesUser(name) || !b.Allow && b.canMatchUser(name)
		return fits && !a.namesUser(name)
	})
}

// canMatchUser reports whether the rule could match a request of the user.
func (rule *Rule) canMatchUser(user string) bool {
	return rule.users == nil || slices.ContainsFunc(rule.users, func(p pattern) bool {
		return p.kind == same || p.kind == template || p.kind == group || p.matches(user)
	})
}
