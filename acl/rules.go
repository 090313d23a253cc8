package acl

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Replication is the kind of session that a startup packet asks for.
type Replication uint8

// The kinds of sessions. For pg_hba.conf, PostgreSQL treats replication=database as
// an ordinary session: it has a database, and rules for that database match it.
// Physical replication has no database.
const (
	NoReplication Replication = iota
	LogicalReplication
	PhysicalReplication
)

// Request is what a client asks for, together with what the gate has verified.
type Request struct {
	Source         netip.Addr
	Listener       string // the local address and port of the connection
	Session        string // its id in the log; empty where there is none yet
	User, Database string // as PostgreSQL uses them
	Replication    Replication
	SNI            string
	Certificate    *Identity // nil without a client certificate
	// At is when it is judged. Rules with times match nothing at the zero time.
	At time.Time
}

// Rule is one rule of a list.
type Rule struct {
	Name  string
	Line  int // in the configuration file; 0 if not known
	Allow bool
	// Backend is the name of the backend for sessions of this rule, and DatabaseAs
	// the database that is requested there. Empty means the default backend and the
	// client's database.
	Backend, DatabaseAs string
	// IdleTimeout is when a session that the rule admits ends because it is idle, in
	// a transaction or not; 0: never; nil: the rule says nothing about it.
	IdleTimeout *time.Duration

	sources     []netip.Prefix
	listeners   []string
	databases   []pattern
	users       []pattern
	certificate []attribute
	sni         []pattern
	when        *schedule     // nil: always
	replication []Replication // nil has the meaning of all in pg_hba.conf
}

// attribute is a kind of name in a certificate and the pattern that it must match.
type attribute struct {
	kind string
	pattern
}

// Rules is an ordered list: the first rule that matches a request decides.
// It is immutable and safe for concurrent use.
type Rules struct {
	list       []*Rule
	superusers []string
}

// All returns the rules in their order.
func (r *Rules) All() []*Rule { return r.list }

// Decide returns the first rule that matches the request. It returns nil if none
// does, which means that the request is refused.
func (r *Rules) Decide(q *Request) *Rule {
	w := r.query(q)
	for _, rule := range r.list {
		if rule.firstMismatch(&w) == noMismatch {
			return rule
		}
	}
	return nil
}

// Step is one rule that Trace has evaluated. Mismatch describes the condition that
// the request does not meet; it is empty for the rule that decides.
type Step struct {
	Rule     *Rule
	Mismatch string
}

// Trace evaluates the rules like Decide, and returns every rule up to the one that
// decides.
func (r *Rules) Trace(q *Request) (steps []Step) {
	w := r.query(q)
	for _, rule := range r.list {
		m := rule.firstMismatch(&w)
		steps = append(steps, Step{rule, m.describe(q)})
		if m == noMismatch {
			break
		}
	}
	return steps
}

// query is a request with its names in the form that rules are compared with.
type query struct {
	*Request
	source    netip.Addr // unmapped and without a zone, as netip.Prefix.Contains needs it
	sni       string     // in lower case
	superuser bool
}

func (r *Rules) query(q *Request) query {
	return query{
		Request:   q,
		source:    q.Source.Unmap().WithZone(""),
		sni:       lower(q.SNI),
		superuser: slices.Contains(r.superusers, q.User),
	}
}

// mismatch is the first condition of a rule that a request does not meet.
type mismatch uint8

const (
	noMismatch mismatch = iota
	mismatchSource
	mismatchListener
	mismatchCertificate
	mismatchName
	mismatchSNI
	mismatchReplication
	mismatchDatabase
	mismatchUser
	mismatchSuperuser
	mismatchTime
)

