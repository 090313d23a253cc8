package proxy

import (
	"fmt"
	"time"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
	"pgwicket/internal/policy"
	"pgwicket/internal/relay"
	"pgwicket/metrics"
)

// usedHost is the host of a session, with the name of its backend.
type usedHost struct {
	*Host
	backend string
	since   time.Time // when the relay got the connection to it
}

func (h usedHost) label() metrics.Host { return metrics.Host{Backend: h.backend, Address: h.Address} }

// leastSilence is how long a backend may send nothing before a client that leaves is its
// fault: PostgreSQL asks for a password, or answers, within milliseconds.
const leastSilence = 2 * time.Second

// silence returns for how long the backend of a session had sent nothing at all when its
// client had left and the relay ended it; 0 if that shows nothing of the backend. With
// libpq's connect_timeout a client leaves long before the gate's own limit.
func (s *session) silence(o Outcome, r relay.Result) time.Duration {
	if o != outcome.ClientClosed && o != outcome.ClientLost || r.ToClient > 0 || r.Login.Asked || r.Login.Authenticated {
		return 0
	}
	if silence := time.Since(s.host.since); silence >= leastSilence {
		return silence
	}
	return 0
}

// recordLogin records what the end of a session before it was ready shows of its
// backend. A refused password shows that PostgreSQL works; a client that leaves before
// it has answered shows nothing, unless it has waited for the first byte in vain.
func (s *session) recordLogin(e *end) {
	h, o, r := s.host.label(), e.outcome, e.relayed
	switch {
	case r.Login.Ready:
	case o == outcome.AuthenticationFailed || o == outcome.OAuthDiscovery:
		s.server.metrics.BackendServed(h)
	case o == outcome.LoginTimeout && r.ToClient == 0:
		s.server.metrics.BackendFailed(h, r.Login.Late(false))
	case e.silence > 0:
		s.server.metrics.BackendFailed(h, pgwire.Silent(e.silence))
	case o == outcome.BackendRefused && pgwire.Unavailable(r.Login.SQLSTATE):
		s.server.metrics.BackendFailed(h, "PostgreSQL refuses sessions with SQLSTATE "+r.Login.SQLSTATE)
	case o == outcome.BackendClosed, o == outcome.BackendLost:
		s.server.metrics.BackendFailed(h, fmt.Sprintf("the connection ended before PostgreSQL was ready (%s)", o))
	}
}

// addressesOf names those of every backend for the metrics.
func addressesOf(p *Policy) (all []metrics.Host) {
	add := func(name string, b *Backend) {
		for _, h := range b.Hosts {
			all = append(all, metrics.Host{Backend: name, Address: h.Address})
		}
	}
	if p.Backend != nil {
		add(policy.MainBackend, p.Backend)
	}
	for name, b := range p.Backends {
		add(name, b)
	}
	return all
}
