package gate

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"pgwicket/internal/status"
)

// The paths of the back-offs, which only the admin socket serves.
const (
	BackoffsPath     = "/backoffs.json"
	LiftBackoffsPath = "/backoffs/lift" // with user and source in the query; a missing one is any
)

// Backoff is a client that has failed to authenticate, in the answer at BackoffsPath.
type Backoff struct {
	Source   string    `json:"source"` // an address, or a /64 of IPv6, or a /48 that is refused as a whole
	User     string    `json:"user"`
	SPKI     string    `json:"cert_spki"` // of the certificate that it has shown; empty: none
	Failures int       `json:"failures"`  // in a row
	Refused  bool      `json:"refused"`   // until Until
	Until    time.Time `json:"until"`
}

// Lifted is the answer at LiftBackoffsPath.
type Lifted struct {
	Lifted int `json:"lifted"`
}

func (g *Gate) serveBackoffs(w http.ResponseWriter, _ *http.Request) {
	all := []Backoff{}
	for _, b := range g.server.Backoffs() {
		source := b.Source.String()
		if b.Source.IsSingleIP() {
			source = b.Source.Addr().String()
		}
		all = append(all, Backoff{Source: source, User: b.User, SPKI: b.SPKI, Failures: b.Failures, Refused: b.Refused, Until: b.Until.UTC()})
	}
	slices.SortFunc(all, func(a, b Backoff) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Source, b.Source), cmp.Compare(a.SPKI, b.SPKI))
	})
	status.WriteJSON(w, all)
}

func (g *Gate) serveLiftBackoffs(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	user, text := query.Get("user"), query.Get("source")
	var source netip.Addr
	if text != "" {
		var err error
		if source, err = netip.ParseAddr(text); err != nil {
			http.Error(w, "the source is not an IP address", http.StatusBadRequest)
			return
		}
	}
	_ = g.forward(http.MethodPost, LiftBackoffsPath, query, nil) // else it would hand them over at its end
	n := g.server.LiftBackoffs(user, source.Unmap())
	g.Log.Info("back-offs lifted", "user", user, "source", text, "lifted", n)
	status.WriteJSON(w, Lifted{n})
}
