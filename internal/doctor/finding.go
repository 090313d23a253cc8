package doctor

import (
	"slices"
	"strings"

	"pgwicket/config"
	"pgwicket/internal/doctor/report"
)

// The shape of what is found is report's.
type (
	// Finding is one result of a check.
	Finding = report.Finding
	// Status is how it ended.
	Status = report.Status
)

// The statuses of report that the checks of this package give.
const (
	Pass = report.Pass
	Skip = report.Skip
	Note = report.Note
	Warn = report.Warn
	Fail = report.Fail
)

func pass(format string, args ...any) Finding { return report.Passed(format, args...) }

// finding returns a finding that is not Pass. fix may be empty if the reason has it.
func finding(s Status, where, reason, fix string) Finding { return report.New(s, where, reason, fix) }

// check examines the state of its group. It returns at least one finding, unless
// another check has reported the same. Its name is its id, which does not change.
type check[S any] struct {
	name string
	run  func(S) []Finding
}

// runChecks runs all checks of a group.
func runChecks[S any](group, subject string, state S, checks []check[S]) (all []Finding) {
	for _, c := range checks {
		of := subjectOf(c.name)
		for _, f := range c.run(state) {
			f.Group, f.Subject, f.Check = group, subject, c.name
			f.Heading, f.CIS, f.Why = of.heading, of.cis, of.why
			if f.Severity == "" {
				f.Severity = f.Status.Severity()
			}
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
		if !slices.ContainsFunc(all, func(f Finding) bool { return f.Status != Pass && f.Key() != "" && isWithin(p.Key, f.Key()) }) {
			warnings = append(warnings, finding(Warn, p.Key, p.Text, ""))
		}
	}
	return append(runChecks("gate", "", 0, []check[int]{{"check", func(int) []Finding { return warnings }}}), all...)
}

// isWithin reports whether a key is the other one or below it.
func isWithin(key, other string) bool {
	rest, ok := strings.CutPrefix(key, other)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
