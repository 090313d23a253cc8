package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgwicket/internal/pgconf"
)

// correct returns the text of a fix that puts lines in the place of another one. They have
// no options: those of pg_hba_file_rules are not always those of the file, and may be
// secrets.
func correct(rules ...pgconf.Rule) string {
	var lines []string
	for _, r := range rules {
		r.Options = nil
		lines = append(lines, hbaLine(r))
	}
	return "write instead: " + strings.Join(lines, "\n") + "\nselect pg_reload_conf();"
}

// hbaLine returns a rule as a line of pg_hba.conf, with the quotes that hba.c needs.
func hbaLine(r pgconf.Rule) string {
	quote := func(words []string) string {
		var out []string
		for _, w := range words {
			if strings.ContainsAny(w, " ,#\"\t\n") {
				w = `"` + strings.ReplaceAll(w, `"`, `""`) + `"`
			}
			out = append(out, w)
		}
		return strings.Join(out, ",")
	}
	r.Databases, r.Users = []string{quote(r.Databases)}, []string{quote(r.Users)}
	return r.String()
}

// stronger returns a rule with a method that needs a proof: peer over a socket for
// superusers only, otherwise a password.
func (s *server) stronger(r pgconf.Rule) pgconf.Rule {
	supers := s.superuserNames()
	r.Method = "scram-sha-256"
	if r.Type == "local" && !slices.ContainsFunc(r.Users, func(u string) bool { return !slices.Contains(supers, u) }) {
		r.Method = "peer"
	}
	return r
}

// prove returns the fix of a line that asks for no proof, or for a weak one. Nobody is locked out by
// it who can help it: the account of PostgreSQL is still its superuser, and roles without a password, who
// need one from then on, are named.
func (s *server) prove(r pgconf.Rule) string {
	rules := []pgconf.Rule{s.stronger(r)}
	everybody := slices.ContainsFunc(r.Users, func(u string) bool { return u == "all" || strings.HasPrefix(u, "+") })
	own := s.owner()
	if r.Type == "local" && rules[0].Method != "peer" && slices.Contains(s.superuserNames(), own) && (everybody || slices.Contains(r.Users, own)) {
		first := r
		first.Users, first.Method = []string{own}, "peer"
		rules = append([]pgconf.Rule{first}, rules...)
	}
	fix := correct(rules...)
	var without []string
	for _, name := range s.noPassword {
		if (everybody || slices.Contains(r.Users, name)) && (name != own || len(rules) == 1) {
			without = append(without, name)
		}
	}
	if len(without) > 0 && rules[len(rules)-1].Method != "peer" {
		fix = "-- first give those a password (\\password in psql) who log in by this line and have none: " + firstNames(without) + "\n" + fix
	}
	return fix
}

// checkShadowed finds the lines that never decide, because an earlier one matches
// whatever they match. It is sure: a line that it cannot compare is not found.
func (s *server) checkShadowed() (out []Finding) {
	if s.unknown[hbaRules] != "" {
		return s.skipUnknown(hbaRules)
	}
	for j, r := range s.rules {
		i := slices.IndexFunc(s.rules[:j], func(e pgconf.Rule) bool { return covers(e, r) })
		if i < 0 || r.Mistake != "" {
			continue
		}
		status, reason := Note, fmt.Sprintf(`"%s" never decides: "%s" in line %d matches all that it matches`, r, s.rules[i], s.rules[i].Line)
		if r.Method == "reject" && s.rules[i].Method != "reject" {
			status, reason = Warn, fmt.Sprintf(`"%s" rejects nobody: "%s" in line %d admits all that it matches`, r, s.rules[i], s.rules[i].Line)
		}
		out = append(out, finding(status, r.At(), reason, fmt.Sprintf("move it above line %d, or remove it\nselect pg_reload_conf();", s.rules[i].Line)))
	}
	return orPass(out, "every line can decide")
}

// covers reports whether a rule matches every connection that another one matches.
func covers(a, b pgconf.Rule) bool {
	return a.Mistake == "" && (a.Type == b.Type || a.Type == "host" && b.Type != "local") &&
		coversNames(a.Databases, b.Databases, "replication") && coversNames(a.Users, b.Users, "") && coversAddress(a.Address, b.Address)
}

// coversNames compares two lists of databases or roles; all does not stand for except.
func coversNames(a, b []string, except string) bool {
	all := slices.Contains(a, "all")
	return len(a) > 0 && !slices.ContainsFunc(b, func(name string) bool {
		return !slices.Contains(a, name) && (!all || name == except && except != "")
	})
}

func coversAddress(a, b string) bool {
	if a == b || a == "all" {
		return true
	}
	p, err := netip.ParsePrefix(a)
	q, err2 := netip.ParsePrefix(b)
	return err == nil && err2 == nil && p.Bits() <= q.Bits() && p.Contains(q.Addr())
}

// checkHelpers finds the lines whose password goes to another server, unprotected.
func (s *server) checkHelpers() (out []Finding) {
	if s.unknown[hbaRules] != "" {
		return s.skipUnknown(hbaRules)
	}
	for _, r := range s.rules {
		switch {
		case r.Mistake != "":
		case r.Method == "ldap" && !isOn(r.Option("ldaptls")) && r.Option("ldapscheme") != "ldaps" && !strings.HasPrefix(r.Option("ldapurl"), "ldaps:"):
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" sends passwords to the LDAP server in clear`, publicPart(r)), "add to the end of the line: ldaptls=1\nselect pg_reload_conf();"))
		case r.Method == "radius":
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" protects passwords with MD5 only on the way to the RADIUS server (CVE-2024-3596)`, publicPart(r)), s.prove(r)))
		case r.Method == "oauth" && isOn(r.Option("delegate_ident_mapping")):
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" leaves it to the validator which role a token may use`, publicPart(r)), "remove from the line: delegate_ident_mapping=1\nselect pg_reload_conf();"))
		}
	}
	return orPass(out, "no line sends passwords to another server in clear, or leaves the role to it")
}

// isOn reports whether an option is set. pg_hba_file_rules has true for the 1 in the file
// (get_hba_options in src/backend/utils/adt/hbafuncs.c).
func isOn(option string) bool { return option == "1" || option == "true" }

// publicPart returns a rule without its options, which may be secrets.
func publicPart(r pgconf.Rule) string {
	r.Options = nil
	return r.String()
}

// checkNetworkAlone is checkNetwork for a server without a gate: its lines for other
// machines are needed, but not in clear and not from everywhere.
func (s *server) checkNetworkAlone() (out []Finding) {
	_, remote := s.tcp()
	for _, r := range s.rules {
		wide := r.Address == "all"
		if p, err := netip.ParsePrefix(r.Address); err == nil {
			wide = p.Bits() <= half
		}
		switch {
		case r.Mistake != "":
			out = append(out, mistaken(r))
		case !r.Remote() || r.Method == "reject" || !remote:
		case r.Type == "host" || r.Type == "hostnossl":
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" accepts connections in clear`, publicPart(r)), "write hostssl instead of "+r.Type+" in this line\nselect pg_reload_conf();"))
		case wide && slices.Contains(r.Databases, "all") && slices.Contains(r.Users, "all"):
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" admits every address to every role and database`, publicPart(r)), "name the networks, roles and databases of the clients\nselect pg_reload_conf();"))
		}
	}
	return orPass(out, "lines for other machines need TLS and name their clients")
}

// hbaName quotes a name in pg_hba.conf, so that it is not taken for a keyword.
func hbaName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
