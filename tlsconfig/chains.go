package tlsconfig

import (
	"bytes"
	"crypto/x509"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"

	"pgwicket/internal/certs"
)

// The limits of what is remembered: for how many clients, and how many bytes their certificates have, which take some three
// times as much when they are read. sharedLimit bounds the CA certificates that they have in common.
const (
	chainsLimit    = 16 << 10
	chainsSize     = 8 << 20
	strangersLimit = 64
	strangersSize  = 128 << 10
	sharedLimit    = 256
)

// chains remembers the chains whose signatures are good, by what a client sent. To read certificates and verify signatures
// takes most of the time of a verification, and their result does not change. Nothing else is remembered: the chain is
// looked for each time, and dates, purposes, names and revocation lists are checked each time. A client that is refused
// for one of these is remembered too. The chains belong to the CAs that they end in, and the next verifier takes them over
// if it has the same CAs: after a new revocation list every live session is judged again at once.
//
// Of some strangers, whose chains lead to no CA, the certificates are remembered, apart so that they cannot displace a
// client. A client of the wrong CA tries again and again.
//
// The zero value is empty. It may be used by many sessions at once.
type chains struct {
	mu        sync.Mutex
	known     paths
	strangers paths
	shared    map[string]*certs.Certificate // CA certificates that clients sent, by their DER
}

// paths are some paths, by the hash of what was sent.
type paths struct {
	byHash map[uint64]*path
	size   int // bytes of their certificates
}

// path is what a client sent, and the chain that was found for it. It does not change.
type path struct {
	leaf  *certs.Certificate
	sent  []*certs.Certificate
	chain []*certs.Certificate // whose signatures are good; nil: not known
}

// isOf reports whether the path is of exactly these certificates.
func (p *path) isOf(peer []*x509.Certificate) bool {
	return len(peer) == 1+len(p.sent) && bytes.Equal(peer[0].Raw, p.leaf.Raw) &&
		slices.EqualFunc(peer[1:], p.sent, func(x *x509.Certificate, c *certs.Certificate) bool { return bytes.Equal(x.Raw, c.Raw) })
}

func (p *path) size() int {
	size := len(p.leaf.Raw)
	for _, c := range p.sent {
		size += len(c.Raw)
	}
	return size
}

var chainsSeed = maphash.MakeSeed()

// hashOf is only where to look: what is found there is compared byte by byte, which takes less time than a
// cryptographic hash.
func hashOf(peer []*x509.Certificate) (key uint64) {
	for _, c := range peer {
		key = bits.RotateLeft64(key, 1) ^ maphash.Bytes(chainsSeed, c.Raw)
	}
	return key
}

// get returns the path that is remembered for what a client sent; nil if there is none.
func (s *chains) get(key uint64, peer []*x509.Certificate) *path {
	s.mu.Lock()
	p := s.known.byHash[key]
	if p == nil {
		p = s.strangers.byHash[key]
	}
	s.mu.Unlock()
	if p == nil || !p.isOf(peer) {
		return nil
	}
	return p
}

// read reads what a client sent. It copies the certificates: those of crypto/tls hold all of the client's message, in
// which a few bytes of certificate may stand beside kilobytes of extensions (RFC 8446, section 4.4.2) that nobody counts.
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
			if c, err = certs.Parse(bytes.Clone(x.Raw)); err != nil {
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

// remember keeps the chain of a client, or the certificates of a stranger. When there is no room it forgets those of any
// other clients, which costs each of them a verification.
func (s *chains) remember(key uint64, p *path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.chain == nil {
		s.strangers.put(key, p, strangersLimit, strangersSize)
		return
	}
	s.known.put(key, p, chainsLimit, chainsSize)
	if s.shared == nil {
		s.shared = make(map[string]*certs.Certificate)
	}
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

// put adds a path within the limits.
func (s *paths) put(key uint64, p *path, limit, most int) {
	if s.byHash == nil {
		s.byHash = make(map[uint64]*path)
	}
	s.remove(key)
	size := p.size()
	for other := range s.byHash {
		if len(s.byHash) < limit && s.size+size <= most {
			break
		}
		s.remove(other)
	}
	s.byHash[key] = p
	s.size += size
}

func (s *paths) remove(key uint64) {
	if p := s.byHash[key]; p != nil {
		delete(s.byHash, key)
		s.size -= p.size()
	}
}

// inherit takes over the chains of the verifier before, if it had the same CAs and the same anchors. The pool is taken over
// with them, since the chains hold its certificates.
func (v *verifier) inherit(before *verifier) {
	if before.pool != nil && v.pool != nil && v.partialChain == before.partialChain && v.pool.Equal(before.pool) {
		v.chains, v.pool = before.chains, before.pool
	}
}
