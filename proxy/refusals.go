package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"pgwicket/internal/outcome"
	"pgwicket/internal/printable"
	"pgwicket/internal/refusallog"
)

// Refused is a connection that was turned away, by the gate or by PostgreSQL, or a
// session that the gate has ended for what a new connection would be refused for.
type Refused struct {
	At       time.Time
	Outcome  Outcome
	Session  bool // it had been admitted
	Listener string

	// What follows is the client's, printable and cut.
	Client         netip.AddrPort
	User, Database string
	Subject        string // of its certificate
	Reason         string // more than it was told
}

// textKept bounds each text of a Refused.
const textKept = 200

// summaryInterval is how often the lines that were left out are logged.
const summaryInterval = 10 * time.Second

// refusals remembers the last of them, and bounds how many lines strangers can
// cause in the log. What is left out is counted and logged in summary.
type refusals struct {
	log  *slog.Logger
	kept refusallog.Ring[Refused]
	rate *refusallog.Rate[Outcome]
}

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, rate: refusallog.NewRate[Outcome]()}
}

func (r *refusals) add(one Refused) {
	for _, text := range []*string{&one.User, &one.Database, &one.Subject, &one.Reason} {
		*text = printable.Excerpt(*text, textKept)
	}
	r.kept.Add(one)
}

// rememberRefusal keeps a connection among the refusals, if it is one. Port scans
// and health checks would soon be all of them.
func (s *Server) rememberRefusal(e end) {
	if e.outcome == outcome.Probe || e.outcome >= outcome.ClientClosed {
		return
	}
	p := e.peer
	one := Refused{
		At: time.Now(), Outcome: e.outcome, Session: e.admitted, Listener: p.request.Listener,
		Client: p.source, User: p.request.User, Database: p.request.Database,
	}
	if e.refusal != nil {
		one.Reason = e.refusal.Detail
	} else if sqlstate := e.relayed.Login.SQLSTATE; sqlstate != "" {
		one.Reason = "PostgreSQL says " + sqlstate
	}
	if id := p.request.Certificate; id != nil {
		one.Subject = id.DN
	}
	s.refusals.add(one)
}

// Refusals returns the last hundred, the newest first.
func (s *Server) Refusals() []Refused { return s.refusals.kept.Last() }

// logLeftOut logs how many refusals were not logged one by one.
func (s *Server) logLeftOut() {
	if total, attrs := s.refusals.rate.Summary(); total > 0 {
		s.log.LogAttrs(context.Background(), slog.LevelWarn, "refusals not logged",
			slog.Int("count", total), slog.Attr{Key: "outcomes", Value: slog.GroupValue(attrs...)})
		s.audit.record("refusals not recorded", []slog.Attr{slog.Int("count", total)})
	}
}
