package acl

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// RuleOptions is a rule as it is written in the configuration file. A nil list
// matches everything. An empty list is an error, because it could mean everything or
// nothing.
type RuleOptions struct {
	Name        string             `yaml:"name"`
	Action      string             `yaml:"action"`
	Sources     []string           `yaml:"sources"`
	Listeners   []string           `yaml:"listeners"`
	Databases   []string           `yaml:"databases"`
	Users       []string           `yaml:"users"`
	Certificate CertificateOptions `yaml:"certificate"`
	SNI         []string           `yaml:"sni"`
	Replication string             `yaml:"replication"`
	Backend     string             `yaml:"backend"`
	DatabaseAs  string             `yaml:"database_as"`
	IdleTimeout string             `yaml:"idle_timeout"` // a duration; empty: limits.idle_timeout
	RuleTimes   `yaml:",inline"`

	// Durations; empty: limits.session_lifetime, and any.
	SessionLifetime        string `yaml:"session_lifetime"`
	MaxCertificateLifetime string `yaml:"max_certificate_lifetime"`
	// 0: any number.
	MaxSessions               int `yaml:"max_sessions"`
	MaxSessionsPerCertificate int `yaml:"max_sessions_per_certificate"`
}

// RuleTimes are when a rule is in force; outside of that it matches nothing. From and Until
// are times as in RFC 3339. Weekdays and Hours are of the clock in Timezone.
type RuleTimes struct {
	From     string   `yaml:"from"`
	Until    string   `yaml:"until"`
	Weekdays []string `yaml:"weekdays"`
	Hours    []string `yaml:"hours"`
	Timezone string   `yaml:"timezone"`
}

// CertificateOptions has a pattern for each kind of name in a certificate. Each kind
// that is set must match at least one name.
type CertificateOptions struct {
	CN     string `yaml:"cn"`
	DN     string `yaml:"dn"`
	DNS    string `yaml:"dns"`
	Email  string `yaml:"email"`
	URI    string `yaml:"uri"`
	Issuer string `yaml:"issuer"`
	SPKI   string `yaml:"spki"`
}

// Problem is one mistake in the rules.
type Problem struct {
	Key     string // relative to acl, such as "rules[2].users[0]"
	Text    string
	Warning bool // the rules are usable all the same
}

// NewRules checks and compiles the rules of a configuration. listeners are the
// configured addresses. superusers are the roles that a rule admits only by their
// literal name: where a certificate replaces a password, a pattern must not give
// superuser rights. The same holds for reserved, the roles of the gate itself. The Rules are nil
// if a problem is more than a warning.
func NewRules(options []RuleOptions, listeners, superusers []string, reserved ...string) (*Rules, []Problem) {
	p := &ruleParser{listeners: listeners}
	rules := &Rules{superusers: slices.Clone(superusers), reserved: slices.Clone(reserved)}
	for i, name := range superusers {
		if q, err := parsePattern(name, roleName); err != nil || q.kind != literal || len(name) > maxCN {
			p.errorf(fmt.Sprintf("superusers[%d]", i), "%q is not the name of a role; list superusers one by one, without patterns", name)
		}
	}
	names := map[string]int{}
	for i, o := range options {
		p.key = fmt.Sprintf("rules[%d]", i)
		rule := p.rule(o)
		if rule.Name == "" {
			rule.Name = fmt.Sprintf("rule %d", i+1)
		}
		if first, ok := names[rule.Name]; ok {
			p.errorf(".name", "rule %d has the name %q already; the log shows names, so use another one", first, rule.Name)
		}
		names[rule.Name] = i + 1
		rules.list = append(rules.list, rule)
	}
	if slices.ContainsFunc(p.problems, func(q Problem) bool { return !q.Warning }) {
		return nil, p.problems
	}
	for _, s := range rules.Shadowed() {
		p.key = fmt.Sprintf("rules[%d]", slices.Index(rules.list, s.Rule))
		p.warnf("", "is never used: the earlier rule %q matches every session that it matches; remove it, or move it up", s.By.Name)
	}
	return rules, p.problems
}

