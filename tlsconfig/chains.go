package tlsconfig

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"sync"

	"pgwicket/internal/certs"
)

// chainsLimit bounds for how many clients chains are remembered, at some kilobytes each; sharedLimit bounds the CA
// certificates that they have in common.
const (
	chainsLimit = 16 << 10
	sharedLimit = 256
)

// chains remembers the chains whose signatures are good, by what a client sent. To read certificates and verify signatures
// takes most of the time of a verification, and their result does not change. Nothing else is remembered: the chain is
// looked for each time, and dates, purposes, names and revocation lists are checked each time. A client that is refused
// for one of these is remembered too. The chains belong to the CAs that they end in, and the next verifier takes them over
// if it has the same CAs: after a new revocation list every live session is judged again at once.
//
// The zero value is empty. It may be used by many sessions at once.
type chains struct {
	mu     sync.Mutex
	known  map[[sha256.Size]byte]*path
	shared map[string]*certs.Certificate // CA certificates that clients sent, by their DER
}

// path is what a client sent, and the chain that was found for it. It does not change.
type path struct {
	leaf  *certs.Certificate
	sent  []*certs.Certificate
	chain []*certs.Certificate // whose signatures are good; nil: not known
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

func (s *chains) get(key [sha256.Size]byte) *path {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[key]
}

// read reads what a client sent.
func (s *chains) read(peer []*x509.Certificate) (*path, *VerifyError) {
	size := 0
	for _, c := range peer {
		size += len(c.Raw)
	}
	p := &path{}
	for i, x := range peer {
		s.mu.Lock()
		c := s.shared[string(x.Raw)]
		s.mu.Unlock()
		if c == nil {
			var err error
			if c, err = certs.Parse(x.Raw); err != nil {
				return nil, &VerifyError{Reason: ReasonInvalid, CA: i > 0, Detail: quotedUnless(err)}
			}
		}
		if i == 0 {
			p.leaf = c
		} else {
			p.sent = append(p.sent, c)
		}
	}
	if size > sentLimit {
		return nil, refuse(ReasonInvalid, &certs.Error{Cert: p.leaf},
			tooMuch(len(peer)-1, size))
	}
	return p, nil
}

// remember keeps the chain of a client. When there is no room it forgets that of any other client, which costs that
// client a verification.
func (s *chains) remember(key [sha256.Size]byte, p *path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[[sha256.Size]byte]*path)
		s.shared = make(map[string]*certs.Certificate)
	}
	for other := range s.known {
		if len(s.known) < chainsLimit {
			break
		}
		delete(s.known, other)
	}
	s.known[key] = p
	for i, c := range p.chain {
		if i == 0 || !slices.Contains(p.sent, c) {
			continue
		}
		for other := range s.shared {
			if len(s.shared) < sharedLimit {
				break
			}
			delete(s.shared, other)
		}
		s.shared[string(c.Raw)] = c
	}
}

// inherit takes over the chains of the verifier before, if it had the same CAs and the same anchors. The pool is taken over
// with them, since the chains hold its certificates.
func (v *verifier) inherit(before *verifier) {
	if before.pool != nil && v.pool != nil && v.partialChain == before.partialChain && v.pool.Equal(before.pool) {
		v.chains, v.pool = before.chains, before.pool
	}
}
