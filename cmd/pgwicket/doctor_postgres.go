package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"pgwicket/internal/pgconf"
)

// checks are those that there is something to ask for: where PostgreSQL could not
// be examined, its socket still shows who gets at it.
func (s *server) checks() []inspection[*server] {
	asked := []inspection[*server]{
		{"examined", (*server).checkExamined},
		{"unix_socket", (*server).checkSockets},
	}
	if s.asked == "" {
		return asked
	}
	return append(asked, []inspection[*server]{
		{"listen_addresses", (*server).checkListenAddresses},
		{"pg_hba_network", (*server).checkNetwork},
		{"pg_hba_trust", (*server).checkTrust},
		{"pg_hba_method", (*server).checkMethods},
		{"pg_ident", (*server).checkMappings},
		{"superusers", (*server).checkSuperusers},
		{"without_password", (*server).checkWithoutPassword},
		{"password_encryption", (*server).checkPasswords},
		{"ssl", (*server).checkSSL},
		{"log_connections", (*server).checkLog},
	}...)
}

func (s *server) checkExamined() []finding {
	if s.asked == "" {
		return []finding{{
			Status: skip, Reason: "PostgreSQL could not be examined: " + s.unasked,
			Fix: "run this where PostgreSQL runs, as an account and --user that pg_hba.conf admits, or name the directory of its postgresql.conf with --pg-conf",
		}}
	}
	return []finding{well("%s", s.asked)}
}

// cannotTell is what a check says that needs what was not found out.
func (s *server) cannotTell(what string) []finding {
	return []finding{{
		Status: skip, Where: what, Reason: s.unknown[what],
		Fix: "connect as a superuser (--user), over the socket",
	}}
}

// checkSockets: on a Unix socket, who may enter its directory and write to it is
// who may go round the gate.
func (s *server) checkSockets() (out []finding) {
	for _, f := range s.sockets {
		out = append(out, f.check()...)
	}
	for i, f := range s.sockets {
		same := slices.IndexFunc(s.sockets[:i], func(e socketFacts) bool {
			return e.trouble == "" && e.dir != 0 && e.group == f.group && f.trouble == ""
		})
		if same >= 0 && f.dir != 0 && f.dir.Perm()&0o007 == 0 && f.dir.Perm()&0o010 != 0 {
			out = append(out, socketFinding(warn, fmt.Sprintf("%s and %s are open to one group (%s), so they separate nobody", s.sockets[same].path, f.path, f.group),
				"give the directory of each application a group of its own"))
		}
	}
	return allPassed(out, "only %s to PostgreSQL's socket", s.whoReaches())
}

func (s *server) whoReaches() string {
	var who []string
	for _, f := range s.sockets {
		one := f.owner
		if f.dir.Perm()&0o010 != 0 && f.socket&0o022 != 0 || f.dir.Perm()&0o001 != 0 {
			one += " and the group " + f.group
		}
		if !slices.Contains(who, one) {
			who = append(who, one)
		}
	}
	if len(who) == 0 {
		return "root gets"
	}
	return strings.Join(who, ", ") + " and root get"
}

func socketFinding(status verdict, reason, fix string) finding {
	f := found(status, "unix_socket_directories", reason, fix)
	f.key = "backend.host"
	return f
}

func (f socketFacts) check() (out []finding) {
	dir, _, _ := strings.Cut(f.path, "/.s.PGSQL.")
	const closed = "make a directory of PostgreSQL's account and pgwicket's group, of mode 0750, and name it in unix_socket_directories and backend.host"
	switch {
	case strings.HasPrefix(f.path, "@"):
		return append(out, socketFinding(fail, f.path+" is an abstract name, which has no permissions: every account of this machine can connect", closed))
	case f.trouble != "":
		return append(out, socketFinding(skip, f.trouble, "start PostgreSQL, and run this as an account that may enter the directory"))
	}
	mode := fmt.Sprintf("%s (%s:%s, mode %04o)", dir, f.owner, f.group, f.dir.Perm())
	switch {
	case f.dir.Perm()&0o002 != 0:
		out = append(out, socketFinding(fail, mode+" can be written by everybody, who can put a PostgreSQL of his own there", closed))
	case f.dir.Perm()&0o020 != 0:
		out = append(out, socketFinding(warn, mode+" can be written by its group, which can put a PostgreSQL of its own there", "chmod g-w "+dir))
	}
	if f.dir.Perm()&0o001 != 0 && f.socket&0o002 != 0 {
		out = append(out, socketFinding(fail, fmt.Sprintf("every account of this machine can reach %s (mode %04o) past the gate", f.path, f.socket),
			"chmod 0750 "+dir+", with the group of pgwicket, or set unix_socket_permissions = 0770 and unix_socket_group"))
	}
	if f.ownedByOther {
		out = append(out, socketFinding(warn, mode+" does not belong to PostgreSQL's account, so that another one decides who enters", "chown it to PostgreSQL's account"))
	}
	return out
}

