package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgwicket/internal/pgconf"
	"pgwicket/internal/phrase"
)

type pgRole struct {
	name  string
	super bool
}

// superuserNames returns the superusers; if roles are not known, that of initdb.
func (s *server) superuserNames() (names []string) {
	for _, r := range s.roles {
		if r.super {
			names = append(names, r.name)
		}
	}
	if names == nil {
		names = []string{"postgres"}
	}
	return names
}

// checkSuperusers finds superusers that can log in from another machine, around the
// gate or through it, unless a rule names them.
func (s *server) checkSuperusers() (out []Finding) {
	for _, what := range []string{hbaRules, roleList} {
		if s.unknown[what] != "" {
			return s.skipUnknown(what)
		}
	}
	_, remote := s.tcp()
	for _, name := range s.superuserNames() {
		if r := s.lineFor(name, true); r != nil && remote && s.alone {
			out = append(out, finding(Warn, r.At(), fmt.Sprintf(`"%s" allows the superuser %q from other machines`, r, name), "put a line before it: host all "+hbaName(name)+" all reject\nselect pg_reload_conf();"))
			continue
		} else if r != nil && remote {
			out = append(out, finding(Fail, r.At(), fmt.Sprintf(`"%s" allows the superuser %q from other machines, around the gate`, r, name), "remove the line, or put a line with reject before it"))
		}
		if r := s.lineFor(name, false); !s.alone && r != nil && r.Method != "peer" && r.Method != "trust" { // other checks report these
			out = append(out, s.superuserThroughGate(name, r)...)
		}
	}
	if s.alone {
		return orPass(out, "none of %s can log in from another machine", phrase.Count(len(s.superuserNames()), "superuser"))
	}
	return orPass(out, "none of %s can log in from another machine without a rule that names it", phrase.Count(len(s.superuserNames()), "superuser"))
}

func (s *server) superuserThroughGate(name string, r *pgconf.Rule) []Finding {
	by := ""
	if rules := s.gate.rules; rules != nil {
		rule := rules.MayAdmit(name)
		if rule == nil || rule.Names(name) {
			return nil
		}
		by = fmt.Sprintf("rule %q and ", rule.Name)
	}
	return []Finding{finding(Warn, "acl.superusers", fmt.Sprintf(`%s"%s" allow the superuser %q from other machines, by password`, by, r, name),
		fmt.Sprintf("set acl.rules with %q in acl.superusers, or allow it by peer only", name))}
}

// checkWithoutPassword finds the roles that need no password: those of lines with
// trust, and those that the account of the gate is mapped to while no rule of the gate
// asks for a certificate.
func (s *server) checkWithoutPassword() []Finding {
	for _, what := range []string{hbaRules, roleList} {
		if s.unknown[what] != "" {
			return s.skipUnknown(what)
		}
	}
	trusted, mapped, unbound := map[string][]string{}, map[string][]string{}, map[string][]string{}
	_, remote := s.tcp()
	for _, role := range s.roles {
		for _, fromNetwork := range []bool{false, true} {
			r := s.lineFor(role.name, fromNetwork)
			switch {
			case r == nil || fromNetwork && !remote:
			case r.Method == "trust":
				trusted[r.At()] = append(trusted[r.At()], role.name)
			case (r.Method == "peer" || r.Method == "cert") && r.Option("map") != "" && !fromNetwork && !s.alone && s.isMapped(r.Option("map"), role.name):
				if s.gate.rules == nil {
					mapped[r.At()] = append(mapped[r.At()], role.name)
				} else if rule := s.gate.rules.MayAdmitUnbound(role.name); rule != nil {
					unbound[rule.Name] = append(unbound[rule.Name], role.name)
				}
			}
		}
	}
	var out []Finding
	for _, r := range s.rules {
		if names := trusted[r.At()]; names != nil {
			out = append(out, finding(Fail, r.At(), firstNames(names)+" can log in without a password", "use peer or scram-sha-256 instead of trust"))
		}
		if names := mapped[r.At()]; names != nil {
			out = append(out, finding(Fail, r.At(), "the gate can log in as "+firstNames(names)+" without a password, and has no rules that bind them to certificates",
				`set acl.rules (docs/security.md, "The certificate instead of a password")`))
		}
	}
	for _, rule := range slices.Sorted(maps.Keys(unbound)) {
		out = append(out, finding(Warn, "acl.rules", fmt.Sprintf("rule %q may admit any client as %s, and PostgreSQL asks the gate for no password (peer or cert with a map)", rule, firstNames(unbound[rule])),
			`write samename or \1 in users, or one cn, dns, uri or spki in certificate (docs/security.md, "The certificate instead of a password")`))
	}
	return orPass(out, "every role needs a password or its own account")
}

// firstNames joins the first names of a list.
func firstNames(names []string) string {
	const limit = 5
	if len(names) > limit {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), len(names)-limit)
	}
	return strings.Join(names, ", ")
}
