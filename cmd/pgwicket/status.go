package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"pgwicket/config"
	"pgwicket/internal/dn"
	"pgwicket/internal/phrase"
	"pgwicket/internal/status"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// shown is what the last load has left for those who ask, in other goroutines
// than the one that loads.
type shown struct {
	config   *config.Config
	adminTLS *tlsconfig.Server // nil: none
	reload   status.Reload
}

// note lets everybody see how a load has gone.
func (g *gate) note(trigger string, successful bool, files []string, problems []config.Problem) *status.Reload {
	now := time.Now()
	last := g.shown.Load()
	s := &shown{config: g.inForce, reload: status.Reload{
		At: now, Trigger: trigger, Successful: successful, InForceSince: now, Files: files, Problems: make([]status.Problem, 0, len(problems)),
	}}
	for _, p := range problems {
		s.reload.Problems = append(s.reload.Problems, status.Problem(p))
	}
	if s.adminTLS = g.inForce.Admin.TLS; last != nil {
		if !successful {
			s.reload.InForceSince = last.reload.InForceSince
		}
		if last.adminTLS == nil || s.adminTLS == nil { // whether there is TLS is for a restart to change
			s.adminTLS = last.adminTLS
		}
	}
	g.shown.Store(s)
	return &s.reload
}

// show describes the gate as it is now.
func (g *gate) show() status.Status {
	last := g.shown.Load()
	cfg, totals := last.config, g.metrics.Totals()
	s := status.Status{
		Time: time.Now(), State: g.state(), ShowsClients: cfg.Admin.ShowClients,
		Build:        g.build,
		Listeners:    listenersOf(g.started.Listen, cfg.Policy),
		Policy:       policyOf(cfg),
		Certificates: certificatesOf(cfg.TLS),
		CRLs:         crlsOf(cfg.TLS),
		Sessions:     status.Sessions{Open: totals.Open, Starting: totals.Starting},
		Totals: status.Totals{
			Accepted: totals.Accepted, Refused: sorted(totals.Refused), Ended: sorted(totals.Ended), CancelRequests: sorted(totals.CancelRequests),
		},
		Limits: limitsOf(cfg.Policy, g.server.Usage()),
		Reload: last.reload, Refusals: []status.Refusal{},
	}
	for _, r := range g.server.Refusals() {
		s.Refusals = append(s.Refusals, refusalOf(r, s.ShowsClients))
	}
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

func (g *gate) state() status.State {
	switch {
	case g.stopping.Load():
		return status.Draining
	case g.ready.Load():
		return status.Ready
	}
	return status.Starting
}

// buildNow is what the page says of this process.
func buildNow(path string) status.Build {
	v, goVersion, platform := buildVersion()
	host, _ := os.Hostname()
	return status.Build{Version: v, Go: goVersion, Platform: platform, Host: host, Config: path, Started: time.Now()}
}

func listenersOf(addresses []string, p *proxy.Policy) (all []status.Listener) {
	for _, a := range addresses {
		l := status.Listener{Address: a, LoadBalancers: []string{}}
		if from := p.Proxies[a]; from != nil {
			l.LoadBalancers = texts(from.Allowed())
		}
		all = append(all, l)
	}
	return all
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

// policyOf says in words what the gate enforces, for check and for the page.
func policyOf(cfg *config.Config) []status.Line {
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
	return text + map[proxy.SourceRefusal]string{
		proxy.Close: "; others are closed without a word", proxy.Reset: "; others are reset", proxy.Explain: "; others are told so, inside TLS",
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
	return text + map[proxy.Recheck]string{
		proxy.Immediate: ", and ended at once", proxy.WhenIdle: ", and ended when they are idle", proxy.Off: ", but only counted",
	}[p.Recheck]
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
		one := status.CRL{File: c.File, Issuer: c.Issuer, Entries: c.Entries, ThisUpdate: c.ThisUpdate, Kept: c.Kept}
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

func limitsOf(p *proxy.Policy, u proxy.Usage) []status.Limit {
	return []status.Limit{
		{Key: "limits.max_connections", What: "Connections", Used: u.Connections, Of: p.Limits.Connections},
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

// sorted has the largest first.
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

// The paths that only the socket serves.
const (
	sessionsPath = "/sessions.json"
	reloadPath   = "/reload"
)

// openSession is a session as «pgwicket sessions --json» prints it.
type openSession struct {
	ID              uint64    `json:"id"`
	Since           time.Time `json:"since"`
	Source          string    `json:"source"`
	Listener        string    `json:"listener"`
	User            string    `json:"user"`
	Database        string    `json:"database"`
	Rule            string    `json:"rule"`
	CertSubject     string    `json:"cert_subject"`
	BytesFromClient int64     `json:"bytes_from_client"`
	BytesToClient   int64     `json:"bytes_to_client"`
}

func (g *gate) serveSessions(w http.ResponseWriter, _ *http.Request) {
	all := []openSession{}
	for _, s := range g.server.Snapshot() {
		all = append(all, openSession{
			ID: s.ID, Since: s.Since.UTC(), Source: s.Client.String(), Listener: s.Listener, User: s.User, Database: s.Database,
			Rule: s.Rule, CertSubject: s.Subject, BytesFromClient: s.FromClient, BytesToClient: s.ToClient,
		})
	}
	slices.SortFunc(all, func(a, b openSession) int { return cmp.Compare(a.ID, b.ID) })
	status.WriteJSON(w, all)
}
