// Package status is the page that shows a gate: what it is told to do, what it has
// to show to clients and for how long, who is in and who was turned away. Whoever
// serves it fills a Status; the same goes out as JSON.
package status

import (
	"fmt"
	"time"
)

// Status is a gate at a moment. docs/monitoring.md explains every key of it.
// Those that say "derived" are filled in when it is served.
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
	Sessions     Sessions      `json:"sessions"`
	Totals       Totals        `json:"totals"`
	Limits       []Limit       `json:"limits"`
	Reload       Reload        `json:"reload"`
	Refusals     []Refusal     `json:"refusals"` // the newest first
}

// State is what the gate does with newcomers.
type State string

// The states.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Draining State = "draining"
)

// Level says how much something asks for a person.
type Level string

// The levels.
const (
	Good Level = "good"
	Warn Level = "warn" // soon
	Bad  Level = "bad"  // now
)

// Notice is something that asks for a person.
type Notice struct {
	Level Level  `json:"level"`
	Text  string `json:"text"`
}

// Build is what runs, where, and since when.
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
	LoadBalancers []string `json:"load_balancers"` // that must say for whom they speak
}

// Line is one thing that the gate enforces, in words.
type Line struct {
	What string `json:"what"`
	Text string `json:"text"`
}

// Certificate is one of the gate's own.
type Certificate struct {
	File         string     `json:"file"`
	Subject      string     `json:"subject"`
	Key          string     `json:"key"`
	NotBefore    time.Time  `json:"not_before"`
	NotAfter     time.Time  `json:"not_after"`
	DaysLeft     int        `json:"days_left"`               // derived
	Level        Level      `json:"level"`                   // derived
	StapledUntil *time.Time `json:"stapled_until,omitempty"` // nil: no OCSP response that ends
	Chain        []Link     `json:"chain"`
}

// Link is a certificate that is sent behind it.
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
	NextUpdate *time.Time `json:"next_update,omitempty"` // nil: it is good forever
	Kept       bool       `json:"kept"`                  // no longer in its file, which has an older one
	Freshness  int        `json:"freshness_percent"`     // derived: what is left of its time
	Level      Level      `json:"level"`                 // derived
}

// Sessions are those that are open.
type Sessions struct {
	Open     int     `json:"open"`
	Starting int     `json:"starting"`
	Users    []Count `json:"users,omitempty"` // empty unless clients are shown
	Rules    []Count `json:"rules,omitempty"`
}

// Totals count since the start.
type Totals struct {
	Accepted       uint64  `json:"accepted"`
	Refused        []Count `json:"refused"`
	Ended          []Count `json:"ended"`
	CancelRequests []Count `json:"cancel_requests"`
}

// Count is how often something came up, by its name.
type Count struct {
	Name  string `json:"name"`
	Count uint64 `json:"count"`
}

// Limit is a bound, and how near it is. Of 0 is no bound.
type Limit struct {
	Key     string `json:"key"`
	What    string `json:"what"`
	Used    int    `json:"used"`
	Of      int    `json:"of"`
	Percent int    `json:"percent"` // derived
	Level   Level  `json:"level"`   // derived
}

// Reload is the last attempt to load the configuration, the start included.
type Reload struct {
	At           time.Time `json:"at"`
	Trigger      string    `json:"trigger"` // start, signal, files or command
	Successful   bool      `json:"successful"`
	InForceSince time.Time `json:"in_force_since"`
	Files        []string  `json:"files"` // that had changed
	Problems     []Problem `json:"problems"`
}

// Problem is a mistake or a warning that it found.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Key     string `json:"key,omitempty"`
	Text    string `json:"text"`
	Warning bool   `json:"warning"`
}

// Refusal is a client that was turned away. What is the client's own is empty
// unless clients are shown.
type Refusal struct {
	Time        time.Time `json:"time"`
	Outcome     string    `json:"outcome"`
	Session     bool      `json:"session"` // it had been let in
	Listener    string    `json:"listener"`
	Source      string    `json:"source,omitempty"`
	User        string    `json:"user,omitempty"`
	Database    string    `json:"database,omitempty"`
	CertSubject string    `json:"cert_subject,omitempty"`
	Reason      string    `json:"reason,omitempty"`
}

// soon is when the end of a certificate begins to ask for a person, unless it
// lives so short that it always would.
const soon = 14 * 24 * time.Hour

// settle derives what follows from the facts. It writes to copies: the lists may
// be shared.
func (s Status) settle() Status {
	s.Attention = []Notice{}
	s.whole()
	s.attendState()
	s.Certificates = each(s.Certificates, s.settleCertificate)
	for _, c := range s.Certificates {
		s.attendCertificate(c)
	}
	s.CRLs = each(s.CRLs, s.settleCRL)
	for _, c := range s.CRLs {
		s.attendCRL(c)
	}
	s.Limits = each(s.Limits, settleLimit)
	for _, l := range s.Limits {
		if l.Level != Good {
			s.attend(l.Level, "%s: %s of %s (%s)", l.What, number(l.Used), number(l.Of), l.Key)
		}
	}
	return s
}

