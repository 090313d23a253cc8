package gate

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"pgwicket/config"
	"pgwicket/internal/phrase"
	"pgwicket/internal/policy"
	"pgwicket/internal/status"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// Describe returns what a configuration enforces, in words.
func Describe(cfg *config.Config) []status.Line {
	p := cfg.Policy
	lines := []status.Line{
		{What: "offers", Text: cfg.TLS.Describe()},
		{What: "clients", Text: cfg.TLS.DescribeClients()},
		{What: "sources", Text: sourcesOf(p)},
		{What: "rules", Text: rulesOf(p)},
		{What: "live sessions", Text: recheckOf(p)},
	}
	return append(lines, backendsOf(p)...)
}

func sourcesOf(p *proxy.Policy) string {
	text := "from nowhere"
	if allowed := phrase.Shorten(texts(p.Networks.Allowed())); len(allowed) > 0 {
		text = "from " + strings.Join(allowed, ", ")
	}
	if denied := phrase.Shorten(texts(p.Networks.Denied())); len(denied) > 0 {
		text += ", but not from " + strings.Join(denied, ", ")
	}
	return text + map[policy.SourceRefusal]string{
		policy.Close: "; others are closed without a word", policy.Reset: "; others are reset", policy.Explain: "; others are told so, inside TLS",
	}[p.SourceRefusal]
}

func rulesOf(p *proxy.Policy) string {
	if p.Rules == nil {
		return "none: the allowlist and the certificate are enough"
	}
	var names []string
	for _, r := range p.Rules.All() {
		name := r.Name
		if !r.Allow {
			name += " (reject)"
		}
		names = append(names, name)
	}
	return strings.Join(phrase.Shorten(names), ", ") + "; the first that fits decides"
}

func recheckOf(p *proxy.Policy) string {
	text := "judged again after each reload"
	if p.RecheckInterval > 0 {
		text += fmt.Sprintf(" and every %v", p.RecheckInterval)
	}
	return text + map[policy.Recheck]string{
		policy.Immediate: ", and ended at once", policy.WhenIdle: ", and ended when they are idle", policy.Off: ", but only counted",
	}[p.Recheck]
}

func texts(prefixes []netip.Prefix) []string {
	out := make([]string, 0, len(prefixes))
	for _, p := range prefixes {
		if p.IsSingleIP() {
			out = append(out, p.Addr().String())
			continue
		}
		out = append(out, p.String())
	}
	return out
}

// backendsOf returns where sessions go, backends without a name first.
func backendsOf(p *proxy.Policy) (lines []status.Line) {
	one := func(b *proxy.Backend, name string) {
		for _, h := range b.Hosts {
			lines = append(lines, status.Line{What: "forwards to", Text: h.Address + overTLS(h) + name})
		}
	}
	if p.Backend != nil {
		one(p.Backend, "")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Backends)) {
		one(p.Backends[name], fmt.Sprintf(" (rules with backend: %s)", name))
	}
	return lines
}

func overTLS(h proxy.Host) string {
	switch {
	case h.Network == "unix":
		return ""
	case h.TLS == nil:
		return ", in clear"
	case h.Clear:
		return ", with TLS if the server offers it"
	case h.SSLMode == string(tlsconfig.SSLRequire):
		return ", with TLS, not verified"
	case h.SSLMode == string(tlsconfig.SSLVerifyCA):
		return ", with TLS, verified except for its name"
	}
	return ", with TLS, verified"
}
