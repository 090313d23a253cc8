package metrics

import (
	"time"

	"pgwicket/internal/health"
)

// Host is one address of a backend. Both values come from the configuration.
type Host = health.Host

// BackendTried counts one attempt of a session to connect to a host; err is why it
// failed.
func (s *Set) BackendTried(h Host, err error) {
	result := "success"
	if err != nil {
		result = "failure"
	}
	s.backends.WithLabelValues(label(h.Backend), label(h.Address), result).Inc()
	if err != nil {
		s.BackendFailed(h, err.Error())
	}
}

// BackendServed records that PostgreSQL at a host has served a session.
func (s *Set) BackendServed(h Host) {
	if now := time.Now(); s.backendStates.Succeeded(h, now) {
		s.backendOK.WithLabelValues(label(h.Backend), label(h.Address)).Set(seconds(now))
		s.backendUp.WithLabelValues(label(h.Backend), label(h.Address)).Set(1)
	}
}

// BackendFailed records why PostgreSQL at a host has not served a session.
func (s *Set) BackendFailed(h Host, reason string) {
	if now := time.Now(); s.backendStates.Failed(h, now, reason) {
		s.backendFailed.WithLabelValues(label(h.Backend), label(h.Address)).Set(seconds(now))
		s.backendUp.WithLabelValues(label(h.Backend), label(h.Address)).Set(0)
	}
}

// Backends returns what sessions have shown of each host, by backend and address.
func (s *Set) Backends() []health.State { return s.backendStates.All() }

// RestoreBackends takes over what the process before this one has returned by Backends, of hosts that are still
// there.
func (s *Set) RestoreBackends(states []health.State) {
	for _, one := range states {
		name, address, up := label(one.Backend), label(one.Address), 1.0
		if one.Down() {
			up = 0
		}
		if !one.LastSuccess.IsZero() && s.backendStates.Succeeded(one.Host, one.LastSuccess) {
			s.backendOK.WithLabelValues(name, address).Set(seconds(one.LastSuccess))
			s.backendUp.WithLabelValues(name, address).Set(up)
		}
		if !one.LastFailure.IsZero() && s.backendStates.Failed(one.Host, one.LastFailure, one.Reason) {
			s.backendFailed.WithLabelValues(name, address).Set(seconds(one.LastFailure))
			s.backendUp.WithLabelValues(name, address).Set(up)
		}
	}
}
