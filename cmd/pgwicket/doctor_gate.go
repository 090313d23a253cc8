package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// gateFacts are what the configuration itself says.
type gateFacts struct {
	listen    []string
	allowed   []netip.Prefix
	rules     *acl.Rules // nil: none
	recheck   proxy.Recheck
	admin     string // address; empty: none
	adminAsks bool   // for a certificate, and lets nobody in without
	firewall  firewallFacts
	landlock  bool
	user      string // the account to become; empty: none
	root      bool   // whoever asks is root
	hosts     []*proxy.Host
}

// firewallFacts are what the kernel says of the table that «pgwicket firewall»
// prints.
type firewallFacts struct {
	differences []string // from what the configuration says
	err         error    // why it could not say
}

func firewallFactsOf(ctx context.Context, cfg *config.Config) (f firewallFacts) {
	kernel, err := kernelRules(ctx)
	if err != nil {
		return firewallFacts{err: err}
	}
	f.differences, f.err = nftDifferences(cfg.Policy, cfg.Listen, kernel)
	return f
}

func gateFactsOf(ctx context.Context, cfg *config.Config) gateFacts {
	return gateFacts{
		listen:    cfg.Listen,
		allowed:   cfg.Policy.Networks.Allowed(),
		rules:     cfg.Policy.Rules,
		recheck:   cfg.Policy.Recheck,
		admin:     cfg.Admin.Address,
		adminAsks: cfg.Admin.TLS != nil && cfg.Admin.TLS.ClientCert() == tlsconfig.ClientCertRequire,
		firewall:  firewallFactsOf(ctx, cfg),
		landlock:  cfg.Landlock,
		user:      cfg.User,
		root:      os.Geteuid() == 0,
		hosts:     cfg.Policy.Hosts(),
	}
}

func gateChecks() []inspection[gateFacts] {
	return []inspection[gateFacts]{
		{"listen", gateFacts.checkListen},
		{"allowlist", gateFacts.checkAllowlist},
		{"firewall", gateFacts.checkFirewall},
		{"rules", gateFacts.checkRules},
		{"recheck", gateFacts.checkRecheck},
		{"backend", gateFacts.checkBackend},
		{"admin", gateFacts.checkAdmin},
		{"user", gateFacts.checkUser},
		{"landlock", gateFacts.checkLandlock},
	}
}

func (g gateFacts) checkListen() (out []finding) {
	for i, address := range g.listen {
		if ap, err := netip.ParseAddrPort(address); err == nil && ap.Addr().IsUnspecified() {
			out = append(out, found(warn, fmt.Sprintf("listen[%d].address", i), address+" listens on every network of this machine",
				"name the one address that clients use"))
		}
	}
	return allPassed(out, "listens on %s and nowhere else", strings.Join(g.listen, ", "))
}

// A network this wide is a continent and not one's own: half of all addresses, or
// an eighth of what a registry has.
const (
	half   = 1
	broad4 = 8
	broad6 = 32
)

func (g gateFacts) checkAllowlist() (out []finding) {
	const fix = "list the networks of the clients"
	for _, p := range g.allowed {
		broad := broad6
		if p.Addr().Is4() {
			broad = broad4
		}
		switch {
		case p.Bits() <= half:
			out = append(out, found(fail, "acl.allow", fmt.Sprintf("%v lets the whole internet knock", p), fix))
		case p.Bits() <= broad && !p.Addr().IsLoopback():
			out = append(out, found(warn, "acl.allow", fmt.Sprintf("%v is a very wide network", p), fix))
		}
	}
	if len(g.allowed) == 0 {
		out = append(out, found(warn, "acl.allow", "is empty, so nobody can connect", fix))
	}
	return allPassed(out, "no network of acl.allow is very wide")
}

