package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/outcome"
	"pgwicket/metrics"
)

// Judge is the one predicate of the gate: it admits a client, and is asked again
// for as long as its session lives. It returns the rule that admits, nil where
// there are no rules, or a *Refusal. The certificate in q is the leaf of
// state.
func (p *Policy) Judge(q *acl.Request, state tls.ConnectionState, at time.Time) (*acl.Rule, error) {
	if err := p.admits(q, state, at); err != nil {
		return nil, err
	}
	return p.decide(q, at)
}

// judgeVerified is Judge for a handshake that p has verified.
func (p *Policy) judgeVerified(q *acl.Request, at time.Time) (*acl.Rule, error) {
	if err := p.admitsSource(q); err != nil {
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

// admitsUnlocked refuses a client that a lock matches. It is told what one is told that a rule
// rejects.
func (p *Policy) admitsUnlocked(q *acl.Request, at time.Time) error {
	if l := p.Locks.Find(q, at); l != nil {
		return ruleRefusal(outcome.Locked, "pgwicket rejects", q, " ("+l.Describe()+")")
	}
	return nil
}

// decide asks the locks and the rules.
func (p *Policy) decide(q *acl.Request, at time.Time) (*acl.Rule, error) {
	if err := p.admitsUnlocked(q, at); err != nil {
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

// BackendOf returns where a session goes that a rule has admitted; nil: none was
// asked.
func (p *Policy) BackendOf(rule *acl.Rule) (*Backend, error) {
	b := p.Backend
	if rule != nil && rule.Backend != "" {
		b = p.Backends[rule.Backend]
	}
	if b == nil {
		return nil, refuse(outcome.InternalError, "the policy has no backend for this session")
	}
	return b, nil
}

// mainBackend is what Policy.Backend, which has no name, is called in the metrics.
const mainBackend = "default"

// backendName returns what the metrics call the backend of BackendOf.
func backendName(rule *acl.Rule) string {
	if rule != nil && rule.Backend != "" {
		return rule.Backend
	}
	return mainBackend
}

// addresses names those of every backend for the metrics.
func (p *Policy) addresses() (all []metrics.Host) {
	add := func(name string, b *Backend) {
		for _, h := range b.Hosts {
			all = append(all, metrics.Host{Backend: name, Address: h.Address})
		}
	}
	if p.Backend != nil {
		add(mainBackend, p.Backend)
	}
	for name, b := range p.Backends {
		add(name, b)
	}
	return all
}

// admits judges what does not depend on the session that is asked for.
func (p *Policy) admits(q *acl.Request, state tls.ConnectionState, at time.Time) error {
	if err := p.admitsSource(q); err != nil {
		return err
	}
	_, err := p.verify(state, at)
	return err
}

func (p *Policy) verify(state tls.ConnectionState, at time.Time) ([]*x509.Certificate, error) {
	if p.Verify == nil {
		return nil, refuse(outcome.InternalError, "the policy verifies nothing")
	}
	return p.Verify(state, at)
}

func (p *Policy) admitsSource(q *acl.Request) error {
	switch p.Networks.Judge(q.Source) {
	case acl.Allowed:
		return nil
	case acl.Denied:
		return refuse(outcome.SourceDenied, "the address is in acl.deny")
	default:
		return refuse(outcome.SourceNotAllowed, "the address is in no network of acl.allow")
	}
}

// ruleRefusal speaks as pg_hba.conf does. The client learns what it asked for
// and not which rule was meant for it.
func ruleRefusal(o Outcome, what string, q *acl.Request, detail string) error {
	text := fmt.Sprintf("%s host \"%v\", user \"%s\", database \"%s\"", what, q.Source, q.User, q.Database)
	if q.Replication == acl.PhysicalReplication {
		text = fmt.Sprintf("%s replication connection from host \"%v\", user \"%s\"", what, q.Source, q.User)
	}
	return &Refusal{Outcome: o, Public: text, Detail: text + detail}
}
