package gate

import (
	"cmp"
	"slices"
	"time"

	"pgwicket/config"
	"pgwicket/internal/dn"
	"pgwicket/internal/health"
	"pgwicket/internal/status"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// published is what other goroutines than that of wait may know of the last load.
type published struct {
	config   *config.Config
	adminTLS *tlsconfig.Server // nil: none
	reload   status.Reload
}

// record publishes the result of a load, with its time and its problems.
func (g *Gate) record(r status.Reload, problems []config.Problem) *status.Reload {
	now := time.Now()
	last := g.published.Load()
	r.At, r.InForceSince, r.Problems = now, now, make([]status.Problem, 0, len(problems))
	for _, list := range []*[]string{&r.Files, &r.Changes, &r.PutOff} {
		*list = append([]string{}, *list...) // JSON shows none as [], not as null
	}
	s := &published{config: g.inForce, reload: r}
	for _, p := range problems {
		s.reload.Problems = append(s.reload.Problems, status.Problem(p))
	}
	if s.adminTLS = g.inForce.Admin.TLS; last != nil {
		if !r.Successful {
			s.reload.InForceSince = last.reload.InForceSince
		}
		if last.adminTLS == nil || s.adminTLS == nil { // only a restart changes whether there is TLS
			s.adminTLS = last.adminTLS
		}
	}
	g.published.Store(s)
	return &s.reload
}

// show describes the current state.
func (g *Gate) show() status.Status {
	last := g.published.Load()
	cfg, totals := last.config, g.Metrics.Totals()
	s := status.Status{
		Time: time.Now(), State: g.state(), ShowsClients: cfg.Admin.ShowClients,
		Build:        g.Build,
		Listeners:    listeners(g.started.Listen, cfg.Policy),
		Policy:       Describe(cfg),
		Certificates: certificatesOf(cfg.TLS),
		CRLs:         crlsOf(cfg.TLS),
		Sessions:     status.Sessions{Open: totals.Open, Starting: totals.Starting},
		Totals: status.Totals{
			Accepted: totals.Accepted, Refused: sorted(totals.Refused), Ended: sorted(totals.Ended), CancelRequests: sorted(totals.CancelRequests),
		},
		Limits: limitsOf(cfg.Policy, g.server.Usage()), Backends: backendStatesOf(g.Metrics.Backends()),
		Reload: last.reload, Refusals: []status.Refusal{},
	}
	for _, r := range g.server.Refusals() {
		s.Refusals = append(s.Refusals, refusalOf(r, s.ShowsClients))
	}
	s.Audit, s.Groups = g.showAudit(), g.showGroups()
	s.Locks, s.LocksTotal = g.showLocks(s.ShowsClients)
	if s.ShowsClients {
		users, rules := make(map[string]uint64), make(map[string]uint64)
		for _, one := range g.server.Snapshot() {
			users[one.User]++
			if one.Rule != "" {
				rules[one.Rule]++
			}
		}
		s.Sessions.Users, s.Sessions.Rules = sorted(users), sorted(rules)
	}
	return s
}

func (g *Gate) state() status.State {
	switch {
	case g.stopping.Load():
		return status.Draining
	case g.ready():
		return status.Ready
	}
	return status.Starting
}

func listeners(addresses []string, p *proxy.Policy) (all []status.Listener) {
	for _, a := range addresses {
		l := status.Listener{Address: a, LoadBalancers: []string{}}
		if from := p.Proxies[a]; from != nil {
			l.LoadBalancers = texts(from.Allowed())
		}
		all = append(all, l)
	}
	return all
}

func certificatesOf(s *tlsconfig.Server) (all []status.Certificate) {
	for _, c := range s.Certificates {
		one := status.Certificate{File: c.File, Subject: c.Subject, Key: c.Key, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
		if !c.StapledUntil.IsZero() {
			one.StapledUntil = &c.StapledUntil
		}
		for _, l := range c.Chain[1:] {
			one.Chain = append(one.Chain, status.Link{Subject: dn.Format(l.RawSubject), NotAfter: l.NotAfter})
		}
		all = append(all, one)
	}
	return all
}

func crlsOf(s *tlsconfig.Server) (all []status.CRL) {
	for _, c := range s.CRLs {
		one := status.CRL{File: c.File, Issuer: c.Issuer, Entries: c.Entries, ThisUpdate: c.ThisUpdate, Kept: c.Kept, Problem: c.Problem}
		if c.Number != nil {
			one.Number = c.Number.String()
		}
		if !c.NextUpdate.IsZero() {
			one.NextUpdate = &c.NextUpdate
		}
		all = append(all, one)
	}
	return all
}

func backendStatesOf(states []health.State) (all []status.Backend) {
	for _, s := range states {
		one := status.Backend{Name: s.Backend, Address: s.Address, Reason: s.Reason}
		if !s.LastSuccess.IsZero() {
			one.LastSuccess = &s.LastSuccess
		}
		if !s.LastFailure.IsZero() {
			one.LastFailure = &s.LastFailure
		}
		all = append(all, one)
	}
	return all
}

func limitsOf(p *proxy.Policy, u proxy.Usage) []status.Limit {
	return []status.Limit{
		{Key: "limits.max_startups", What: "Unproved connections", Used: u.Startups, Of: p.Limits.Startups},
		{Key: "limits.max_connections", What: "Sessions", Used: u.Sessions, Of: p.Limits.Sessions},
		{Key: "limits.max_connections_per_source", What: "Connections of the busiest source", Used: u.PerSource, Of: p.Limits.PerSource},
		{Key: "limits.max_sessions_per_account", What: "Sessions of the busiest user and database", Used: u.PerAccount, Of: p.Limits.PerAccount},
		{Key: "limits.max_cancel_requests", What: "Cancel requests under way", Used: u.CancelRequests, Of: p.MaxCancelRequests},
	}
}

func refusalOf(r proxy.Refused, showClients bool) status.Refusal {
	one := status.Refusal{Time: r.At, Outcome: r.Outcome.String(), Session: r.Session, Listener: r.Listener}
	if showClients {
		one.Source, one.User, one.Database, one.CertSubject, one.Reason = r.Client.String(), r.User, r.Database, r.Subject, r.Reason
	}
	return one
}

// sorted returns the counts, the largest first.
func sorted(counts map[string]uint64) []status.Count {
	all := make([]status.Count, 0, len(counts))
	for name, n := range counts {
		all = append(all, status.Count{Name: name, Count: n})
	}
	slices.SortFunc(all, func(a, b status.Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return all
}