// checkFirewall asks whether the kernel turns away whom the gate would.
func (g gateFacts) checkFirewall() []finding {
	const load = "pgwicket firewall --config FILE | nft -f -"
	switch f := g.firewall; {
	case !slices.ContainsFunc(g.listen, farReaching):
		return []finding{well("needs none: the gate listens on this machine's own addresses only")}
	case errors.Is(f.err, errNoTable):
		return []finding{found(warn, "nftables", "the kernel has no table inet pgwicket, so everybody reaches the gate before it turns them away", load+", unless another firewall sees to it")}
	case f.err != nil:
		return []finding{{Status: skip, Where: "nftables", Reason: f.err.Error()}}
	case len(f.differences) > 0:
		return []finding{found(warn, "nftables", "the kernel's table inet pgwicket is not what the configuration says: "+strings.Join(listed(f.differences), "; "), load)}
	}
	return []finding{well("the kernel turns away whom the configuration does not allow")}
}

// farReaching reports an address that other machines can connect to.
func farReaching(address string) bool {
	ap, err := netip.ParseAddrPort(address)
	return err == nil && !ap.Addr().IsLoopback()
}

func (g gateFacts) checkRules() (out []finding) {
	if g.rules == nil {
		return []finding{well("there are none: the allowlist and the certificate decide, and PostgreSQL binds the roles")}
	}
	all := g.rules.All()
	for _, s := range g.rules.Shadowed() {
		for i, rule := range all {
			if rule == s.Rule {
				out = append(out, found(warn, fmt.Sprintf("acl.rules[%d]", i),
					fmt.Sprintf("nothing reaches %q: %q before it decides on all that it fits", rule.Name, s.By.Name), "remove it, or move it up"))
			}
		}
	}
	return allPassed(out, "none of %s is covered by an earlier one", plural(len(all), "rule"))
}

func (g gateFacts) checkRecheck() []finding {
	if g.recheck == proxy.Off {
		return []finding{found(warn, "acl.on_recheck", "is off: whoever is in stays in, also when the certificate is revoked or the rule removed", "write immediate or idle")}
	}
	return []finding{well("sessions that would no longer be let in are ended")}
}

func (g gateFacts) checkBackend() (out []finding) {
	for _, h := range g.hosts {
		switch {
		case h.Network == "unix":
		case h.TLS == nil || h.Clear:
			out = append(out, found(loopbackWarns(h.Address), "backend.sslmode", "what goes to "+h.Address+" may go in clear",
				"write verify-full, or use PostgreSQL's Unix socket"))
		case h.TLS.InsecureSkipVerify:
			out = append(out, found(loopbackWarns(h.Address), "backend.sslmode", "whoever answers at "+h.Address+" is not verified to be the database", "write verify-full"))
		}
	}
	return allPassed(out, "goes over Unix sockets, or TLS that verifies the server")
}

// loopbackWarns weighs what somebody on the way could do: on this machine it takes
// somebody who is on it already.
func loopbackWarns(address string) verdict {
	if ap, err := netip.ParseAddrPort(address); err == nil && ap.Addr().IsLoopback() || strings.HasPrefix(address, "localhost:") {
		return warn
	}
	return fail
}

func (g gateFacts) checkAdmin() []finding {
	switch {
	case !farReaching(g.admin):
		return []finding{well("the admin address is out of reach for other machines")}
	case g.adminAsks:
		return []finding{well("whoever asks at the admin address must show a certificate")}
	}
	return []finding{found(warn, "admin.address", g.admin+" is not a loopback address, and whoever reaches it can read the metrics and the status page",
		"use 127.0.0.1, ask for client certificates in admin.tls, or keep it behind a firewall")}
}

func (g gateFacts) checkUser() []finding {
	switch {
	case g.user != "":
		return []finding{well("the gate runs as %s", g.user)}
	case g.root:
		return []finding{found(warn, "user", "is missing: if root starts the gate, it stays root", "name an account of its own, or start it as one (User= of a systemd unit)")}
	}
	return []finding{well("whoever starts the gate, as this was started, is not root")}
}

func (g gateFacts) checkLandlock() []finding {
	if !g.landlock {
		return []finding{found(warn, "landlock", "is off: a gate that is taken over may read, write and run all that its account may", "write true")}
	}
	return []finding{well("the kernel is asked to confine the gate")}
}
