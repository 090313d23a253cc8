package policy

import (
	"time"

	"pgwicket/acl"
	"pgwicket/internal/limit"
)

// RuleTimes are the times that a rule sets for its sessions instead of the limits of all. A
// session keeps them, and not its rule. The zero value sets none.
type RuleTimes struct{ idle, lifetime *time.Duration }

// TimesOf returns those of a rule; nil: there is none.
func TimesOf(rule *acl.Rule) RuleTimes {
	if rule == nil {
		return RuleTimes{}
	}
	return RuleTimes{rule.IdleTimeout, rule.SessionLifetime}
}

// Apply returns the limits l with what the rule sets.
func (t RuleTimes) Apply(l limit.Limits) limit.Limits {
	if t.lifetime != nil {
		l.SessionLifetime = *t.lifetime
	}
	if t.idle != nil {
		l.IdleTimeout, l.IdleInTransaction = *t.idle, *t.idle
	} else if l.IdleInTransaction <= 0 {
		l.IdleInTransaction = l.IdleTimeout
	}
	return l
}

// LoginDeadline is when a connection that is admitted now must be ready for queries.
func (p *Policy) LoginDeadline() time.Time {
	timeout := p.AuthenticationTimeout
	if timeout <= 0 {
		timeout = p.StartupTimeout
	}
	return time.Now().Add(timeout)
}

// Precision is how often the sessions are looked at for the end of their time,
// so that none has an eighth more than it should.
func (p *Policy) Precision() time.Duration {
	l, least := p.Limits, time.Duration(0)
	all := []time.Duration{l.IdleTimeout, l.IdleInTransaction, l.UnfinishedTimeout, l.SessionLifetime}
	if p.Rules != nil {
		for _, rule := range p.Rules.All() {
			for _, d := range []*time.Duration{rule.IdleTimeout, rule.SessionLifetime} {
				if d != nil {
					all = append(all, *d)
				}
			}
		}
	}
	for _, d := range all {
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	const most = 5 * time.Second // Session.Idle is that precise, whatever the limits
	if least == 0 {
		return most
	}
	return min(max(least/8, 10*time.Millisecond), most)
}