type ruleParser struct {
	key       string
	listeners []string
	problems  []Problem
}

func (p *ruleParser) errorf(below, format string, args ...any) {
	p.problems = append(p.problems, Problem{Key: p.key + below, Text: fmt.Sprintf(format, args...)})
}

func (p *ruleParser) warnf(below, format string, args ...any) {
	p.problems = append(p.problems, Problem{Key: p.key + below, Text: fmt.Sprintf(format, args...), Warning: true})
}

func (p *ruleParser) rule(o RuleOptions) *Rule {
	rule := &Rule{Name: o.Name, Backend: o.Backend, DatabaseAs: o.DatabaseAs, MaxSessions: o.MaxSessions, MaxSessionsPerCertificate: o.MaxSessionsPerCertificate}
	p.lifetimes(o, rule)
	switch o.Action {
	case "allow":
		rule.Allow = true
	case "reject":
	case "":
		p.errorf("", "has no action; write action: allow or action: reject")
	default:
		p.errorf(".action", "%q is not known; write allow or reject", o.Action)
	}
	for i, text := range p.entries(".sources", o.Sources) {
		prefix, err := ParsePrefix(text)
		if err != nil {
			p.errorf(fmt.Sprintf(".sources[%d]", i), "%v", err)
		}
		rule.sources = append(rule.sources, prefix)
	}
	for i, text := range p.entries(".listeners", o.Listeners) {
		address := canonical(text)
		if !slices.ContainsFunc(p.listeners, func(l string) bool { return canonical(l) == address }) {
			p.errorf(fmt.Sprintf(".listeners[%d]", i), "%q is not an address of listen, which has %s", text, strings.Join(p.listeners, ", "))
		}
		rule.listeners = append(rule.listeners, address)
	}
	rule.when = p.schedule(o)
	rule.sni = p.patterns(".sni", o.SNI, hostName)
	rule.certificate = p.certificate(o.Certificate)
	rule.databases = p.patterns(".databases", o.Databases, roleName)
	rule.users = p.users(o.Users, rule)
	rule.replication = p.replication(o.Replication)
	if slices.Equal(rule.replication, []Replication{PhysicalReplication}) && rule.databases != nil {
		p.errorf(".databases", "has no effect on physical replication, which has no database; remove it")
	}
	if o.Action == "reject" && (o.Backend != "" || o.DatabaseAs != "" || o.IdleTimeout != "") {
		p.errorf("", "has action: reject, so backend, database_as and idle_timeout have no effect; remove them, or write action: allow")
	}
	if o.IdleTimeout != "" {
		d, err := time.ParseDuration(o.IdleTimeout)
		switch {
		case err == nil && d < 0:
			p.errorf(".idle_timeout", "%q is negative; write a duration like 10s or 5m, or 0s for no limit", o.IdleTimeout)
		case err != nil:
			p.errorf(".idle_timeout", "%q is not a duration; write it with a unit, like 10s or 5m, or 0s for no limit", o.IdleTimeout)
		}
		rule.IdleTimeout = &d
	}
	if len(o.DatabaseAs) > maxCN {
		p.errorf(".database_as", "%q is longer than a name in PostgreSQL can be (%d bytes)", o.DatabaseAs, maxCN)
	}
	if everybody := o.Users == nil || slices.ContainsFunc(rule.users, func(q pattern) bool { return q.any() }); rule.Allow && everybody {
		p.warnf(".users", "admits every user except the superusers; if PostgreSQL asks for no password (peer, trust), "+
			`name the users, or take them from the certificate: samename or \1`)
	}
	return rule
}

