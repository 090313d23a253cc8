// Package status renders the status page of a gate: its policy, certificates,
// revocation lists, sessions, limits and last refusals. The caller fills a Status, which
// is served as HTML and as JSON.
package status

import (
	"cmp"
	"fmt"
	"time"
)

// Status is the state of a gate at one time. docs/monitoring.md explains every key.
// Fields marked "derived" are computed when it is served.
type Status struct {
	Time         time.Time     `json:"time"`
	State        State         `json:"state"`
	ShowsClients bool          `json:"shows_clients"`
	Attention    []Notice      `json:"attention"` // derived
	Build        Build         `json:"build"`
	Listeners    []Listener    `json:"listeners"`
	Policy       []Line        `json:"policy"`
	Certificates []Certificate `json:"certificates"`
	CRLs         []CRL         `json:"revocation_lists"`
	Backends     []Backend     `json:"backends"`
	Sessions     Sessions      `json:"sessions"`
	Locks        []Lock        `json:"locks"` // the newest first, of many not all
	LocksTotal   int           `json:"locks_total"`
	Audit        *Audit        `json:"audit,omitempty"` // nil: there is no audit trail
	Groups       []Groups      `json:"groups"`
	Totals       Totals        `json:"totals"`
	Limits       []Limit       `json:"limits"`
	Reload       Reload        `json:"reload"`
	Refusals     []Refusal     `json:"refusals"` // newest first
}

// State tells whether the gate accepts connections.
type State string

// The states.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Draining State = "draining"
)

// Level tells how urgent something is.
type Level string

// The levels.
const (
	Good Level = "good"
	Warn Level = "warn" // soon
	Bad  Level = "bad"  // now
)

// Notice is something that needs attention.
type Notice struct {
	Level Level  `json:"level"`
	Text  string `json:"text"`
}

// Build describes the process: version, platform, host and start.
type Build struct {
	Version  string    `json:"version"`
	Go       string    `json:"go"`
	Platform string    `json:"platform"`
	Host     string    `json:"host"`
	Config   string    `json:"config"`
	Started  time.Time `json:"started"`
}

// Listener is an address that clients connect to.
type Listener struct {
	Address       string   `json:"address"`
	LoadBalancers []string `json:"load_balancers"` // that send PROXY headers
}

// Line describes one part of the policy.
type Line struct {
	What string `json:"what"`
	Text string `json:"text"`
}

// Certificate is a server certificate of the gate.
type Certificate struct {
	File         string     `json:"file"`
	Subject      string     `json:"subject"`
	Key          string     `json:"key"`
	NotBefore    time.Time  `json:"not_before"`
	NotAfter     time.Time  `json:"not_after"`
	DaysLeft     int        `json:"days_left"`               // derived
	Level        Level      `json:"level"`                   // derived
	StapledUntil *time.Time `json:"stapled_until,omitempty"` // nil without an OCSP response that expires
	Chain        []Link     `json:"chain"`
}

// Link is a further certificate of the chain.
type Link struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	DaysLeft int       `json:"days_left"` // derived
	Level    Level     `json:"level"`     // derived
}

// CRL is a revocation list.
type CRL struct {
	File       string     `json:"file"`
	Issuer     string     `json:"issuer"`
	Number     string     `json:"number,omitempty"`
	Entries    int        `json:"entries"`
	ThisUpdate time.Time  `json:"this_update"`
	NextUpdate *time.Time `json:"next_update,omitempty"` // nil if the list has none
	Kept       bool       `json:"kept"`                  // loaded earlier; the file now has an older list, or one that cannot be used
	Problem    string     `json:"problem,omitempty"`     // why the list is not in use; empty if it is
	Freshness  int        `json:"freshness_percent"`     // derived: the time left until the next update
	Level      Level      `json:"level"`                 // derived
}

// Backend is one address at which PostgreSQL listens, as sessions have found it.
type Backend struct {
	Name        string     `json:"name"` // default, or that of a backend that rules name
	Address     string     `json:"address"`
	LastSuccess *time.Time `json:"last_success,omitempty"` // nil: it has served no session yet
	LastFailure *time.Time `json:"last_failure,omitempty"` // nil: none has failed
	Reason      string     `json:"failure,omitempty"`      // why the last one failed
	State       string     `json:"state"`                  // derived: up, down, or unknown before the first session
	Level       Level      `json:"level"`                  // derived
}

