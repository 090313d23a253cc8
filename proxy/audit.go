package proxy

import (
	"log/slog"

	"pgwicket/internal/outcome"
)

// auditor is the audit trail, as the server sees it.
type auditor struct {
	record  func(event string, attrs []slog.Attr)
	failing func() error
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
