package proxy

import (
	"log/slog"

	"pgwicket/internal/outcome"
)

// auditor is the audit trail, as the server sees it.
type auditor struct {
	keep    func(event string, attrs []slog.Attr) // nil: there is none
	failing func() error
}

// kept reports whether there is a trail, so that nothing is prepared for none.
func (a auditor) kept() bool { return a.keep != nil }

func (a auditor) record(event string, attrs []slog.Attr) {
	if a.kept() {
		a.keep(event, attrs)
	}
}

// admits refuses a new session that the audit trail could not show, if it must.
func (a auditor) admits(p *Policy) error {
	if !p.AuditRequired {
		return nil
	}
	if err := a.failing(); err != nil {
		return refuse(outcome.AuditUnavailable, err.Error())
	}
	return nil
}