// Sessions has the number of open sessions.
type Sessions struct {
	Open     int     `json:"open"`
	Starting int     `json:"starting"`
	Users    []Count `json:"users,omitempty"` // empty unless clients are shown
	Rules    []Count `json:"rules,omitempty"`
}

// Lock is an administrator's refusal of some clients. What it matches and its reason are
// empty unless clients are shown.
type Lock struct {
	ID      string     `json:"id"`
	Filter  string     `json:"filter,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	By      string     `json:"by"`
	Created time.Time  `json:"created"`
	Until   *time.Time `json:"until,omitempty"` // nil: until it is removed
}

// Audit is the newest line of the audit trail.
type Audit struct {
	File     string `json:"file"`
	Sequence uint64 `json:"sequence"`
	SHA256   string `json:"sha256"`
	Problem  string `json:"problem,omitempty"` // why no line can be written; empty: one can
}

// Groups is what is known of the members of roles that rules name, from one backend.
type Groups struct {
	Backend     string     `json:"backend"`     // default, or that of a backend that rules name
	User        string     `json:"lookup_user"` // the role that asks
	Known       bool       `json:"known"`       // false: no rule with +role admits anybody
	KnownUntil  *time.Time `json:"known_until,omitempty"`
	LastSuccess *time.Time `json:"last_success,omitempty"` // nil: none yet
	Problem     string     `json:"problem,omitempty"`      // of the last look-up
	Roles       []Role     `json:"roles"`
}

// Role is a role that rules name.
type Role struct {
	Name    string `json:"name"`
	Members int    `json:"members"` // itself included
	Missing bool   `json:"missing"` // there is no such role
}

// Totals has counts since the start.
type Totals struct {
	Accepted       uint64  `json:"accepted"`
	Refused        []Count `json:"refused"`
	Ended          []Count `json:"ended"`
	CancelRequests []Count `json:"cancel_requests"`
}

// Count is the number of events with one name.
type Count struct {
	Name  string `json:"name"`
	Count uint64 `json:"count"`
}

// Limit is a limit and its current use. If Of is 0, there is no limit.
type Limit struct {
	Key     string `json:"key"`
	What    string `json:"what"`
	Used    int    `json:"used"`
	Of      int    `json:"of"`
	Percent int    `json:"percent"` // derived
	Level   Level  `json:"level"`   // derived
}

// Reload is the last attempt to load the configuration, including the start.
type Reload struct {
	At           time.Time `json:"at"`
	Trigger      string    `json:"trigger"` // start, signal, files or command
	Successful   bool      `json:"successful"`
	InForceSince time.Time `json:"in_force_since"`
	Files        []string  `json:"files"`   // the changed files
	Changes      []string  `json:"changes"` // what a successful one has changed in the configuration
	PutOff       []string  `json:"put_off"` // why it was put off: what it would no longer restrict
	Problems     []Problem `json:"problems"`
}

// Problem is an error or warning of a load.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Key     string `json:"key,omitempty"`
	Text    string `json:"text"`
	Warning bool   `json:"warning"`
}

// Refusal is a refused connection or a terminated session. The fields about the client
// are empty unless clients are shown.
type Refusal struct {
	Time        time.Time `json:"time"`
	Outcome     string    `json:"outcome"`
	Session     bool      `json:"session"` // it was admitted first
	Listener    string    `json:"listener"`
	Source      string    `json:"source,omitempty"`
	User        string    `json:"user,omitempty"`
	Database    string    `json:"database,omitempty"`
	CertSubject string    `json:"cert_subject,omitempty"`
	Reason      string    `json:"reason,omitempty"`
}

// expirySoon is the time before the expiry of a certificate at which a warning starts.
// Certificates with a short lifetime warn later.
const expirySoon = 14 * 24 * time.Hour

// derive computes the derived fields. It writes to copies, because the lists may be
// shared.
func (s Status) derive() Status {
	s.Attention = []Notice{}
	s.copyLists()
	s.notifyState()
	if s.Audit != nil && s.Audit.Problem != "" {
		s.notify(Bad, "The audit trail cannot be written: %s", s.Audit.Problem)
	}
	s.Groups = mapList(s.Groups, same)
	for _, one := range s.Groups {
		s.notifyGroups(one)
	}
	s.Certificates = mapList(s.Certificates, s.deriveCertificate)
	for _, c := range s.Certificates {
		s.notifyCertificate(c)
	}
	s.CRLs = mapList(s.CRLs, s.deriveCRL)
	for _, c := range s.CRLs {
		s.notifyCRL(c)
	}
	s.Backends = mapList(s.Backends, deriveBackend)
	for _, b := range s.Backends {
		s.notifyBackend(b)
	}
	s.Limits = mapList(s.Limits, deriveLimit)
	for _, l := range s.Limits {
		if l.Level != Good {
			s.notify(l.Level, "%s: %s of %s (%s)", l.What, number(l.Used), number(l.Of), l.Key)
		}
	}
	return s
}

// mapList returns a new list. It never returns nil, which JSON would encode as null.
func mapList[T any](list []T, change func(T) T) []T {
	out := make([]T, 0, len(list))
	for _, one := range list {
		out = append(out, change(one))
	}
	return out
}

// copyLists copies all lists, so that none is nil.
func (s *Status) copyLists() {
	s.Listeners, s.Policy, s.Refusals = mapList(s.Listeners, func(l Listener) Listener {
		l.LoadBalancers = mapList(l.LoadBalancers, same)
		return l
	}), mapList(s.Policy, same), mapList(s.Refusals, same)
	s.Locks = mapList(s.Locks, same)
	s.Totals.Refused, s.Totals.Ended, s.Totals.CancelRequests = mapList(s.Totals.Refused, same), mapList(s.Totals.Ended, same), mapList(s.Totals.CancelRequests, same)
	s.Reload.Files, s.Reload.Problems = mapList(s.Reload.Files, same), mapList(s.Reload.Problems, same)
	s.Reload.Changes, s.Reload.PutOff = mapList(s.Reload.Changes, same), mapList(s.Reload.PutOff, same)
}

func same[T any](one T) T { return one }

func (s *Status) notify(l Level, format string, args ...any) {
	s.Attention = append(s.Attention, Notice{l, fmt.Sprintf(format, args...)})
}

func (s *Status) notifyState() {
	if s.State == Draining {
		s.notify(Warn, "The gate is shutting down; it accepts connections until its listeners are closed")
	}
	switch {
	case s.Reload.Successful:
	case len(s.Reload.PutOff) > 0:
		s.notify(Warn, "A reload was put off %s, since it would allow more; run \"pgwicket reload\" if that is intended", ago(s.Reload.At, s.Time))
	default:
		s.notify(Bad, "The last reload failed %s; the configuration of %s is still in force", ago(s.Reload.At, s.Time), moment(s.Reload.InForceSince))
	}
}

func (s *Status) deriveCertificate(c Certificate) Certificate {
	c.DaysLeft, c.Level = s.left(c.NotAfter, min(expirySoon, c.NotAfter.Sub(c.NotBefore)/4))
	c.Chain = mapList(c.Chain, func(l Link) Link {
		l.DaysLeft, l.Level = s.left(l.NotAfter, expirySoon)
		return l
	})
	return c
}

// left returns the whole days until end, and the level: Bad after end, Warn if the time
// left is less than enough.
func (s *Status) left(end time.Time, enough time.Duration) (days int, l Level) {
	d := end.Sub(s.Time)
	switch {
	case d <= 0:
		l = Bad
	case d < enough:
		l = Warn
	default:
		l = Good
	}
	return int(d.Hours() / 24), l
}

func (s *Status) notifyCertificate(c Certificate) {
	if c.Level != Good {
		s.notify(c.Level, "The certificate %s (%s) %s", c.Subject, c.File, expires(c.NotAfter, s.Time))
	}
	for _, l := range c.Chain {
		if l.Level != Good {
			s.notify(l.Level, "%s, in the chain of %s, %s", l.Subject, c.File, expires(l.NotAfter, s.Time))
		}
	}
	if c.StapledUntil != nil && !s.Time.Before(*c.StapledUntil) {
		s.notify(Warn, "The OCSP response for %s has expired and is not sent any more", c.File)
	}
}

func (s *Status) deriveCRL(c CRL) CRL {
	if c.Problem != "" {
		c.Freshness, c.Level = 0, Bad
		return c
	}
	if c.NextUpdate == nil {
		c.Freshness, c.Level = 100, Good
		return c
	}
	period, left := c.NextUpdate.Sub(c.ThisUpdate), c.NextUpdate.Sub(s.Time)
	if period > 0 && left > 0 {
		c.Freshness = min(100, int(100*left/period))
	}
	_, c.Level = s.left(*c.NextUpdate, period/10)
	return c
}

func (s *Status) notifyCRL(c CRL) {
	switch {
	case c.Problem != "":
		s.notify(Bad, "The revocation list of %s in %s is not in use: %s", c.Issuer, c.File, c.Problem)
	case c.Kept:
		s.notify(Warn, "The revocation list of %s in %s is older than the loaded one, or not in use; the loaded one stays in force", c.Issuer, c.File)
	case c.Level == Bad:
		s.notify(Bad, "The revocation list of %s became stale %s (%s)", c.Issuer, ago(*c.NextUpdate, s.Time), c.File)
	case c.Level == Warn:
		s.notify(Warn, "The revocation list of %s becomes stale %s (%s)", c.Issuer, ago(*c.NextUpdate, s.Time), c.File)
	}
}

func (s *Status) notifyGroups(g Groups) {
	switch {
	case !g.Known:
		s.notify(Bad, "The members of roles on backend %s are not known, so no rule with +role admits anybody: %s", g.Backend, cmp.Or(g.Problem, "there is no answer yet"))
	case g.Problem != "":
		s.notify(Warn, "The members of roles on backend %s are those of %s: %s", g.Backend, ago(*g.LastSuccess, s.Time), g.Problem)
	}
	for _, r := range g.Roles {
		if r.Missing {
			s.notify(Warn, "A rule names +%s, and backend %s has no such role", r.Name, g.Backend)
		}
	}
}

func deriveBackend(b Backend) Backend {
	switch {
	case b.LastFailure == nil && b.LastSuccess == nil:
		b.State, b.Level = "unknown", Good
	case b.LastFailure == nil || b.LastSuccess != nil && !b.LastFailure.After(*b.LastSuccess):
		b.State, b.Level = "up", Good
	default:
		b.State, b.Level = "down", Bad
	}
	return b
}

func (s *Status) notifyBackend(b Backend) {
	if b.State != "down" {
		return
	}
	served := "has served none yet"
	if b.LastSuccess != nil {
		served = "served its last session " + ago(*b.LastSuccess, s.Time)
	}
	s.notify(b.Level, "PostgreSQL at %s did not serve a session %s, and %s: %s", b.Address, ago(*b.LastFailure, s.Time), served, b.Reason)
}

func deriveLimit(l Limit) Limit {
	const nearly = 80 // percent
	l.Level = Good
	if l.Of <= 0 {
		return l
	}
	l.Percent = min(100, 100*l.Used/l.Of)
	switch {
	case l.Used >= l.Of:
		l.Level = Bad
	case l.Percent >= nearly:
		l.Level = Warn
	}
	return l
}

// SessionsTotal returns the number of sessions since the start.
func (s Status) SessionsTotal() (n uint64) {
	for _, c := range s.Totals.Ended {
		n += c.Count
	}
	return n + uint64(s.Sessions.Open)
}

// RefusedTotal returns the number of refused connections since the start, without port
// scans and health checks.
func (s Status) RefusedTotal() (n uint64) {
	for _, c := range s.Totals.Refused {
		if c.Name != "probe" {
			n += c.Count
		}
	}
	return n
}

// NextExpiry returns the certificate that expires first, or nil.
func (s Status) NextExpiry() *Certificate {
	var first *Certificate
	for i, c := range s.Certificates {
		if first == nil || c.NotAfter.Before(first.NotAfter) {
			first = &s.Certificates[i]
		}
	}
	return first
}

// NextStale returns the revocation list that becomes stale first, or nil.
func (s Status) NextStale() *CRL {
	var first *CRL
	for i, c := range s.CRLs {
		if c.Problem == "" && c.NextUpdate != nil && (first == nil || c.NextUpdate.Before(*first.NextUpdate)) {
			first = &s.CRLs[i]
		}
	}
	return first
}

// Headline summarizes the state in a sentence.
func (s Status) Headline() string {
	n := len(s.Attention)
	switch {
	case s.State == Draining:
		return "The gate is draining."
	case s.State == Starting:
		return "The gate is starting."
	case n == 0:
		return "The gate is open."
	case n == 1:
		return "The gate is open. One thing needs attention."
	}
	return fmt.Sprintf("The gate is open. %d things need attention.", n)
}

// Worst returns the worst level of the notices.
func (s Status) Worst() Level {
	worst := Good
	for _, n := range s.Attention {
		if n.Level == Bad || worst == Good {
			worst = n.Level
		}
	}
	return worst
}