// tcp says how far the server listens on TCP; where that is not known, as far as
// can be.
func (s *server) tcp() (anywhere, remote bool) {
	setting, known := s.settings["listen_addresses"]
	if !known {
		return true, true
	}
	for _, a := range list(setting) {
		anywhere = true
		remote = remote || !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, a)
	}
	return anywhere, remote
}

const noTCP = "listen_addresses = '' in postgresql.conf, and restart PostgreSQL"

func (s *server) checkListenAddresses() []finding {
	setting := s.settings["listen_addresses"]
	anywhere, remote := s.tcp()
	switch {
	case !anywhere:
		return []finding{well("PostgreSQL listens on no TCP address")}
	case slices.ContainsFunc(list(setting), func(a string) bool { return slices.Contains([]string{"*", "0.0.0.0", "::"}, a) }):
		return []finding{found(fail, "listen_addresses", fmt.Sprintf("PostgreSQL listens on every network of its machine (%s), and clients can go round the gate", setting), noTCP)}
	case remote:
		return []finding{found(warn, "listen_addresses", fmt.Sprintf("PostgreSQL listens on %s, where clients may go round the gate", setting), noTCP)}
	}
	return []finding{found(warn, "listen_addresses", fmt.Sprintf("PostgreSQL listens on %s, where every account of its machine can go round the gate", setting), noTCP)}
}

// checkNetwork finds the lines that let other machines in.
func (s *server) checkNetwork() (out []finding) {
	if s.unknown[theRules] != "" {
		return s.cannotTell(theRules)
	}
	_, remote := s.tcp()
	for _, r := range s.rules {
		switch {
		case r.Mistake != "":
			out = append(out, found(warn, r.At(), "PostgreSQL cannot use this line: "+r.Mistake, "correct it: with a mistake in it the file is not loaded"))
		case !r.Remote() || r.Method == "reject":
		case remote:
			out = append(out, found(fail, r.At(), fmt.Sprintf("«%s» lets other machines in past the gate", r), "remove the line, and reload PostgreSQL"))
		default:
			out = append(out, found(warn, r.At(), fmt.Sprintf("«%s» would let other machines in past the gate, once PostgreSQL listens", r), "remove the line, and reload PostgreSQL"))
		}
	}
	return allPassed(out, "no line is for other machines")
}

func (s *server) checkTrust() (out []finding) {
	if s.unknown[theRules] != "" {
		return s.cannotTell(theRules)
	}
	for _, r := range s.rules {
		if r.Method == "trust" && r.Mistake == "" {
			out = append(out, found(fail, r.At(), fmt.Sprintf("«%s» believes whatever role somebody names", r), "write peer or scram-sha-256 instead of trust, and reload PostgreSQL"))
		}
	}
	return allPassed(out, "no line trusts")
}

// weakMethods are what a line should not have, and why.
var weakMethods = map[string]string{
	"password": "has the password sent as it is",
	"md5":      "admits MD5 passwords, which are as good as the password to whoever reads them in the database",
	"ident":    "asks the client's machine who the user is, and believes it",
}

func (s *server) checkMethods() (out []finding) {
	if s.unknown[theRules] != "" {
		return s.cannotTell(theRules)
	}
	for _, r := range s.rules {
		why, weak := weakMethods[r.Method]
		if r.Type == "local" && r.Method == "ident" { // means peer
			weak = false
		}
		if weak && r.Mistake == "" {
			out = append(out, found(warn, r.At(), fmt.Sprintf("«%s» %s", r, why), "write scram-sha-256, once every password is kept in that form, and reload PostgreSQL"))
		}
	}
	return allPassed(out, "no line has a weak method")
}

