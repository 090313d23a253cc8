package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"pgwicket/internal/pgconf"
)

func (s *server) checkTrust() (out []Finding) {
	if s.unknown[hbaRules] != "" {
		return s.skipUnknown(hbaRules)
	}
	for _, r := range s.rules {
		if r.Method == "trust" && r.Mistake == "" {
			out = append(out, finding(Fail, r.At(), fmt.Sprintf(`"%s" accepts every role without authentication`, r), s.prove(r)))
		}
	}
	return orPass(out, "no line has the method trust")
}

// weakMethods are the methods that a line should not have, and why.
var weakMethods = map[string]string{
	"password": "sends the password in clear",
	"md5":      "accepts MD5 passwords, whose stored hash is enough to log in",
	"ident":    "relies on the machine of the client to name the user",
}

func (s *server) checkMethods() (out []Finding) {
	if s.unknown[hbaRules] != "" {
		return s.skipUnknown(hbaRules)
	}
	for _, r := range s.rules {
		why, weak := weakMethods[r.Method]
		if r.Type == "local" && r.Method == "ident" { // means peer
			weak = false
		}
		if weak && r.Mistake == "" {
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" %s`, r, why), "-- first set the passwords again that are not stored as SCRAM: password_encryption finds them\n"+s.prove(r)))
		}
	}
	return orPass(out, "no line has a weak method")
}

func (s *server) checkPasswords() (out []Finding) {
	if v := s.settings["password_encryption"]; v != "scram-sha-256" {
		out = append(out, finding(Warn, "password_encryption", "is "+v+": the stored hash of a new password is enough to log in", s.setting("password_encryption", "'scram-sha-256'")))
	}
	if len(s.md5) > 0 {
		out = append(out, finding(Warn, "pg_authid", "the passwords of "+firstNames(s.md5)+" are stored as MD5, and the hash is enough to log in", `set them again (\password in psql)`))
	}
	return orPass(out, "passwords are stored as scram-sha-256")
}

// checkMappings finds the lines by which another account than root and the owner of
// the server can become a superuser.
func (s *server) checkMappings() (out []Finding) {
	for _, what := range []string{hbaRules, identMappings} {
		if s.unknown[what] != "" && s.usesMaps() {
			return s.skipUnknown(what)
		}
	}
	for _, m := range s.mappings {
		if m.Mistake != "" {
			out = append(out, finding(Warn, m.At(), "PostgreSQL cannot use this line: "+m.Mistake, "correct it"))
			continue
		}
		if m.System == "root" || m.System == s.owner() || !s.usesMap(m.Map) {
			continue
		}
		for _, name := range s.superuserNames() {
			if mapsTo(m, name) {
				out = append(out, finding(Fail, m.At(), fmt.Sprintf("the account %q can become the superuser %q without a password", m.System, name),
					"map it only to the roles that it needs"))
			}
		}
	}
	return orPass(out, "only root and the account of PostgreSQL can become a superuser")
}

func (s *server) usesMaps() bool {
	return s.unknown[hbaRules] != "" || slices.ContainsFunc(s.rules, func(r pgconf.Rule) bool { return r.Option("map") != "" })
}

func (s *server) usesMap(name string) bool {
	return slices.ContainsFunc(s.rules, func(r pgconf.Rule) bool { return r.Option("map") == name })
}

func (s *server) isMapped(name, role string) bool {
	return slices.ContainsFunc(s.mappings, func(m pgconf.Mapping) bool {
		return m.Map == name && m.System != "root" && m.System != s.owner() && mapsTo(m, role)
	})
}

// mapsTo reports whether a line may map an account to a role. One with \1 may to each.
func mapsTo(m pgconf.Mapping, role string) bool {
	return m.Role == "all" || strings.HasPrefix(m.Role, "+") || strings.Contains(m.Role, `\1`) || matchesName(m.Role, role)
}

// matchesName compares with a name or, after a slash, a regular expression. One that Go
// cannot compile counts as a match.
func matchesName(text, name string) bool {
	expression, ok := strings.CutPrefix(text, "/")
	if !ok {
		return text == name
	}
	re, err := regexp.Compile(expression)
	return err != nil || re.MatchString(name)
}

// isFor reports whether a line is for other machines, around the gate, or else for the
// clients of the gate.
func (s *server) isFor(r *pgconf.Rule, around bool) bool {
	switch {
	case around:
		return r.Remote() && (s.backend == nil || !s.backend.isOnly(r))
	case s.backend != nil:
		return s.backend.covers(r)
	}
	return r.Type == "local"
}

// lineFor returns the line that allows a role, from other machines or as the gate connects;
// nil if there is none. Membership is not known, so +group matches each role.
func (s *server) lineFor(name string, remote bool) *pgconf.Rule {
	for i := range s.rules {
		r := &s.rules[i]
		if r.Mistake != "" || !s.isFor(r, remote) {
			continue
		}
		matches := slices.ContainsFunc(r.Users, func(u string) bool { return u == "all" || strings.HasPrefix(u, "+") || matchesName(u, name) })
		switch {
		case !matches:
		case r.Method != "reject":
			return r
		case slices.Contains(r.Databases, "all") && (!remote || r.Address == "all") && !slices.ContainsFunc(r.Users, func(u string) bool { return strings.HasPrefix(u, "+") }):
			return nil
		}
	}
	return nil
}
