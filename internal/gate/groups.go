package gate

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/config"
	"pgwicket/internal/group"
	"pgwicket/internal/phrase"
	"pgwicket/internal/sandbox"
	"pgwicket/internal/socket"
	"pgwicket/internal/status"
	"pgwicket/metrics"
	"pgwicket/proxy"
)

// groups are the look-ups of the members of roles.
type groups struct {
	keepers map[string]*groupKeeper // by backend; locks.mu guards the field, and nobody changes the map
}

// groupKeeper asks one backend.
type groupKeeper struct {
	*group.Keeper
	lookup  config.GroupLookup
	servers string
	problem string // of the last look-up, as logged; only the goroutine of the Keeper uses it
	known   bool   // at the last look; only the goroutine of Gate.wait uses it
}

// groupWait is how long a start or a reload waits for members that are not known.
const groupWait = 5 * time.Second

// keepGroups ends the look-ups so far, begins those of a configuration, and waits for their first
// answers where nothing is known: else a reload that names a role would end the sessions of its
// members.
func (g *Gate) keepGroups(cfg *config.Config) map[string]*groupKeeper {
	g.locks.mu.Lock()
	old := g.groups.keepers
	g.locks.mu.Unlock()
	for _, k := range old {
		k.Stop() // else it could read a REVOKE that the one after it does not know
	}
	keepers := make(map[string]*groupKeeper)
	deadline := time.After(groupWait)
	var awaited []*groupKeeper
	for _, l := range cfg.Groups {
		one := &groupKeeper{lookup: l, servers: strings.Join(Addresses(&proxy.Policy{Backend: cfg.BackendOf(l)}), ",")}
		o := group.Options{Lookup: lookupOf(cfg, l), Refresh: l.Refresh, MaxAge: l.MaxAge, Now: g.Now}
		if before := old[l.Backend]; before != nil && before.servers == one.servers {
			o.Previous, one.known = before.State(), before.known
		}
		o.Asked = func(r group.Result) { g.groupsAsked(one, r) }
		one.Keeper = group.Keep(o)
		keepers[l.Backend] = one
		if known := o.Previous.Members; !known.Knows(l.Roles) || !known.KnownAt(g.Now()) {
			awaited = append(awaited, one)
		}
	}
	for _, one := range awaited {
		select {
		case <-one.First():
		case <-deadline:
			g.Log.Warn("members of roles are not known yet; until then, no rule with +role admits anybody", "backend", one.name())
			return keepers
		}
	}
	return keepers
}

func lookupOf(cfg *config.Config, l config.GroupLookup) group.Lookup {
	return group.Lookup{Backend: cfg.BackendOf(l), User: l.User, Database: l.Database, Password: string(l.Password), Roles: l.Roles}
}

// name is what the log and the metrics call the backend.
func (k *groupKeeper) name() string { return backendLabel(k.lookup.Backend) }

func backendLabel(name string) string {
	if name == "" {
		return "default"
	}
	return name
}

// knownGroups returns the members that are known. The caller holds locks.mu.
func (g *Gate) knownGroups() acl.Groups {
	if len(g.groups.keepers) == 0 {
		return nil
	}
	all := make(acl.Groups)
	for name, k := range g.groups.keepers {
		all[name] = k.Members()
	}
	return all
}

// groupsAsked takes over what a look-up has found.
func (g *Gate) groupsAsked(one *groupKeeper, r group.Result) {
	g.Metrics.GroupLookup(one.name(), r.Err)
	g.logGroups(one, r)
	if r.Err != nil {
		return // the members that are known have an end
	}
	g.locks.mu.Lock()
	defer g.locks.mu.Unlock()
	if g.groups.keepers[one.lookup.Backend] == one { // else a reload will, or has replaced it
		g.putPolicy(r.Renewed)
	}
}

