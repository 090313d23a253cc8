package acl

import (
	"fmt"
	"net/netip"
	"slices"
)

// Replication says what kind of session a startup packet asks for.
type Replication uint8

// The kinds. PostgreSQL takes replication=database for a session like any other
// where pg_hba.conf is concerned: it has a database, and rules for that database
// admit it. Physical replication has none.
const (
	NoReplication Replication = iota
	LogicalReplication
	PhysicalReplication
)

// Request is one session that somebody wants, with all that was proved.
type Request struct {
	Source         netip.Addr
	Listener       string // the address that was connected to, with its port
	User, Database string // as PostgreSQL will take them
	Replication    Replication
	SNI            string
	Certificate    *Identity // nil: none
}

// Rule is one rule of a list.
type Rule struct {
	Name  string
	Line  int // in the configuration file; 0: not known
	Allow bool
	// Backend is where a session goes that the rule admits, and DatabaseAs the
	// database that it gets there; empty: where all go, and what it asks for.
	Backend, DatabaseAs string

	sources     []netip.Prefix
	listeners   []string
	databases   []pattern
	users       []pattern
	certificate []attribute
	sni         []pattern
	replication []Replication // nil: as pg_hba.conf's all
}

// attribute is a kind of name in a certificate, and what it has to match.
type attribute struct {
	kind string
	pattern
}

// Rules is an ordered list of which the first rule that fits a request decides.
// It is immutable and safe for concurrent use.
type Rules struct {
	list       []*Rule
	superusers []string
}

// All returns the rules in their order.
func (r *Rules) All() []*Rule { return r.list }

// Decide returns the rule that decides on a request; nil if none fits, which is
// a refusal.
func (r *Rules) Decide(q *Request) *Rule {
	w := r.wish(q)
	for _, rule := range r.list {
		if rule.lacks(&w) == fits {
			return rule
		}
	}
	return nil
}

// Step is a rule that was asked, and what the request lacked for it; "" for the
// one that decided.
type Step struct {
	Rule  *Rule
	Lacks string
}

// Trace decides as Decide does, and tells how.
func (r *Rules) Trace(q *Request) (steps []Step) {
	w := r.wish(q)
	for _, rule := range r.list {
		missing := rule.lacks(&w)
		steps = append(steps, Step{rule, missing.words(q)})
		if missing == fits {
			break
		}
	}
	return steps
}

// wish is a request in the terms that rules are written in.
type wish struct {
	*Request
	source    netip.Addr // neither IPv4-mapped nor with a zone, or no prefix would hold it
	sni       string     // in lower case
	superuser bool
}

func (r *Rules) wish(q *Request) wish {
	return wish{
		Request:   q,
		source:    q.Source.Unmap().WithZone(""),
		sni:       lower(q.SNI),
		superuser: slices.Contains(r.superusers, q.User),
	}
}

// lack is the first condition of a rule that a request does not meet.
type lack uint8

const (
	fits lack = iota
	lacksSource
	lacksListener
	lacksCertificate
	lacksName
	lacksSNI
	lacksReplication
	lacksDatabase
	lacksUser
	lacksSuperuser
)

func (l lack) words(q *Request) string {
	switch l {
	case lacksSource:
		return fmt.Sprintf("%v is in none of its sources", q.Source)
	case lacksListener:
		return fmt.Sprintf("listener %s is not among its listeners", q.Listener)
	case lacksCertificate:
		return "it wants a certificate, and there is none"
	case lacksName:
		return "the certificate does not match"
	case lacksSNI:
		return fmt.Sprintf("server name %q matches none of its sni", q.SNI)
	case lacksReplication:
		return fmt.Sprintf("it is not for %s", q.Replication)
	case lacksDatabase:
		return fmt.Sprintf("database %q matches none of its databases", q.Database)
	case lacksUser:
		return fmt.Sprintf("user %q matches none of its users", q.User)
	case lacksSuperuser:
		return fmt.Sprintf("%q is one of acl.superusers, whom a rule must name", q.User)
	}
	return ""
}