// canonical writes an address of listen as net.Listener.Addr returns it: an
// IPv4-mapped address becomes the IPv4 address.
func canonical(address string) string {
	if port, ok := strings.CutPrefix(address, "*:"); ok {
		address = "[::]:" + port
	}
	if a, err := netip.ParseAddrPort(address); err == nil {
		address = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
	}
	return address
}

// entries reports an error for a list that is present but empty.
func (p *ruleParser) entries(below string, list []string) []string {
	if list != nil && len(list) == 0 {
		p.errorf(below, "is empty; remove it to match everything, or add an entry")
	}
	return list
}

// misplacedKeywords are keywords of another key, or of PostgreSQL only. As names they
// would match nothing, so a rule with action: reject would reject nobody.
var misplacedKeywords = map[string]string{
	".databases replication": "is written replication: physical or replication: database here",
	".databases samerole":    "means the members of a role in pg_hba.conf, which only PostgreSQL knows; write the names",
	".databases samegroup":   "means the members of a role in pg_hba.conf, which only PostgreSQL knows; write the names",
	".databases samename":    "is for users; for a database with the name of the user write sameuser",
	".users sameuser":        "is for databases; for the user in the certificate's cn write samename",
}

func (p *ruleParser) patterns(below string, list []string, v nameKind) (out []pattern) {
	for i, text := range p.entries(below, list) {
		out = append(out, p.entry(below, i, text, v))
	}
	return out
}

func (p *ruleParser) entry(below string, i int, text string, v nameKind) pattern {
	key := fmt.Sprintf("%s[%d]", below, i)
	switch why, ok := misplacedKeywords[below+" "+text]; {
	case ok:
		p.errorf(key, "%s %s; if it is a name, write /^%s$", text, why, text)
		return pattern{}
	case below == ".databases" && text == "sameuser", below == ".users" && text == "samename":
		return pattern{kind: same}
	}
	return p.pattern(key, text, v)
}

func (p *ruleParser) pattern(key, text string, v nameKind) pattern {
	q, err := parsePattern(text, v)
	switch {
	case err != nil:
		p.errorf(key, "%q %v", text, err)
	case v == roleName && q.kind == literal && len(text) > maxCN:
		p.errorf(key, "%q is longer than a name in PostgreSQL can be (%d bytes)", text, maxCN)
	case q.unanchored && !q.any():
		p.warnf(key, "%q also matches longer names, as in pg_hba.conf; to match whole names, begin each alternative with ^ and end it with $", text)
	}
	return q
}

func (p *ruleParser) users(list []string, rule *Rule) (out []pattern) {
	bound := len(list) > 0
	for i, text := range p.entries(".users", list) {
		q := pattern{kind: template}
		switch {
		case strings.HasPrefix(text, "+"):
			q = p.group(fmt.Sprintf(".users[%d]", i), text)
		case strings.Contains(text, `\1`) && !strings.ContainsAny(text[:1], "/@"):
			p.checkTemplate(fmt.Sprintf(".users[%d]", i), text, rule.certificate)
			before, after, _ := strings.Cut(text, `\1`)
			q.parts = []string{before, after}
		default:
			q = p.entry(".users", i, text, roleName)
		}
		bound = bound && q.kind == same
		out = append(out, q)
	}
	if bound && rule.certificate == nil {
		// It changes no decision; Trace then reports the missing certificate.
		rule.certificate = []attribute{{kind: "cn", pattern: pattern{kind: everything}}}
	}
	return out
}