// superusers are the roles that may do everything; without them, what initdb makes.
func (s *server) superusers() (names []string) {
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

// checkMappings finds the lines that make a superuser of an account that is not one
// by itself: root and the owner of the server.
func (s *server) checkMappings() (out []finding) {
	for _, what := range []string{theRules, theMappings} {
		if s.unknown[what] != "" && s.usesMaps() {
			return s.cannotTell(what)
		}
	}
	for _, m := range s.mappings {
		if m.Mistake != "" {
			out = append(out, found(warn, m.At(), "PostgreSQL cannot use this line: "+m.Mistake, "correct it"))
			continue
		}
		if m.System == "root" || m.System == s.owner() || !s.usesMap(m.Map) {
			continue
		}
		for _, name := range s.superusers() {
			if mapsTo(m, name) {
				out = append(out, found(fail, m.At(), fmt.Sprintf("the account %q may become the superuser %q without a password", m.System, name),
					"name the roles that it needs, and no superuser"))
			}
		}
	}
	return allPassed(out, "no account but root and PostgreSQL's own may become a superuser")
}

// owner is the account that PostgreSQL runs under, by its sockets' directories.
func (s *server) owner() string {
	for _, f := range s.sockets {
		if f.owner != "" && f.owner != "root" {
			return f.owner
		}
	}
	return "postgres"
}

func (s *server) usesMaps() bool {
	return s.unknown[theRules] != "" || slices.ContainsFunc(s.rules, func(r pgconf.Rule) bool { return r.Option("map") != "" })
}

func (s *server) usesMap(name string) bool {
	return slices.ContainsFunc(s.rules, func(r pgconf.Rule) bool { return r.Option("map") == name })
}

// mapsTo says whether a line may lead to a role: with \1 in it, to each.
func mapsTo(m pgconf.Mapping, role string) bool {
	return m.Role == "all" || strings.HasPrefix(m.Role, "+") || strings.Contains(m.Role, `\1`) || matchesName(m.Role, role)
}

// matchesName reads a name or, behind a slash, a regular expression. One that Go cannot
// read counts as a match.
func matchesName(text, name string) bool {
	expression, ok := strings.CutPrefix(text, "/")
	if !ok {
		return text == name
	}
	re, err := regexp.Compile(expression)
	return err != nil || re.MatchString(name)
}

// way returns the line by which a role comes in, from other machines or over the
// socket; nil if there is none. Who is in a group is not asked, so it counts.
func (s *server) way(name string, remote bool) *pgconf.Rule {
	for i := range s.rules {
		r := &s.rules[i]
		if r.Mistake != "" || remote && !r.Remote() || !remote && r.Type != "local" {
			continue
		}
		fits := slices.ContainsFunc(r.Users, func(u string) bool { return u == "all" || strings.HasPrefix(u, "+") || matchesName(u, name) })
		switch {
		case !fits:
		case r.Method != "reject":
			return r
		case slices.Contains(r.Databases, "all") && (!remote || r.Address == "all") && !slices.ContainsFunc(r.Users, func(u string) bool { return strings.HasPrefix(u, "+") }):
			return nil
		}
	}
	return nil
}

// checkSuperusers: nobody should become one from another machine, past the gate or
// through it, unless a rule says so by name.
func (s *server) checkSuperusers() (out []finding) {
	for _, what := range []string{theRules, theRoles} {
		if s.unknown[what] != "" {
			return s.cannotTell(what)
		}
	}
	_, remote := s.tcp()
	for _, name := range s.superusers() {
		if r := s.way(name, true); r != nil && remote {
			out = append(out, found(fail, r.At(), fmt.Sprintf("«%s» lets the superuser %q in from other machines, past the gate", r, name), "remove the line, or put one with reject before it"))
		}
		if r := s.way(name, false); r != nil && r.Method != "peer" && r.Method != "trust" { // which others have found
			out = append(out, s.throughTheGate(name, r)...)
		}
	}
	return allPassed(out, "none of %s comes in from another machine but by a rule that names it", plural(len(s.superusers()), "superuser"))
}

func (s *server) throughTheGate(name string, r *pgconf.Rule) []finding {
	by := ""
	if rules := s.gate.rules; rules != nil {
		rule := rules.MayAdmit(name)
		if rule == nil || rule.Names(name) {
			return nil
		}
		by = fmt.Sprintf("rule %q and ", rule.Name)
	}
	return []finding{found(warn, "acl.superusers", fmt.Sprintf("%s«%s» let somebody with the password of the superuser %q in from other machines", by, r, name),
		fmt.Sprintf("write rules, with %q among acl.superusers, or let it in by peer only", name))}
}

// checkWithoutPassword finds the roles that need nothing to be: whom a line trusts,
// and those that the gate's account may open where the gate asks for no proof.
func (s *server) checkWithoutPassword() []finding {
	for _, what := range []string{theRules, theRoles} {
		if s.unknown[what] != "" {
			return s.cannotTell(what)
		}
	}
	trusted, mapped := map[string][]string{}, map[string][]string{}
	_, remote := s.tcp()
	for _, role := range s.roles {
		for _, far := range []bool{false, true} {
			r := s.way(role.name, far)
			switch {
			case r == nil || far && !remote:
			case r.Method == "trust":
				trusted[r.At()] = append(trusted[r.At()], role.name)
			case r.Method == "peer" && r.Option("map") != "" && s.gate.rules == nil && s.isMapped(r.Option("map"), role.name):
				mapped[r.At()] = append(mapped[r.At()], role.name)
			}
		}
	}
	var out []finding
	for _, r := range s.rules {
		if names := trusted[r.At()]; names != nil {
			out = append(out, found(fail, r.At(), few(names)+" can be had without a password", "write peer or scram-sha-256 instead of trust"))
		}
		if names := mapped[r.At()]; names != nil {
			out = append(out, found(fail, r.At(), "PostgreSQL takes the gate's word for "+few(names)+", and the gate has no rules that bind them to certificates",
				"write acl.rules (docs/security.md, «The certificate instead of a password»)"))
		}
	}
	return allPassed(out, "every role takes a password, an account of its own or a rule of the gate")
}

func (s *server) isMapped(name, role string) bool {
	return slices.ContainsFunc(s.mappings, func(m pgconf.Mapping) bool {
		return m.Map == name && m.System != "root" && m.System != s.owner() && mapsTo(m, role)
	})
}

// few names the first of them.
func few(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func (s *server) checkPasswords() (out []finding) {
	if v := s.settings["password_encryption"]; v != "scram-sha-256" {
		out = append(out, found(warn, "password_encryption", "is "+v+": new passwords are kept in a form that is as good as the password", "password_encryption = scram-sha-256"))
	}
	if len(s.md5) > 0 {
		out = append(out, found(warn, "pg_authid", "the passwords of "+few(s.md5)+" are kept as MD5, which is as good as the password to whoever reads it", `set them anew (\password in psql)`))
	}
	return allPassed(out, "passwords are kept as scram-sha-256")
}

// weakCiphers are the words of an OpenSSL list that let in what nobody should use.
var weakCiphers = regexp.MustCompile(`(?i)(^|[:, ])(MEDIUM|LOW|EXP(ORT)?|ALL|[ae]?NULL|3DES|DES|RC4|MD5|SEED|IDEA|COMPLEMENTOFALL)\b`)

// checkSSL is about the TLS that PostgreSQL still speaks itself.
func (s *server) checkSSL() (out []finding) {
	anywhere, remote := s.tcp()
	if !anywhere {
		return []finding{well("PostgreSQL needs no TLS: it listens on no TCP address")}
	}
	if s.settings["ssl"] != "on" {
		status := warn
		if remote {
			status = fail
		}
		return []finding{found(status, "ssl", "is off: what reaches PostgreSQL by TCP comes in clear", noTCP+"; or ssl = on")}
	}
	if v := s.settings["ssl_min_protocol_version"]; v != "TLSv1.2" && v != "TLSv1.3" {
		out = append(out, found(fail, "ssl_min_protocol_version", fmt.Sprintf("is %q: versions before TLSv1.2 are out of use (RFC 8996)", v), "ssl_min_protocol_version = TLSv1.2"))
	}
	if word := weakCiphers.FindString(s.settings["ssl_ciphers"]); word != "" {
		out = append(out, found(warn, "ssl_ciphers", fmt.Sprintf("has %s in %q", strings.Trim(word, ":, "), s.settings["ssl_ciphers"]), "ssl_ciphers = 'HIGH:!aNULL:!3DES'"))
	}
	return allPassed(out, "PostgreSQL's own TLS is as it should be")
}

// checkLog: release 18 has a list where the others have a boolean.
func (s *server) checkLog() []finding {
	switch v := s.settings["log_connections"]; v {
	case "", "off", "false", "no", "0":
		return []finding{found(warn, "log_connections", "is off: a session that went round the gate leaves no trace", "log_connections = on")}
	}
	return []finding{well("PostgreSQL logs its connections, to be compared with the gate's log")}
}
