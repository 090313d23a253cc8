package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/internal/policy"
	"pgwicket/proxy"
)

// rules checks acl.rules. It returns nil if there are none, so that only the allowlist
// decides.
func (l *loader) rules(a access, listeners, reserved []string, now time.Time) *acl.Rules {
	if _, there := l.lines["acl.rules"]; there && a.Rules == nil {
		// To comment out the last rule must not admit everybody.
		l.errorf("acl.rules", "has no rules; write rules: [] to decide by the allowlist only")
	}
	for i, rule := range a.Rules {
		l.checkEmpty(fmt.Sprintf("acl.rules[%d]", i), rule)
	}
	rules, problems := acl.NewRules(a.Rules, listeners, a.Superusers, reserved...)
	for _, p := range problems {
		l.add(p.Warning, "acl."+p.Key, "%s", p.Text)
	}
	if rules == nil || len(a.Rules) == 0 {
		return nil
	}
	for i, rule := range rules.All() {
		switch key := fmt.Sprintf("acl.rules[%d]", i); {
		case rule.Over(now):
			l.warnf(key, "was in force until %s, so it matches nothing any more; remove it", a.Rules[i].Until)
		case rule.Never(now):
			l.warnf(key, "is never in force: its weekdays and hours do not occur between its from and until; correct or remove it")
		}
		rule.Line = lineOf(l.lines, fmt.Sprintf("acl.rules[%d]", i))
	}
	return rules
}

// checkEmpty reports conditions without a value, which would match everything.
func (l *loader) checkEmpty(key string, rule acl.RuleOptions) {
	for name, list := range map[string][]string{
		"sources": rule.Sources, "listeners": rule.Listeners, "databases": rule.Databases, "users": rule.Users, "sni": rule.SNI,
		"weekdays": rule.Weekdays, "hours": rule.Hours,
	} {
		if _, there := l.lines[key+"."+name]; there && list == nil {
			l.errorf(key+"."+name, "is empty; remove it to match everything, or add an entry")
		}
	}
	for name, text := range map[string]string{
		"from": rule.From, "until": rule.Until, "timezone": rule.Timezone, "session_lifetime": rule.SessionLifetime,
		"max_certificate_lifetime": rule.MaxCertificateLifetime,
	} {
		if _, there := l.lines[key+"."+name]; there && text == "" {
			l.errorf(key+"."+name, "is empty; remove it, or write a value")
		}
	}
	if _, there := l.lines[key+".certificate"]; there && rule.Certificate == (acl.CertificateOptions{}) {
		l.errorf(key+".certificate", "is empty; write cn: all for any certificate with a common name, or remove it")
		return
	}
	c := rule.Certificate
	for kind, text := range map[string]string{
		"cn": c.CN, "dn": c.DN, "dns": c.DNS, "email": c.Email, "uri": c.URI, "issuer": c.Issuer, "spki": c.SPKI,
	} {
		if _, there := l.lines[key+".certificate."+kind]; there && text == "" {
			l.errorf(key+".certificate."+kind, "is empty; write all, a name, a glob or a regular expression")
		}
	}
}

// checkBackends checks that every rule with action: allow has a backend, and returns how the backends
// are asked for what the rules need.
func (l *loader) checkBackends(f file, p *proxy.Policy) []GroupLookup {
	rules := f.ACL.Rules
	known := slices.Sorted(maps.Keys(p.Backends))
	for i, rule := range rules {
		key := fmt.Sprintf("acl.rules[%d]", i)
		switch {
		case rule.Backend != "" && p.Backends[rule.Backend] == nil && len(known) == 0:
			l.errorf(key+".backend", "%q is not in backends, which is empty", rule.Backend)
		case rule.Backend != "" && p.Backends[rule.Backend] == nil:
			l.errorf(key+".backend", "%q is not in backends, which has %s", rule.Backend, strings.Join(known, ", "))
		case rule.Backend == "" && rule.Action == "allow" && p.Backend == nil:
			l.errorf(key, "has no backend; write backend: with one of %s, or add a backend section for all rules without one", strings.Join(known, ", "))
		}
	}
	if len(rules) == 0 && p.Backend == nil {
		l.errorf("backends", "has no effect, because no rule uses it; write rules with backend: and a name, or add a backend section")
	}
	return l.groups(f, p.Rules, p)
}

// onExpiry is as on_recheck where it is not set.
func (l *loader) onExpiry(a access) policy.Recheck {
	if a.OnExpiry != "" {
		return l.recheck("acl.on_expiry", a.OnExpiry)
	}
	known := []string{policy.Immediate: "immediate", policy.WhenIdle: "idle", policy.Off: "off"}
	return policy.Recheck(max(slices.Index(known, a.OnRecheck), 0))
}

func (l *loader) recheck(key, s string) policy.Recheck {
	known := []string{policy.Immediate: "immediate", policy.WhenIdle: "idle", policy.Off: "off"}
	return policy.Recheck(max(slices.Index(known, l.oneOf(key, s, known...)), 0))
}
