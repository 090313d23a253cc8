package proxy

import (
	"context"
	"maps"
)

// Alive proves that the accept loop of every listener works, by connecting to
// it, and returns an error if one has not completed a round before ctx ends. A server
// that is shutting down has none any more.
func (s *Server) Alive(ctx context.Context) error {
	s.mu.Lock() // that this can be had is part of the proof
	draining := s.shutdown.begun.Load()
	loops := maps.Clone(s.listeners)
	s.mu.Unlock()
	if draining {
		return nil
	}
	for ln, loop := range loops {
		if err := s.probes.Probe(ctx, ln.Addr(), loop.Rounds); err != nil && !s.shutdown.begun.Load() {
			return err
		}
	}
	return nil
}