// group parses +role, which names one role, as in pg_hba.conf.
func (p *ruleParser) group(key, text string) pattern {
	role := text[1:]
	switch {
	case role == "":
		p.errorf(key, `"+" names no role; write + and the name of one, like +dba`)
	case strings.HasPrefix(role, `"`) && strings.HasSuffix(role, `"`):
		p.errorf(key, `%s has quotes in it, which pg_hba.conf takes away and which would be part of the name here; write '+%s'`, text, strings.Trim(role, `"`))
	case strings.ContainsAny(role, `*\`) || role[0] == '/' || role[0] == '+':
		p.errorf(key, "%q is not + and the name of one role; a role cannot be named by a pattern", text)
	case len(role) > maxCN:
		p.errorf(key, "%q is longer than a name in PostgreSQL can be (%d bytes)", role, maxCN)
	}
	return pattern{kind: group, text: role}
}

func (p *ruleParser) checkTemplate(key, text string, certificate []attribute) {
	groups := 0
	for i := range certificate {
		if certificate[i].captures() {
			groups++
		}
	}
	switch rest := strings.Replace(text, `\1`, "", 1); {
	case strings.ContainsAny(rest, `\*`):
		p.errorf(key, `%q has more than one \1 and plain text`, text)
	case groups == 0:
		p.errorf(key, `%q needs a regular expression with a group in certificate, like cn: /^(.*)@example\.com$`, text)
	case groups > 1:
		p.errorf(key, `%q could mean a group of any of %d regular expressions in certificate; keep the group in one of them`, text, groups)
	}
}

func (p *ruleParser) certificate(o CertificateOptions) (out []attribute) {
	for _, c := range []struct{ kind, text string }{
		{"cn", o.CN}, {"dn", o.DN}, {"dns", o.DNS}, {"email", o.Email}, {"uri", o.URI}, {"issuer", o.Issuer}, {"spki", o.SPKI},
	} {
		if c.text == "" {
			continue
		}
		key := ".certificate." + c.kind
		a := attribute{kind: c.kind}
		switch c.kind {
		case "spki":
			a.pattern = p.pin(key, c.text)
		case "dn", "issuer":
			a.pattern = p.fullName(key, c.text)
		case "dns":
			a.pattern = p.pattern(key, c.text, hostName)
		default:
			a.pattern = p.pattern(key, c.text, anyName)
		}
		out = append(out, a)
	}
	return out
}

// By default, openssl x509 -subject prints spaces and letters that are not ASCII.
// The form of RFC 2253 has neither, and each value has the name of its type.
var (
	otherFormat = regexp.MustCompile(`[^\\][,+] | = |[^ -~]`)
	typedName   = regexp.MustCompile(`^[A-Za-z0-9.]+=`)
)

// fullName parses a pattern for a distinguished name. It warns about the form that
// other programs print, which would match nothing.
func (p *ruleParser) fullName(key, text string) pattern {
	q := p.pattern(key, text, fullName)
	switch q.kind {
	case literal, glob:
		if otherFormat.MatchString(text) || q.kind == literal && !typedName.MatchString(text) {
			p.warnf(key, "%q is not in the form that PostgreSQL prints, and matches nothing; get the name with: "+
				"openssl x509 -in client.crt -noout -subject -issuer -nameopt RFC2253", text)
		}
	}
	return q
}

var colonHex = regexp.MustCompile(`^([0-9A-Fa-f]{2}:)+[0-9A-Fa-f]{2}$`)

// pin parses the SHA-256 of a public key.
func (p *ruleParser) pin(key, text string) pattern {
	digits := strings.ToLower(text)
	if colonHex.MatchString(text) {
		digits = strings.ReplaceAll(digits, ":", "")
	}
	if b, err := hex.DecodeString(digits); err != nil || len(b) != 32 {
		p.errorf(key, "%q is not a SHA-256 in hexadecimal; get it with: openssl x509 -in client.crt -pubkey -noout | "+
			"openssl pkey -pubin -outform DER | openssl dgst -sha256", text)
	}
	return pattern{kind: literal, text: digits}
}

func (p *ruleParser) replication(text string) []Replication {
	switch text {
	case "":
		return nil
	case "none":
		return []Replication{NoReplication}
	case "database":
		return []Replication{LogicalReplication}
	case "physical":
		return []Replication{PhysicalReplication}
	}
	p.errorf(".replication", "%q is not known; write none, database (logical) or physical, or remove it for everything except physical, like all in pg_hba.conf", text)
	return nil
}
