package gate

import (
	"cmp"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"pgwicket/internal/lock"
	"pgwicket/internal/phrase"
	"pgwicket/internal/status"
)

// The paths that only the admin socket serves. SessionsPath and TerminatePath take a
// filter (lock.Conditions) in their query, and TerminatePath needs one, and yes for what
// may be a mistake.
const (
	SessionsPath  = "/sessions.json"
	TerminatePath = "/terminate"
	ReloadPath    = "/reload"
)

// OpenSession is an open session in the answer at SessionsPath.
type OpenSession struct {
	ID              string    `json:"id"`
	Since           time.Time `json:"since"`
	IdleSeconds     float64   `json:"idle_seconds"` // since the last byte
	State           string    `json:"state"`
	Source          string    `json:"source"`
	Listener        string    `json:"listener"`
	User            string    `json:"user"`
	Database        string    `json:"database"`
	Application     string    `json:"application_name"`
	Rule            string    `json:"rule"`
	BackendPID      uint32    `json:"backend_pid"`
	CertSubject     string    `json:"cert_subject"`
	CertIssuer      string    `json:"cert_issuer"`
	CertSerial      string    `json:"cert_serial"`
	CertSPKI        string    `json:"cert_spki"`
	BytesFromClient int64     `json:"bytes_from_client"`
	BytesToClient   int64     `json:"bytes_to_client"`
}

// Terminated is the answer at TerminatePath.
type Terminated struct {
	Terminated int `json:"terminated"`
}

func (g *Gate) serveSessions(w http.ResponseWriter, r *http.Request) {
	filter, err := lock.ParseFilter(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	all := []OpenSession{}
	for _, s := range g.server.Snapshot() {
		if !filter.IsZero() && !filter.Matches(s.Request) {
			continue
		}
		one := OpenSession{
			ID: s.ID, Since: s.Since.UTC(), IdleSeconds: s.Idle.Seconds(), State: s.State, Source: s.Client.String(), Listener: s.Listener,
			User: s.User, Database: s.Database, Application: s.Application, Rule: s.Rule, BackendPID: s.BackendPID, CertSubject: s.Subject,
			BytesFromClient: s.FromClient, BytesToClient: s.ToClient,
		}
		if id := s.Request.Certificate; id != nil {
			one.CertIssuer, one.CertSerial, one.CertSPKI = id.Issuer, id.Serial, id.SPKI
		}
		all = append(all, one)
	}
	all = append(all, g.sessionsBefore(r.URL.Query())...)
	slices.SortFunc(all, func(a, b OpenSession) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	status.WriteJSON(w, all)
}

func (g *Gate) serveTerminate(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	filter, err := lock.ParseFilter(query)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if filter.IsZero() {
		http.Error(w, "there is no condition; name what to terminate", http.StatusBadRequest)
		return
	}
	matched, open := g.matching(&filter)
	if doubt := doubtful(&filter, matched, open, "terminate"); doubt != "" && query.Get("yes") == "" {
		http.Error(w, doubt+"; nothing is terminated yet: repeat the command with --yes", http.StatusConflict)
		return
	}
	by := operator(r.Context())
	detail := "terminated by " + by
	if before := g.admin.upgrade.before.Load(); before != nil { // first, for those that are on their way
		before.Terminate(filter.Matches, detail)
	}
	n := g.server.Terminate(filter.Matches, detail)
	others, err := g.terminateBefore(query, by)
	n += others
	if !isForwarded(r.Context()) {
		g.audit("terminated", slog.String("filter", filter.String()), slog.String("by", by), slog.Int("sessions", n))
	}
	g.Log.Warn("sessions terminated", "filter", filter.String(), "by", by, "sessions", n)
	if err != nil {
		refuseForwarded(w, phrase.Count(n, "session")+" terminated", err)
		return
	}
	status.WriteJSON(w, Terminated{n})
}
