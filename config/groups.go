package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgwicket/acl"
	"pgwicket/proxy"
	"pgwicket/tlsconfig"
)

// maxGroups bounds the roles that are asked of one backend: each is a label of a metric.
const maxGroups = 100

// maxRole is NAMEDATALEN-1, the length of a name in PostgreSQL.
const maxRole = 63

// Secret is a text that is not printed.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "(secret)" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "(secret)" }

// GroupLookup is how a backend is asked for the members of the roles that rules name with +role.
type GroupLookup struct {
	Backend  string // its name; empty: the default one
	Key      string // of the section, for messages
	User     string
	Database string
	Password Secret // empty: none is sent
	Refresh  time.Duration
	MaxAge   time.Duration // how long an answer holds
	Roles    []string      // sorted, each once
}

// groupUsers returns the roles that the sections name, with which only the gate itself should log in.
func (f *file) groupUsers() (names []string) {
	for _, b := range f.everyBackend() {
		if b.Groups.User != "" && !slices.Contains(names, b.Groups.User) {
			names = append(names, b.Groups.User)
		}
	}
	slices.Sort(names)
	return names
}

func (f *file) everyBackend() map[string]*backend {
	all := map[string]*backend{"": &f.Backend}
	for i := range f.Backends {
		all[f.Backends[i].Name] = &f.Backends[i].backend
	}
	return all
}

// groups checks the sections of groups, and returns those that a rule needs, the default backend's
// first.
func (l *loader) groups(f file, rules *acl.Rules, p *proxy.Policy) (lookups []GroupLookup) {
	if rules == nil && len(f.ACL.Rules) > 0 {
		return nil // another problem says why
	}
	needed := l.neededGroups(f.ACL.Rules, rules)
	check := func(name, key string, b backend) {
		roles := needed[name]
		delete(needed, name)
		if !l.checkGroups(key, b.Groups, roles) {
			return
		}
		lookup := GroupLookup{
			Backend: name, Key: key, User: b.Groups.User, Database: b.Groups.Database, Password: l.groupPassword(key, b.Groups, f.TLS.KeyOwner),
			Refresh: time.Duration(b.Groups.Refresh), MaxAge: time.Duration(b.Groups.MaxAge), Roles: roles,
		}
		lookups = append(lookups, lookup)
	}
	if p.Backend != nil {
		check("", "backend.groups", f.Backend)
	}
	for i, b := range f.Backends {
		key := fmt.Sprintf("backends[%d]", i)
		check(b.Name, key+".groups", withDefaults(l.lines, key, b.backend))
	}
	if len(needed[""]) > 0 { // there is no backend without a name
		l.errorf("acl.rules", "a rule without backend names +%s, and there is no backend section whose groups has the members; add one", needed[""][0])
	}
	return lookups
}

// neededGroups returns the roles that rules name with +role, by the backend of the rule.
func (l *loader) neededGroups(options []acl.RuleOptions, rules *acl.Rules) map[string][]string {
	needed := make(map[string][]string)
	if rules == nil {
		return needed
	}
	for i, rule := range rules.All() {
		roles := slices.Concat(needed[options[i].Backend], rule.Groups())
		slices.Sort(roles)
		needed[options[i].Backend] = slices.Compact(roles)
	}
	return needed
}

// checkGroups checks a section, and reports whether the backend is to be asked.
func (l *loader) checkGroups(key string, g groups, roles []string) bool {
	standard := defaults().Backend.Groups
	switch {
	case g.User == "" && len(roles) > 0:
		l.errorf(key, "is missing, and a rule names +%s: add groups: {user: ROLE} with a role of PostgreSQL that may log in from the gate, to ask for the members", roles[0])
	case g.User == "" && g != standard:
		l.errorf(key+".user", "is missing; name the role of PostgreSQL with which the gate asks for the members of roles")
	case g.User == "":
	case len(g.User) > maxRole:
		l.errorf(key+".user", "%q is longer than a name in PostgreSQL can be (%d bytes)", g.User, maxRole)
	case len(g.Database) > maxRole || g.Database == "":
		l.errorf(key+".database", "%q is not the name of a database; remove it for %s", g.Database, standard.Database)
	case time.Duration(g.Refresh) < time.Second:
		l.errorf(key+".refresh", "is less than 1s, and each look-up is a connection to PostgreSQL")
	case g.MaxAge < 2*g.Refresh:
		l.errorf(key+".max_age", "must be at least twice refresh, or one failed look-up would end sessions")
	case len(roles) == 0:
		l.warnf(key, "has no effect, because no rule of this backend names a role in users, like +dba")
	case len(roles) > maxGroups:
		l.errorf(key, "the rules name %d roles with +, more than %d", len(roles), maxGroups)
	default:
		return true
	}
	return false
}

// groupPassword reads the password of a section; empty: it has none.
func (l *loader) groupPassword(key string, g groups, owner int) Secret {
	if g.PasswordFile == "" {
		return ""
	}
	text, err := tlsconfig.ReadSecret(g.PasswordFile, owner)
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case err != nil:
		l.errorf(key+".password_file", "%v", err)
	case password == "" || strings.ContainsAny(password, "\n\x00"):
		l.errorf(key+".password_file", "%s does not hold one line with the password", g.PasswordFile)
	}
	return Secret(password)
}

// BackendOf returns where the members are asked for.
func (c *Config) BackendOf(g GroupLookup) *proxy.Backend {
	if g.Backend == "" {
		return c.Policy.Backend
	}
	return c.Policy.Backends[g.Backend]
}
