package doctor

import (
	"fmt"
	"slices"
	"strings"

	"pgwicket/config"
)

// Status is the result of a check.
type Status string

// The statuses, from best to worst. Skip is a check that could not be made.
const (
	Pass Status = "pass"
	Skip Status = "skip"
	Warn Status = "warn"
	Fail Status = "fail"
)

func statuses() []Status { return []Status{Pass, Skip, Warn, Fail} }

// Finding is one line of a report. The documentation of doctor describes its JSON.
type Finding struct {
	Group   string `json:"group"`             // gate, tls, listener or postgresql
	Subject string `json:"subject,omitempty"` // which listener or PostgreSQL
	Check   string `json:"check"`
	Status  Status `json:"status"`
	Reason  string `json:"reason"`
	Where   string `json:"where,omitempty"` // a key of the configuration, a parameter or a file
	Fix     string `json:"fix,omitempty"`

	key string // of the configuration; a warning of the same key is left out
}

func pass(format string, args ...any) Finding {
	return Finding{Status: Pass, Reason: fmt.Sprintf(format, args...)}
}

// finding returns a finding that is not Pass. fix may be empty if the reason has it.
func finding(s Status, where, reason, fix string) Finding {
	return Finding{Status: s, Where: where, Reason: reason, Fix: fix, key: where}
}

// check examines the state of its group. It returns at least one finding, unless
// another check has reported the same.
type check[S any] struct {
	name string
	run  func(S) []Finding
}

// runChecks runs all checks of a group.
func runChecks[S any](group, subject string, state S, checks []check[S]) (all []Finding) {
	for _, c := range checks {
		for _, f := range c.run(state) {
			f.Group, f.Subject, f.Check = group, subject, c.name
			all = append(all, f)
		}
	}
	return all
}

// orPass returns the findings, or one that passes if there are none.
func orPass(findings []Finding, format string, args ...any) []Finding {
	if len(findings) == 0 {
		findings = []Finding{pass(format, args...)}
	}
	return findings
}

// withWarnings puts the warnings of the configuration before the findings, except
// for those whose key a finding is about.
func withWarnings(all []Finding, problems []config.Problem) []Finding {
	var warnings []Finding
	for _, p := range problems {
		if !slices.ContainsFunc(all, func(f Finding) bool { return f.Status != Pass && f.key != "" && isWithin(p.Key, f.key) }) {
			warnings = append(warnings, Finding{Group: "gate", Check: "check", Status: Warn, Where: p.Key, Reason: p.Text})
		}
	}
	return append(warnings, all...)
}

// isWithin reports whether a key is the other one or below it.
func isWithin(key, other string) bool {
	rest, ok := strings.CutPrefix(key, other)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
