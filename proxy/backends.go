package proxy

import (
	"fmt"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
	"pgwicket/metrics"
)

// usedHost is the host of a session, with the name of its backend.
type usedHost struct {
	*Host
	backend string
}

func (h usedHost) label() metrics.Host { return metrics.Host{Backend: h.backend, Address: h.Address} }

// recordLogin records what the end of a session before it was ready shows of its
// backend. A refused password shows that PostgreSQL works; a client that leaves before
// it has answered shows nothing.
func (s *session) recordLogin(o Outcome, r relay.Result) {
	h := s.host.label()
	switch {
	case r.Login.Ready:
	case o == outcome.AuthenticationFailed || o == outcome.OAuthDiscovery:
		s.server.metrics.BackendServed(h)
	case o == outcome.LoginTimeout && r.ToClient == 0:
		s.server.metrics.BackendFailed(h, r.Login.Late(false))
	case o == outcome.BackendRefused && pgwire.Unavailable(r.Login.SQLSTATE):
		s.server.metrics.BackendFailed(h, "PostgreSQL refuses sessions with SQLSTATE "+r.Login.SQLSTATE)
	case o == outcome.BackendClosed, o == outcome.BackendLost:
		s.server.metrics.BackendFailed(h, fmt.Sprintf("the connection ended before PostgreSQL was ready (%s)", o))
	}
}
