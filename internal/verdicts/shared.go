package verdicts

import (
	"slices"
	"sync"

	"pgwicket/internal/certs"
)

// sharedLimit bounds the CA certificates that peers have in common.
const sharedLimit = 256

// Shared is CA certificates that peers have sent, each once in memory. The zero value is empty. It may be used by many
// goroutines at once.
type Shared struct {
	mu    sync.Mutex
	byDER map[string]*certs.Certificate
}

// Find returns the certificate; nil if it is not there.
func (s *Shared) Find(der []byte) *certs.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byDER[string(der)]
}

// Add keeps the CA certificates of a verified chain that were sent. When there is no room it forgets any others.
func (s *Shared) Add(chain, sent []*certs.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byDER == nil {
		s.byDER = make(map[string]*certs.Certificate)
	}
	for i, c := range chain {
		if i == 0 || !slices.Contains(sent, c) {
			continue
		}
		for other := range s.byDER {
			if len(s.byDER) < sharedLimit {
				break
			}
			delete(s.byDER, other)
		}
		s.byDER[string(c.Raw)] = c
	}
}

// Replace returns what a peer sent, its own certificate first, with the CA certificates that are here already.
func (s *Shared) Replace(sent [][]byte) [][]byte {
	if len(sent) == 1 {
		return sent
	}
	same := slices.Clone(sent)
	for i, der := range sent[1:] {
		if c := s.Find(der); c != nil {
			same[1+i] = c.Raw
		}
	}
	return same
}
