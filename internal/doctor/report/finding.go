// Package report is what doctor finds and how it is written: as text, as JSON, as a page,
// as metrics, and compared with an earlier report. It knows nothing of gates and servers.
package report

import (
	"fmt"
	"strings"

	"pgwicket/internal/printable"
)

// Status is the result of a check.
type Status string

// The statuses, from best to worst. Waived is a finding that a waiver accepts. Skip is a
// check that could not be made. Note is advice that not every server needs: it changes no
// exit status.
const (
	Pass   Status = "pass"
	Waived Status = "waived"
	Skip   Status = "skip"
	Note   Status = "note"
	Warn   Status = "warn"
	Fail   Status = "fail"
)

// Statuses returns all statuses, from best to worst.
func Statuses() []Status { return []Status{Pass, Waived, Skip, Note, Warn, Fail} }

// Severity returns high for a failure, medium for a warning, low for a note, and "" for
// the others.
func (s Status) Severity() string {
	return map[Status]string{Fail: "high", Warn: "medium", Note: "low"}[s]
}

// found reports whether a finding of this status says that something is wrong.
func (s Status) found() bool { return s.Severity() != "" }

// Heading is the part of docs/hardening.md that a check belongs to.
type Heading string

// The headings, from the disk and the network to the row.
const (
	Physical       Heading = "physical access"
	Sockets        Heading = "unix sockets"
	TCP            Heading = "tcp"
	Firewall       Heading = "firewall"
	Transport      Heading = "transport encryption"
	Authentication Heading = "authentication"
	Roles          Heading = "roles"
	DataAccess     Heading = "data access"
	Encryption     Heading = "encryption"
	Log            Heading = "log"
	Settings       Heading = "settings"
	Versions       Heading = "versions"
)

// Headings returns all headings in their order.
func Headings() []Heading {
	return []Heading{Physical, Sockets, TCP, Firewall, Transport, Authentication, Roles, DataAccess, Encryption, Log, Settings, Versions}
}

// MaxNames is how many objects a finding names; it counts the others.
const MaxNames = 10

// Finding is one result of a check. docs/doctor.md describes its JSON.
type Finding struct {
	Group    string   `json:"group"`             // gate, tls, listener, postgresql, machine or doctor
	Subject  string   `json:"subject,omitempty"` // which listener or PostgreSQL
	Check    string   `json:"check"`             // the id of the check; it does not change
	Heading  Heading  `json:"heading"`
	Status   Status   `json:"status"`
	Severity string   `json:"severity,omitempty"` // see Status.Severity
	Reason   string   `json:"reason"`
	Why      string   `json:"why,omitempty"`
	CIS      string   `json:"cis,omitempty"`     // number in the CIS PostgreSQL 17 Benchmark
	Where    string   `json:"where,omitempty"`   // a key of the configuration, a parameter or a file
	Name     string   `json:"name,omitempty"`    // what a waiver calls the place, if Where has the number of a line: see WithName
	Objects  []string `json:"objects,omitempty"` // the first MaxNames
	Count    int      `json:"count,omitempty"`   // of all objects
	Fix      string   `json:"fix,omitempty"`
	Waiver   string   `json:"waiver,omitempty"` // why a waived finding is accepted

	key  string // of the configuration; a warning of the same key is left out
	list *List
}

// Passed returns a finding of a check that has found nothing.
func Passed(format string, args ...any) Finding {
	return Finding{Status: Pass, Reason: fmt.Sprintf(format, args...)}
}

// New returns a finding that is not Pass. fix may be empty if the reason has it.
func New(s Status, where, reason, fix string) Finding {
	return Finding{Status: s, Severity: s.Severity(), Where: where, Reason: reason, Fix: fix, key: where}
}

// WithKey returns the finding with the key of the configuration that it is about, where
// that is not its place.
func (f Finding) WithKey(key string) Finding {
	f.key = key
	return f
}

// WithName returns the finding with what a waiver calls its place: the text of a line, whose number
// changes when other lines come and go.
func (f Finding) WithName(name string) Finding {
	f.Name = printable.Text(name)
	return f
}

// Key returns the key of the configuration that the finding is about, or its place.
func (f Finding) Key() string { return f.key }

// Object is a thing in PostgreSQL that a finding is about. Its texts are fit for a
// terminal.
type Object struct {
	Database string // whose name the Name begins with; empty: it is of the whole cluster
	Name     string
	Connect  string // the psql command that connects to the database
	Fix      string // a statement
}

// List are the objects of a finding. A waiver can take some of them away.
type List struct {
	Reason  string // with {} for the names
	Objects []Object
	More    int    // how many there are besides Objects
	After   string // a statement after those of the objects
}

// NewList returns a finding about objects.
func NewList(s Status, l List) Finding {
	f := New(s, "", "", "")
	f.list = &l
	f.compose()
	return f
}

// compose makes the texts of a finding from its list.
func (f *Finding) compose() {
	l := f.list
	f.Count = len(l.Objects) + l.More
	first := l.Objects[:min(len(l.Objects), MaxNames)]
	f.Objects = nil
	var fixes []string
	connected := ""
	for _, o := range first {
		f.Objects = append(f.Objects, o.Name)
		if o.Fix == "" {
			continue
		}
		if o.Connect != connected {
			fixes = append(fixes, o.Connect)
			connected = o.Connect
		}
		fixes = append(fixes, o.Fix)
	}
	names := strings.Join(f.Objects, ", ")
	if more := f.Count - len(first); more > 0 {
		names += fmt.Sprintf(" and %d more", more)
		fixes = append(fixes, fmt.Sprintf("-- and %d more: run doctor again after this", more))
	}
	if l.After != "" {
		fixes = append(fixes, l.After)
	}
	f.Reason = strings.ReplaceAll(l.Reason, "{}", names)
	f.Fix = strings.Join(fixes, "\n")
}
