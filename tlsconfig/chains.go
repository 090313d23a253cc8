package tlsconfig

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"
)

// chainsLimit bounds for how many clients chains are remembered, at some hundred bytes each.
const chainsLimit = 16 << 10

// chains remembers which chains x509 has found for what a client sent. To verify the signatures takes most of the time of
// a verification, and their result does not change. Nothing else is remembered: dates, purposes and revocation lists are
// checked each time. The chains belong to the CAs that they end in, and the next verifier takes them over if it has the
// same CAs: after a new revocation list every live session is judged again at once.
//
// The zero value is empty. It may be used by many sessions at once.
type chains struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte][][]*x509.Certificate // without the client's own, which it brings each time
}

// chainKey is a hash of what a client sent: each certificate, in order, to the last byte.
func chainKey(peer []*x509.Certificate) (key [sha256.Size]byte) {
	h := sha256.New()
	for _, c := range peer {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(c.Raw))))
		h.Write(c.Raw)
	}
	h.Sum(key[:0])
	return key
}

// inDate returns the known chains of a client of which every certificate is valid at that time. If there is none, x509
// may still find another one.
func (s *chains) inDate(key [sha256.Size]byte, client *x509.Certificate, at time.Time) (good [][]*x509.Certificate) {
	s.mu.Lock()
	found := s.known[key]
	s.mu.Unlock()
	for _, above := range found {
		if chain := append([]*x509.Certificate{client}, above...); chainInDate(chain, at) {
			good = append(good, chain)
		}
	}
	return good
}

func chainInDate(chain []*x509.Certificate, at time.Time) bool {
	for _, c := range chain {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return false
		}
	}
	return true
}

// remember keeps the chains of a client. When there is no room it forgets those of any other client, which costs that
// client a verification.
func (s *chains) remember(key [sha256.Size]byte, found [][]*x509.Certificate) {
	var above [][]*x509.Certificate
	for _, chain := range found {
		above = append(above, slices.Clone(chain[1:]))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[[sha256.Size]byte][][]*x509.Certificate)
	}
	for other := range s.known {
		if len(s.known) < chainsLimit {
			break
		}
		delete(s.known, other)
	}
	s.known[key] = above
}

// inherit takes over the chains of the verifier before, if it had the same CAs and the same anchors.
func (v *verifier) inherit(before *verifier) {
	if maps.Equal(v.anchors, before.anchors) && slices.EqualFunc(v.ca, before.ca, (*x509.Certificate).Equal) {
		v.chains = before.chains
	}
}
