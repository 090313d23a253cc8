package policy

import (
	"maps"
	"net"
	"slices"

	"pgwicket/acl"
	"pgwicket/internal/backend"
	"pgwicket/internal/outcome"
)

// BackendOf returns where a session goes that a rule has admitted; nil: none was
// asked.
func (p *Policy) BackendOf(rule *acl.Rule) (*backend.Backend, error) {
	b := p.Backend
	if rule != nil && rule.Backend != "" {
		b = p.Backends[rule.Backend]
	}
	if b == nil {
		return nil, outcome.Refuse(outcome.InternalError, "the policy has no backend for this session")
	}
	return b, nil
}

// MainBackend is what Policy.Backend, which has no name, is called in the metrics.
const MainBackend = "default"

// BackendName returns what the metrics call the backend of BackendOf.
func BackendName(rule *acl.Rule) string {
	if rule != nil && rule.Backend != "" {
		return rule.Backend
	}
	return MainBackend
}

// Hosts returns those of every backend.
func (p *Policy) Hosts() (all []*backend.Host) {
	add := func(b *backend.Backend) {
		for i := range b.Hosts {
			all = append(all, &b.Hosts[i])
		}
	}
	if p.Backend != nil {
		add(p.Backend)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Backends)) {
		add(p.Backends[name])
	}
	return all
}

// HostOf returns where a session of another process is, as this policy would connect to it; nil: it has
// no such backend any more.
func (p *Policy) HostOf(name, address string) *backend.Host {
	b := p.Backends[name]
	if name == MainBackend && b == nil {
		b = p.Backend
	}
	if b == nil {
		return nil
	}
	for i := range b.Hosts {
		if b.Hosts[i].Address == address {
			return &b.Hosts[i]
		}
	}
	_, port, err := net.SplitHostPort(address)
	for i := range b.Hosts { // the address of a name
		if _, other, e := net.SplitHostPort(b.Hosts[i].Address); err == nil && e == nil && b.Hosts[i].Network != "unix" && other == port {
			one := b.Hosts[i]
			one.Address = address
			return &one
		}
	}
	return nil
}
