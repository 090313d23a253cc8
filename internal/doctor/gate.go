package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/internal/phrase"
	"pgwicket/internal/policy"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// gateState is what the configuration says.
type gateState struct {
	listen        []string
	allowed       []netip.Prefix
	rules         *acl.Rules // nil: none
	recheck       policy.Recheck
	admin         string // address; empty: none
	adminVerifies bool   // the admin address requires a certificate
	firewall      firewallState
	landlock      bool
	user          string // the account to become; empty: none
	root          bool   // this process is root
	hosts         []*proxy.Host
	perAccount    int // limits.max_sessions_per_account; 0: none
	authFailures  int // limits.max_auth_failures; 0: none

	unreachable    []config.Problem // for the account of the gate
	unreachableErr error            // why that is not known
	groups         []config.GroupLookup
	groupProblems  []config.Problem
}

func gateStateOf(ctx context.Context, cfg *config.Config) gateState {
	return gateState{
		listen:        cfg.Listen,
		allowed:       cfg.Policy.Networks.Allowed(),
		rules:         cfg.Policy.Rules,
		recheck:       cfg.Policy.Recheck,
		admin:         cfg.Admin.Address,
		adminVerifies: cfg.Admin.TLS != nil && cfg.Admin.TLS.ClientCert() == tlsconfig.ClientCertRequire,
		firewall:      firewallStateOf(ctx, cfg),
		landlock:      cfg.Landlock,
		user:          cfg.User,
		root:          os.Geteuid() == 0,
		hosts:         cfg.Policy.Hosts(),
		groups:        cfg.Groups,
		perAccount:    cfg.Policy.Limits.PerAccount,
		authFailures:  cfg.Policy.Limits.AuthFailures,
	}
}

func gateChecks() []check[gateState] {
	return []check[gateState]{
		{"listen", gateState.checkListen},
		{"allowlist", gateState.checkAllowlist},
		{"firewall", gateState.checkFirewall},
		{"rules", gateState.checkRules},
		{"recheck", gateState.checkRecheck},
		{"backend", gateState.checkBackend},
		{"admin", gateState.checkAdmin},
		{"user", gateState.checkUser},
		{"groups", gateState.checkGroups},
		{"account", gateState.checkAccount},
		{"landlock", gateState.checkLandlock},
	}
}

// checkAccount says what the account of the gate cannot reach: what root has read,
// a reload cannot, and without the socket no session starts.
func (g gateState) checkAccount() (out []Finding) {
	if g.unreachableErr != nil {
		out = []Finding{{Status: Skip, Where: "user", Reason: "could not try what the account of the gate can reach: " + g.unreachableErr.Error(), Fix: "run doctor as root or as that account"}}
	}
	for _, p := range g.unreachable {
		what, fix, _ := strings.Cut(p.Text, ": ")
		out = append(out, finding(Fail, p.Key, what, fix))
	}
	return orPass(out, "the account of the gate can read its files and connect to PostgreSQL's sockets")
}

// checkGroups says whether the members of the roles in the rules can be looked up.
func (g gateState) checkGroups() (out []Finding) {
	if len(g.groups) == 0 {
		return []Finding{pass("no rule names a role with +")}
	}
	for _, p := range g.groupProblems {
		if p.Key == "acl.rules" {
			out = append(out, finding(Warn, p.Key, p.Text, "correct the name, or create the role"))
			continue
		}
		out = append(out, finding(Fail, p.Key, p.Text, `create the role, and let pg_hba.conf admit it from the gate (docs/security.md, "Members of roles")`))
	}
	return orPass(out, "the members of every role in the rules can be looked up")
}

func (g gateState) checkRules() (out []Finding) {
	if g.rules == nil {
		return []Finding{pass("there are none: the allowlist and the certificate decide, and pg_hba.conf decides on the roles")}
	}
	all := g.rules.All()
	for _, s := range g.rules.Shadowed() {
		for i, rule := range all {
			if rule == s.Rule {
				out = append(out, finding(Warn, fmt.Sprintf("acl.rules[%d]", i),
					fmt.Sprintf("%q never decides: %q before it matches all that it matches", rule.Name, s.By.Name), "remove it, or move it up"))
			}
		}
	}
	return orPass(out, "none of %s is covered by an earlier one", phrase.Count(len(all), "rule"))
}

func (g gateState) checkRecheck() []Finding {
	if g.recheck == policy.Off {
		return []Finding{finding(Warn, "acl.on_recheck", "is off: sessions stay open after their certificate is revoked or their rule removed", "write immediate or idle")}
	}
	return []Finding{pass("sessions that would no longer be admitted are terminated")}
}

func (g gateState) checkBackend() (out []Finding) {
	for _, h := range g.hosts {
		switch {
		case h.Network == "unix":
		case h.TLS == nil || h.Clear:
			out = append(out, finding(loopbackWarns(h.Address), "backend.sslmode", "the connection to "+h.Address+" may be in clear",
				"write verify-full, or use PostgreSQL's Unix socket"))
		case h.TLS.InsecureSkipVerify && h.TLS.VerifyConnection == nil:
			out = append(out, finding(loopbackWarns(h.Address), "backend.sslmode", "the server at "+h.Address+" is not verified", "write verify-full"))
		}
	}
	return orPass(out, "connections use Unix sockets, or TLS that verifies the server")
}

// loopbackWarns returns Warn for an address of this machine, where only its own
// accounts are on the path, and Fail for others.
func loopbackWarns(address string) Status {
	if ap, err := netip.ParseAddrPort(address); err == nil && ap.Addr().IsLoopback() || strings.HasPrefix(address, "localhost:") {
		return Warn
	}
	return Fail
}

func (g gateState) checkAdmin() []Finding {
	switch {
	case !reachable(g.admin):
		return []Finding{pass("other machines cannot reach the admin address")}
	case g.adminVerifies:
		return []Finding{pass("the admin address requires a certificate")}
	}
	return []Finding{finding(Warn, "admin.address", g.admin+" is not a loopback address, so every machine that reaches it can read the metrics and the status page",
		"use 127.0.0.1, require client certificates in admin.tls, or put it behind a firewall")}
}

func (g gateState) checkUser() []Finding {
	switch {
	case g.user != "":
		return []Finding{pass("the gate runs as %s", g.user)}
	case g.root:
		return []Finding{finding(Warn, "user", "is missing: if root starts the gate, it stays root", "name an unprivileged account, or start the gate as one (User= of a systemd unit)")}
	}
	return []Finding{pass("this account is not root, nor is a gate that it starts")}
}

func (g gateState) checkLandlock() []Finding {
	if !g.landlock {
		return []Finding{finding(Warn, "landlock", "is off: code that takes over the gate may read, write and run whatever its account may", "write true")}
	}
	return []Finding{pass("Landlock confines the gate")}
}