// each never returns nil, which JSON would write as null.
func each[T any](list []T, change func(T) T) []T {
	out := make([]T, 0, len(list))
	for _, one := range list {
		out = append(out, change(one))
	}
	return out
}

// whole makes every list one, if it is nil.
func (s *Status) whole() {
	s.Listeners, s.Policy, s.Refusals = each(s.Listeners, func(l Listener) Listener {
		l.LoadBalancers = each(l.LoadBalancers, same)
		return l
	}), each(s.Policy, same), each(s.Refusals, same)
	s.Totals.Refused, s.Totals.Ended, s.Totals.CancelRequests = each(s.Totals.Refused, same), each(s.Totals.Ended, same), each(s.Totals.CancelRequests, same)
	s.Reload.Files, s.Reload.Problems = each(s.Reload.Files, same), each(s.Reload.Problems, same)
}

func same[T any](one T) T { return one }

func (s *Status) attend(l Level, format string, args ...any) {
	s.Attention = append(s.Attention, Notice{l, fmt.Sprintf(format, args...)})
}

func (s *Status) attendState() {
	if s.State == Draining {
		s.attend(Warn, "The gate is shutting down; it lets nobody in any more once its listeners are closed")
	}
	if !s.Reload.Successful {
		s.attend(Bad, "The last reload failed %s; the configuration of %s stays in force", ago(s.Reload.At, s.Time), moment(s.Reload.InForceSince))
	}
}

func (s *Status) settleCertificate(c Certificate) Certificate {
	c.DaysLeft, c.Level = s.left(c.NotAfter, min(soon, c.NotAfter.Sub(c.NotBefore)/4))
	c.Chain = each(c.Chain, func(l Link) Link {
		l.DaysLeft, l.Level = s.left(l.NotAfter, soon)
		return l
	})
	return c
}

// left says how long something is still good for, and whether that is less than
// enough.
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

func (s *Status) attendCertificate(c Certificate) {
	if c.Level != Good {
		s.attend(c.Level, "The certificate %s (%s) %s", c.Subject, c.File, ends(c.NotAfter, s.Time))
	}
	for _, l := range c.Chain {
		if l.Level != Good {
			s.attend(l.Level, "%s, in the chain of %s, %s", l.Subject, c.File, ends(l.NotAfter, s.Time))
		}
	}
	if c.StapledUntil != nil && !s.Time.Before(*c.StapledUntil) {
		s.attend(Warn, "The OCSP response for %s has ended and is not sent any more", c.File)
	}
}

func (s *Status) settleCRL(c CRL) CRL {
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

func (s *Status) attendCRL(c CRL) {
	switch {
	case c.Kept:
		s.attend(Warn, "The revocation list of %s in %s is older than the one of before, which is kept", c.Issuer, c.File)
	case c.Level == Bad:
		s.attend(Bad, "The revocation list of %s went stale %s (%s)", c.Issuer, ago(*c.NextUpdate, s.Time), c.File)
	case c.Level == Warn:
		s.attend(Warn, "The revocation list of %s goes stale %s (%s)", c.Issuer, ago(*c.NextUpdate, s.Time), c.File)
	}
}

func settleLimit(l Limit) Limit {
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

// Let is how many sessions there have been.
func (s Status) Let() (n uint64) {
	for _, c := range s.Totals.Ended {
		n += c.Count
	}
	return n + uint64(s.Sessions.Open)
}

// TurnedAway is how many connections were refused, without port scans and health
// checks, which are no clients.
func (s Status) TurnedAway() (n uint64) {
	for _, c := range s.Totals.Refused {
		if c.Name != "probe" {
			n += c.Count
		}
	}
	return n
}

// FirstEnd is the certificate that ends first; nil: there is none.
func (s Status) FirstEnd() *Certificate {
	var first *Certificate
	for i, c := range s.Certificates {
		if first == nil || c.NotAfter.Before(first.NotAfter) {
			first = &s.Certificates[i]
		}
	}
	return first
}

// FirstStale is the list that goes stale first; nil: none does.
func (s Status) FirstStale() *CRL {
	var first *CRL
	for i, c := range s.CRLs {
		if c.NextUpdate != nil && (first == nil || c.NextUpdate.Before(*first.NextUpdate)) {
			first = &s.CRLs[i]
		}
	}
	return first
}

// Headline says it in a sentence.
func (s Status) Headline() string {
	n := len(s.Attention)
	switch {
	case s.State == Draining:
		return "The gate is closing."
	case s.State == Starting:
		return "The gate is about to open."
	case n == 0:
		return "The gate is open."
	case n == 1:
		return "The gate is open. One thing needs attention."
	}
	return fmt.Sprintf("The gate is open. %d things need attention.", n)
}

// Worst is the level of the page.
func (s Status) Worst() Level {
	worst := Good
	for _, n := range s.Attention {
		if n.Level == Bad || worst == Good {
			worst = n.Level
		}
	}
	return worst
}