func (g *Gate) logGroups(one *groupKeeper, r group.Result) {
	about := []any{"backend", one.name(), "user", one.lookup.User}
	switch {
	case r.Err != nil && r.Err.Error() != one.problem:
		one.problem = r.Err.Error()
		until := "not known"
		if r.Members.KnownAt(g.Now()) {
			until = r.Members.Until().UTC().Format(time.RFC3339)
		}
		g.Log.Warn("look-up of roles failed", append(about, "error", one.problem, "known_until", until, "retry_in", r.RetryIn.Round(time.Millisecond).String())...)
	case r.Err == nil && (r.Before == nil || one.problem != ""):
		one.problem = ""
		g.Log.Info("members of roles read", append(about, "roles", one.lookup.Roles, "duration", r.Took.Round(time.Millisecond).String())...)
	}
	if r.Err != nil {
		return
	}
	before, now := r.Before.Counts(), r.Members.Counts()
	for _, role := range one.lookup.Roles {
		had, asked := before[role]
		if now[role] == 0 && (!asked || had > 0) {
			g.Log.Warn("a rule names a role that does not exist; names are case-sensitive", append(about, "role", role)...)
		}
		if !asked {
			continue
		}
		joined, left := r.Members.Joined(role, r.Before), r.Before.Joined(role, r.Members)
		if len(joined)+len(left) > 0 {
			attrs := []slog.Attr{slog.String("backend", one.name()), slog.String("role", role), slog.Any("joined", printable(joined)), slog.Any("left", printable(left))}
			g.audit("members changed", attrs...)
			g.Log.LogAttrs(context.Background(), slog.LevelInfo, "members of a role changed", attrs...)
		}
	}
}

// printable returns names for a line of the log, of many not all.
func printable(names []string) []string { return append([]string{}, phrase.Shorten(names)...) }

// followGroups logs when members are no longer known, and sets the metrics.
func (g *Gate) followGroups() {
	g.locks.mu.Lock()
	keepers := g.groups.keepers
	g.locks.mu.Unlock()
	now := g.Now()
	for _, k := range keepers {
		s := k.State()
		known := s.Members.KnownAt(now)
		if k.known && !known {
			g.Log.Error("members of roles are not known any more, as the last answer is older than max_age; no rule with +role admits anybody", "backend", k.name(), "max_age", k.lookup.MaxAge.String())
		}
		k.known = known
		g.Metrics.Groups(metrics.Groups{Backend: k.name(), Known: known, LastSuccess: s.LastSuccess, Members: s.Members.Counts()})
	}
}

// stopGroups ends the look-ups.
func (g *Gate) stopGroups() {
	g.locks.mu.Lock()
	keepers := g.groups.keepers
	g.locks.mu.Unlock()
	for _, k := range keepers {
		k.Stop()
	}
}

// showGroups describes the look-ups for the status page.
func (g *Gate) showGroups() []status.Groups {
	g.locks.mu.Lock()
	keepers := g.groups.keepers
	g.locks.mu.Unlock()
	all := []status.Groups{}
	for _, k := range keepers {
		s := k.State()
		one := status.Groups{Backend: k.name(), User: k.lookup.User, Known: s.Members.KnownAt(g.Now()), Roles: []status.Role{}}
		if !s.LastSuccess.IsZero() {
			one.LastSuccess = &s.LastSuccess
		}
		if until := s.Members.Until(); !until.IsZero() {
			one.KnownUntil = &until
		}
		if s.Err != nil {
			one.Problem = s.Err.Error()
		}
		counts := s.Members.Counts()
		for _, role := range k.lookup.Roles {
			n, asked := counts[role]
			one.Roles = append(one.Roles, status.Role{Name: role, Members: n, Missing: asked && n == 0})
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b status.Groups) int { return strings.Compare(a.Backend, b.Backend) })
	return all
}

// TryGroups asks once for the members that the rules need, as the account of the gate (nil: that of
// this process). It returns those that it got, which have no end, and a warning for each look-up
// that failed and each role that does not exist.
func TryGroups(ctx context.Context, cfg *config.Config, account *sandbox.Account) (acl.Groups, []config.Problem) {
	known := make(acl.Groups)
	var problems []config.Problem
	for _, l := range cfg.Groups {
		warn := func(key, format string, args ...any) {
			problems = append(problems, cfg.Warning(key, fmt.Sprintf(format, args...)))
		}
		lookup := lookupOf(cfg, l)
		if account != nil {
			lookup.Account = socket.Account{UID: account.UID, GID: account.GID, Groups: account.Groups}
		}
		answer, err := lookup.Ask(ctx)
		if err != nil {
			warn(l.Key, "the members of +%s cannot be looked up as %s, so no rule with +role admits anybody: %v", strings.Join(l.Roles, ", +"), l.User, err)
			continue
		}
		known[l.Backend] = acl.NewMembers(answer, time.Time{})
		for _, role := range l.Roles {
			if len(answer[role]) == 0 {
				warn("acl.rules", "a rule names +%s, and PostgreSQL has no such role; names are case-sensitive", role)
			}
		}
	}
	return known, problems
}