func (m mismatch) describe(q *Request) string {
	switch m {
	case mismatchSource:
		return fmt.Sprintf("%v is not in its sources", q.Source)
	case mismatchListener:
		return fmt.Sprintf("listener %s is not in its listeners", q.Listener)
	case mismatchCertificate:
		return "it requires a certificate, and the client sent none"
	case mismatchName:
		return "the certificate does not match"
	case mismatchSNI:
		return fmt.Sprintf("server name %q does not match its sni", q.SNI)
	case mismatchReplication:
		return fmt.Sprintf("it does not apply to %s", q.Replication)
	case mismatchDatabase:
		return fmt.Sprintf("database %q does not match its databases", q.Database)
	case mismatchUser:
		return fmt.Sprintf("user %q does not match its users", q.User)
	case mismatchSuperuser:
		return fmt.Sprintf("%q is in acl.superusers, and its users do not name it", q.User)
	}
	if m == mismatchTime {
		return "it is not in force at " + q.At.UTC().Format(time.RFC3339)
	}
	return ""
}

func (k Replication) String() string {
	return [...]string{"ordinary sessions", "logical replication", "physical replication"}[k]
}

// firstMismatch returns the first condition that the request does not meet.
func (rule *Rule) firstMismatch(w *query) mismatch {
	if rule.sources != nil && !contains(rule.sources, w.source) {
		return mismatchSource
	}
	if rule.listeners != nil && !slices.Contains(rule.listeners, w.Listener) {
		return mismatchListener
	}
	if rule.certificate != nil && w.Certificate == nil {
		return mismatchCertificate
	}
	for i := range rule.certificate {
		if !rule.certificate[i].matchesIdentity(w.Certificate) {
			return mismatchName
		}
	}
	if rule.sni != nil && !anyMatches(rule.sni, w.sni) {
		return mismatchSNI
	}
	switch {
	case rule.replication != nil && !slices.Contains(rule.replication, w.Replication),
		rule.replication == nil && rule.Allow && w.Replication == PhysicalReplication: // pg_hba.conf's all
		return mismatchReplication
	}
	if rule.databases != nil && !rule.hasDatabase(w) {
		return mismatchDatabase
	}
	if rule.users != nil && !rule.hasUser(w) {
		return mismatchUser
	}
	if rule.Allow && w.superuser && !rule.namesUser(w.User) {
		return mismatchSuperuser
	}
	if !rule.when.holds(w.At) {
		return mismatchTime
	}
	return noMismatch
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

// names returns the names of a kind in a certificate: one for the kinds that have
// one value, several for the others.
func (id *Identity) names(kind string) (one string, several []string) {
	switch kind {
	case "cn":
		one = cmp.Or(id.CN, id.CNText)
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

// matchesIdentity reports whether a name of the certificate matches. A missing
// name matches no pattern, not even all.
func (a *attribute) matchesIdentity(id *Identity) bool {
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

// hasDatabase reports whether a pattern matches the database. Physical replication
// has no database, so what its startup packet names is ignored.
func (rule *Rule) hasDatabase(w *query) bool {
	for i := range rule.databases {
		switch p := &rule.databases[i]; {
		case p.kind == everything:
			return true // like a rule without databases
		case w.Replication == PhysicalReplication:
		case p.kind == same && w.Database == w.User, p.matches(w.Database):
			return true
		}
	}
	return false
}

func (rule *Rule) hasUser(w *query) bool {
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

// captures reports whether \1 equals want for one of the names in the certificate.
// The name is compared literally: a common name "all" is no keyword, and "*" is no
// glob.
func (rule *Rule) captures(id *Identity, want string) bool {
	for i := range rule.certificate {
		a := &rule.certificate[i]
		if !a.captures() {
			continue
		}
		one, several := id.names(a.kind)
		if a.kind == "cn" {
			one = id.CN // the one that a role can have
		}
		if a.capturesValue(one, want) {
			return true
		}
		for _, name := range several {
			if a.capturesValue(name, want) {
				return true
			}
		}
	}
	return false
}

// namesUser reports whether the rule names the user literally, without a pattern.
func (rule *Rule) namesUser(user string) bool {
	for i := range rule.users {
		if p := &rule.users[i]; p.kind == literal && p.text == user {
			return true
		}
	}
	return false
}
