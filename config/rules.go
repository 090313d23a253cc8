package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgwicket/acl"
	"pgwicket/proxy"
)

// rules reads acl.rules. Without any, the allowlist alone decides, and the
// result is nil.
func (l *loading) rules(a access, listeners []string) *acl.Rules {
	if _, there := l.lines["acl.rules"]; there && a.Rules == nil {
		// Whoever comments out the last rule has not meant to let everybody in.
		l.errorf("acl.rules", "has no rules; write rules: [] if the allowlist alone is to decide")
	}
	for i, rule := range a.Rules {
		l.unfinished(fmt.Sprintf("acl.rules[%d]", i), rule)
	}
	rules, problems := acl.NewRules(a.Rules, listeners, a.Superusers)
	for _, p := range problems {
		l.add(p.Warning, "acl."+p.Key, "%s", p.Text)
	}
	if rules == nil || len(a.Rules) == 0 {
		return nil
	}
	for i, rule := range rules.All() {
		rule.Line = lineOf(l.lines, fmt.Sprintf("acl.rules[%d]", i))
	}
	return rules
}

// unfinished finds conditions that are there but say nothing: as if they were
// not there, they would match everything.
func (l *loading) unfinished(key string, rule acl.RuleOptions) {
	for name, list := range map[string][]string{
		"sources": rule.Sources, "listeners": rule.Listeners, "databases": rule.Databases, "users": rule.Users, "sni": rule.SNI,
	} {
		if _, there := l.lines[key+"."+name]; there && list == nil {
			l.errorf(key+"."+name, "is empty; remove it to match everything, or add an entry")
		}
	}
	if _, there := l.lines[key+".certificate"]; there && rule.Certificate == (acl.CertificateOptions{}) {
		l.errorf(key+".certificate", "says nothing; write cn: all for any certificate with a common name, or leave it out")
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

// destinations checks that every rule that admits leads to a backend.
func (l *loading) destinations(rules []acl.RuleOptions, p *proxy.Policy) {
	known := slices.Sorted(maps.Keys(p.Backends))
	for i, rule := range rules {
		key := fmt.Sprintf("acl.rules[%d]", i)
		switch {
		case rule.Backend != "" && p.Backends[rule.Backend] == nil && len(known) == 0:
			l.errorf(key+".backend", "%q is not among backends, of which there are none", rule.Backend)
		case rule.Backend != "" && p.Backends[rule.Backend] == nil:
			l.errorf(key+".backend", "%q is not among backends, which has %s", rule.Backend, strings.Join(known, ", "))
		case rule.Backend == "" && rule.Action == "allow" && p.Backend == nil:
			l.errorf(key, "leads to no backend: name one of %s, or write a backend section for all rules without one", strings.Join(known, ", "))
		}
	}
	if len(rules) == 0 && p.Backend == nil {
		l.errorf("backends", "has backends that no rule leads to; write rules with backend: and a name, or a backend section")
	}
}

func (l *loading) recheck(s string) proxy.Recheck {
	known := []string{proxy.Immediate: "immediate", proxy.WhenIdle: "idle", proxy.Off: "off"}
	return proxy.Recheck(max(slices.Index(known, l.oneOf("acl.on_recheck", s, known...)), 0))
}
