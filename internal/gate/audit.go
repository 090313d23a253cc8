package gate

import (
	"log/slog"
	"os"

	"pgwicket/internal/audit"
	"pgwicket/internal/lock"
	"pgwicket/internal/status"
)

// openAudit opens the audit trail, if there is one. Sessions must not have begun.
func (g *Gate) openAudit() error {
	if g.started.AuditFile == "" {
		return nil
	}
	trail, err := audit.Open(g.started.AuditFile, audit.Observer{
		Written: g.Metrics.AuditLines,
		Lost:    g.Metrics.AuditLost,
		Failing: func(err error) {
			g.Metrics.AuditFailing(true)
			g.Log.Error("cannot write the audit trail", "error", err.Error())
		},
		Works: func() {
			g.Metrics.AuditFailing(false)
			g.Log.Info("the audit trail is written again")
		},
		Cut: func(n int64) {
			g.Log.Warn("incomplete last line of the audit trail removed", "file", g.started.AuditFile, "bytes", n)
		},
	})
	if err != nil {
		return err
	}
	g.Metrics.AuditHead(func() (uint64, string) {
		h := trail.Head()
		return h.Sequence, h.Hash
	})
	g.trail.Store(trail)
	return nil
}

// auditStart records that this process serves, and how it came to.
func (g *Gate) auditStart(event string, more ...slog.Attr) {
	g.audit(event, append([]slog.Attr{
		slog.String("version", g.Build.Version), slog.Int("pid", os.Getpid()), slog.String("digest", g.inForce.Settings.Digest()),
	}, more...)...)
	g.auditHeld()
}

// maxHeld is how many locks auditHeld records.
const maxHeld = 100

// auditHeld records the newest locks in force. A gate that was killed between the file of
// the locks and the audit trail has left a lock without its line.
func (g *Gate) auditHeld() {
	held := g.locks.table.Set().At(g.Now())
	for _, l := range held[max(0, len(held)-maxHeld):] {
		g.audit("lock in force", lockAttrs(l, l.By)...)
	}
}

// audit records an event of the gate itself.
func (g *Gate) audit(event string, attrs ...slog.Attr) { g.recordDecision(event, attrs) }

// recordDecision is for the server, which may exist before the trail is open.
func (g *Gate) recordDecision(event string, attrs []slog.Attr) {
	if trail := g.trail.Load(); trail != nil {
		trail.Record(event, attrs)
	}
}

func (g *Gate) auditFailing() error {
	if trail := g.trail.Load(); trail != nil {
		return trail.Err()
	}
	return nil
}

// closeAudit records the end and writes what waits.
func (g *Gate) closeAudit(why string) {
	if trail := g.trail.Load(); trail != nil {
		g.audit("stopped", slog.String("reason", why))
		trail.Close()
	}
}

func (g *Gate) showAudit() *status.Audit {
	trail := g.trail.Load()
	if trail == nil {
		return nil
	}
	h := trail.Head()
	a := &status.Audit{File: g.started.AuditFile, Sequence: h.Sequence, SHA256: h.Hash}
	if err := trail.Err(); err != nil {
		a.Problem = err.Error()
	}
	return a
}

// lockAttrs are what the audit trail says of a lock.
func lockAttrs(l lock.Lock, by string) []slog.Attr {
	return []slog.Attr{
		slog.String("lock", l.ID), slog.String("filter", l.String()), slog.String("until", untilText(l)), slog.String("reason", l.Reason), slog.String("by", by),
	}
}
