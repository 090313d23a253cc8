package policy

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/outcome"
)

// Judge is the one predicate of the gate: it admits a client, and is asked again
// for as long as its session lives. It returns the rule that admits, nil where
// there are no rules, or an *outcome.Refusal. The certificate in q is the first of
// those that the client has sent, as for Verify.
func (p *Policy) Judge(q *acl.Request, state tls.ConnectionState, sent [][]byte, at time.Time) (*acl.Rule, error) {
	if err := p.Admits(q, state, sent, at); err != nil {
		return nil, err
	}
	return p.decide(q, at)
}

// JudgeVerified is Judge for a handshake that p has verified.
func (p *Policy) JudgeVerified(q *acl.Request, at time.Time) (*acl.Rule, error) {
	if err := p.AdmitsSource(q); err != nil {
		return nil, err
	}
	return p.decide(q, at)
}

// NextChange returns the first moment after a time at which a verdict may change without
// a reload, a certificate or a revocation list; the zero time: none.
func (p *Policy) NextChange(after time.Time) time.Time {
	next := p.Locks.NextChange(after)
	for _, other := range []time.Time{p.Rules.NextChange(after), p.Groups.NextChange(after)} {
		if next.IsZero() || !other.IsZero() && other.Before(next) {
			next = other
		}
	}
	return next
}

// AdmitsUnlocked refuses a client that a lock matches. It is told what one is told that a rule
// rejects.
func (p *Policy) AdmitsUnlocked(q *acl.Request, at time.Time) error {
	if l := p.Locks.Find(q, at); l != nil {
		return ruleRefusal(outcome.Locked, "pgwicket rejects", q, " ("+l.Describe()+")")
	}
	return nil
}

// decide asks the locks and the rules.
func (p *Policy) decide(q *acl.Request, at time.Time) (*acl.Rule, error) {
	if err := p.AdmitsUnlocked(q, at); err != nil {
		return nil, err
	}
	if p.Rules == nil {
		return nil, nil
	}
	timed := *q // others read q
	timed.At, timed.Groups = at, p.Groups
	rule := p.Rules.Decide(&timed)
	switch {
	case rule == nil:
		return nil, ruleRefusal(outcome.NoRule, "no pgwicket rule for", q, p.unknownGroups(&timed))
	case !rule.Allow:
		return rule, ruleRefusal(outcome.RuleRejected, "pgwicket rejects", q, fmt.Sprintf(" (rule %q)", rule.Name)+p.unknownGroups(&timed))
	}
	return rule, nil
}

// unknownGroups returns for the log which roles a refusal would have needed to know the members of.
func (p *Policy) unknownGroups(q *acl.Request) string {
	roles := p.Rules.Unknown(q)
	if len(roles) == 0 {
		return ""
	}
	return " (the members of +" + strings.Join(roles, ", +") + " are not known now)"
}

// Admits judges what does not depend on the session that is asked for. Its error is an *outcome.Refusal.
func (p *Policy) Admits(q *acl.Request, state tls.ConnectionState, sent [][]byte, at time.Time) error {
	if err := p.AdmitsSource(q); err != nil {
		return err
	}
	_, err := p.VerifyCertificate(state, sent, at)
	return err
}

// VerifyCertificate is Verify, which may be nil.
func (p *Policy) VerifyCertificate(state tls.ConnectionState, sent [][]byte, at time.Time) ([][]byte, error) {
	if p.Verify == nil {
		return nil, outcome.Refuse(outcome.InternalError, "the policy verifies nothing")
	}
	return p.Verify(state, sent, at)
}

// AdmitsSource asks the allowlist alone. Its error is an *outcome.Refusal.
func (p *Policy) AdmitsSource(q *acl.Request) error {
	switch p.Networks.Judge(q.Source) {
	case acl.Allowed:
		return nil
	case acl.Denied:
		return outcome.Refuse(outcome.SourceDenied, "the address is in acl.deny")
	default:
		return outcome.Refuse(outcome.SourceNotAllowed, "the address is in no network of acl.allow")
	}
}

// ruleRefusal speaks as pg_hba.conf does. The client learns what it asked for
// and not which rule was meant for it.
func ruleRefusal(o outcome.Outcome, what string, q *acl.Request, detail string) error {
	text := fmt.Sprintf("%s host \"%v\", user \"%s\", database \"%s\"", what, q.Source, q.User, q.Database)
	if q.Replication == acl.PhysicalReplication {
		text = fmt.Sprintf("%s replication connection from host \"%v\", user \"%s\"", what, q.Source, q.User)
	}
	return &outcome.Refusal{Outcome: o, Public: text, Detail: text + detail}
}

// Trusts reports whether an address may, and must, say for whom it speaks.
func (p *Policy) Trusts(listener string, peer netip.Addr) bool {
	n := p.Proxies[listener]
	return n != nil && n.Judge(peer) == acl.Allowed
}