func (k Replication) String() string {
	return [...]string{"ordinary sessions", "logical replication", "physical replication"}[k]
}

// lacks returns a condition of a rule that a request does not meet.
func (rule *Rule) lacks(w *wish) lack {
	if rule.sources != nil && !contains(rule.sources, w.source) {
		return lacksSource
	}
	if rule.listeners != nil && !slices.Contains(rule.listeners, w.Listener) {
		return lacksListener
	}
	if rule.certificate != nil && w.Certificate == nil {
		return lacksCertificate
	}
	for i := range rule.certificate {
		if !rule.certificate[i].isOf(w.Certificate) {
			return lacksName
		}
	}
	if rule.sni != nil && !anyMatches(rule.sni, w.sni) {
		return lacksSNI
	}
	switch {
	case rule.replication != nil && !slices.Contains(rule.replication, w.Replication),
		rule.replication == nil && rule.Allow && w.Replication == PhysicalReplication: // pg_hba.conf's all
		return lacksReplication
	}
	if rule.databases != nil && !rule.hasDatabase(w) {
		return lacksDatabase
	}
	if rule.users != nil && !rule.hasUser(w) {
		return lacksUser
	}
	if rule.Allow && w.superuser && !rule.namesUser(w.User) {
		return lacksSuperuser
	}
	return fits
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func anyMatches(list []pattern, name string) bool {
	for i := range list {
		if list[i].matches(name) {
			return true
		}
	}
	return false
}

// names returns the names of a kind that a certificate has: those that there can
// be one of, or the others.
func (id *Identity) names(kind string) (one string, several []string) {
	switch kind {
	case "cn":
		one = id.CN
	case "dn":
		one = id.DN
	case "issuer":
		one = id.Issuer
	case "spki":
		one = id.SPKI
	case "dns":
		several = id.DNS
	case "email":
		several = id.Email
	case "uri":
		several = id.URI
	}
	return one, several
}

// isOf says whether a name of the certificate matches. One that is not there is
// not even matched by all.
func (a *attribute) isOf(id *Identity) bool {
	one, several := id.names(a.kind)
	if one != "" && a.matches(one) {
		return true
	}
	for _, name := range several {
		if a.matches(name) {
			return true
		}
	}
	return false
}

// hasDatabase: physical replication is of no database, whatever the client says.
func (rule *Rule) hasDatabase(w *wish) bool {
	for i := range rule.databases {
		switch p := &rule.databases[i]; {
		case p.kind == everything:
			return true // as if databases were left out
		case w.Replication == PhysicalReplication:
		case p.kind == same && w.Database == w.User, p.matches(w.Database):
			return true
		}
	}
	return false
}

func (rule *Rule) hasUser(w *wish) bool {
	for i := range rule.users {
		switch p := &rule.users[i]; p.kind {
		case same:
			if w.Certificate != nil && w.Certificate.CN != "" && w.Certificate.CN == w.User {
				return true
			}
		case template:
			if want, ok := between(w.User, p.parts[0], p.parts[1]); ok && want != "" && rule.captures(w.Certificate, want) {
				return true
			}
		default:
			if p.matches(w.User) {
				return true
			}
		}
	}
	return false
}

// captures says whether \1 is want for one of the certificate's names. What comes
// from the certificate is compared as it is: a common name "all" is not a
// keyword, and "*" no glob.
func (rule *Rule) captures(id *Identity, want string) bool {
	for i := range rule.certificate {
		a := &rule.certificate[i]
		if !a.captures() {
			continue
		}
		one, several := id.names(a.kind)
		if a.finds(one, want) {
			return true
		}
		for _, name := range several {
			if a.finds(name, want) {
				return true
			}
		}
	}
	return false
}

// namesUser says whether the rule names a user outright.
func (rule *Rule) namesUser(user string) bool {
	for i := range rule.users {
		if p := &rule.users[i]; p.kind == literal && p.text == user {
			return true
		}
	}
	return false
}
