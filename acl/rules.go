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
	// Groups has the members of the roles that rules name with +role.
	Groups Groups
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
	// SessionLifetime is the age at which its sessions end; 0: none; nil: as IdleTimeout.
	SessionLifetime *time.Duration
	// MaxSessions is how many sessions it admits at the same time, and
	// MaxSessionsPerCertificate how many of one public key; 0: any number.
	MaxSessions, MaxSessionsPerCertificate int

	sources     []netip.Prefix
	listeners   []string
	databases   []pattern
	users       []pattern
	certificate []attribute
	sni         []pattern
	when        *schedule     // nil: always
	maxCertLife time.Duration // of the client's certificate, from its beginning to its end; 0: any
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
	list                 []*Rule
	superusers, reserved []string
}

// All returns the rules in their order.
func (r *Rules) All() []*Rule { return r.list }

// Decide returns the first rule that matches the request. It returns nil if none
// does, which means that the request is refused. The same holds if an earlier rule may match, as its
// role is not known, and would send the session elsewhere: to another backend or database. A rule
// that names the user literally is not concerned.
func (r *Rules) Decide(q *Request) *Rule {
	w := r.query(q)
	for _, rule := range r.list {
		switch w.next(rule) {
		case noMismatch:
			return rule
		case mismatchElsewhere:
			return nil
		}
	}
	return nil
}

// next is firstMismatch for the rule after those that next has been asked about.
func (w *query) next(rule *Rule) mismatch {
	m := rule.firstMismatch(w)
	switch {
	case m == mismatchUnknown && !w.superuser && !w.reserved && rule.when.holds(w.At):
		w.possible = append(w.possible, rule)
	case m == noMismatch && rule.Allow && !rule.namesUser(w.User) && slices.ContainsFunc(w.possible, func(p *Rule) bool {
		return p.Backend != rule.Backend || p.DatabaseAs != rule.DatabaseAs
	}):
		return mismatchElsewhere
	}
	return m
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
		m := w.next(rule)
		steps = append(steps, Step{rule, m.describe(q)})
		if m == noMismatch || m == mismatchElsewhere {
			break
		}
	}
	return steps
}

// query is a request with its names in the form that rules are compared with.
type query struct {
	*Request
	source              netip.Addr // unmapped and without a zone, as netip.Prefix.Contains needs it
	sni                 string     // in lower case
	superuser, reserved bool
	possible            []*Rule // that match if the user is a member of a role that is not known
}

func (r *Rules) query(q *Request) query {
	return query{
		Request:   q,
		source:    q.Source.Unmap().WithZone(""),
		sni:       lower(q.SNI),
		superuser: slices.Contains(r.superusers, q.User),
		reserved:  slices.Contains(r.reserved, q.User),
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
	mismatchUnknown
	mismatchElsewhere
	mismatchSuperuser
	mismatchReserved
	mismatchTime
	mismatchLifetime
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
	case mismatchUnknown:
		return "the members of a role in its users are not known now"
	case mismatchElsewhere:
		return "an earlier rule with another backend or database_as may fit, as the members of a role in its users are not known now"
	case mismatchReserved:
		return fmt.Sprintf("%q is the user of groups, and its users do not name it", q.User)
	case mismatchSuperuser:
		return fmt.Sprintf("%q is in acl.superusers, and its users do not name it", q.User)
	}
	if m == mismatchLifetime {
		return fmt.Sprintf("the certificate is valid for %v, longer than its max_certificate_lifetime", q.Certificate.Lifetime)
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
	switch {
	case rule.maxCertLife == 0:
	case w.Certificate == nil:
		return mismatchCertificate
	case w.Certificate.Lifetime <= 0 || w.Certificate.Lifetime > rule.maxCertLife:
		return mismatchLifetime
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
	if m := rule.userMismatch(w); m != noMismatch {
		return m
	}
	if !rule.when.holds(w.At) {
		return mismatchTime
	}
	return noMismatch
}

// userMismatch is firstMismatch for the user. A rule that allows does not match one who may be a
// member of a role, and a rule that rejects does: neither admits by what is not known.
func (rule *Rule) userMismatch(w *query) mismatch {
	if rule.users != nil {
		switch matches, unknown := rule.hasUser(w); {
		case matches:
		case !unknown:
			return mismatchUser
		case rule.Allow:
			return mismatchUnknown
		}
	}
	switch {
	case !rule.Allow, !w.superuser && !w.reserved, rule.namesUser(w.User):
		return noMismatch
	case w.superuser:
		return mismatchSuperuser
	}
	return mismatchReserved
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

// hasUser reports whether an entry matches the user, or else whether one may: a role whose members
// are not known.
func (rule *Rule) hasUser(w *query) (matches, unknown bool) {
	for i := range rule.users {
		switch p := &rule.users[i]; p.kind {
		case same:
			matches = w.Certificate != nil && w.Certificate.CN != "" && w.Certificate.CN == w.User
		case template:
			want, ok := between(w.User, p.parts[0], p.parts[1])
			matches = ok && want != "" && rule.captures(w.Certificate, want)
		case group:
			member, known := w.Groups[rule.Backend].has(p.text, w.User, w.At)
			matches, unknown = member, unknown || !known
		default:
			matches = p.matches(w.User)
		}
		if matches {
			return true, false
		}
	}
	return false, unknown
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
