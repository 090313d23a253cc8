package tlsconfig

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"

	"pgwicket/internal/certs"
	"pgwicket/internal/verdicts"
)

// The limits of what is remembered: for how many clients, and how many bytes their certificates have, which take some three
// times as much when they are read.
const (
	chainsLimit    = 128
	chainsSize     = 256 << 10
	strangersLimit = 64
	strangersSize  = 128 << 10
)

// chains remembers the chains whose signatures are good, by what a client sent. To read certificates and verify signatures
// takes most of the time of a verification, and their result does not change. The chain is looked for each time, and dates,
// purposes, names and revocation lists are checked each time. A client that is refused for one of these is remembered too.
// The chains belong to the CAs that they end in, and the next verifier takes them over if it has the same CAs: after a new
// revocation list every live session is judged again at once. Of a few clients that come again it keeps the certificates, and of
// many more what has been found out, in a hundred bytes: see verdicts.Facts. Certificates that are kept for a while and then forgotten
// would leave holes in the memory that a storm of clients leaves behind.
//
// Of some strangers, whose chains lead to no CA, the certificates are remembered, apart so that they cannot displace a
// client. A client of the wrong CA tries again and again.
//
// It may be used by many sessions at once.
type chains struct {
	mu        sync.Mutex
	known     paths
	strangers paths
	facts     *verdicts.Facts
	epochs    uint32 // how many verifiers have taken them over
	shared    verdicts.Shared
}

func newChains() *chains { return &chains{facts: new(verdicts.Facts)} }

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
func (p *path) isOf(sent [][]byte) bool {
	return len(sent) == 1+len(p.sent) && bytes.Equal(sent[0], p.leaf.Raw) &&
		slices.EqualFunc(sent[1:], p.sent, func(der []byte, c *certs.Certificate) bool { return bytes.Equal(der, c.Raw) })
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
func hashOf(sent [][]byte) (key uint64) {
	for _, der := range sent {
		key = bits.RotateLeft64(key, 1) ^ maphash.Bytes(chainsSeed, der)
	}
	return key
}

// memory is what is remembered of what a client sent.
type memory struct {
	key  uint64        // of path
	path *path         // nil: it must be read
	fact verdicts.Fact // if there is no path
}

func (s *chains) recall(sent [][]byte) memory {
	m := memory{key: hashOf(sent)}
	if m.path = s.get(m.key, sent); m.path == nil {
		m.fact = s.facts.Find(sent)
	}
	return m
}

// get returns the path that is remembered for what a client sent; nil if there is none.
func (s *chains) get(key uint64, sent [][]byte) *path {
	s.mu.Lock()
	p := s.known.byHash[key]
	if p == nil {
		p = s.strangers.byHash[key]
	}
	s.mu.Unlock()
	if p == nil || !p.isOf(sent) {
		return nil
	}
	return p
}

// read reads what a client sent.
func (s *chains) read(sent [][]byte) (*path, *VerifyError) {
	size := 0
	for _, der := range sent {
		size += len(der)
	}
	p := &path{}
	for i, der := range sent {
		c := s.shared.Find(der)
		if c == nil {
			var err error
			if c, err = certs.Parse(der); err != nil {
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
			tooMuch(len(sent)-1, size))
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

func (s *chains) nextEpoch() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epochs++
	return s.epochs
}

// inherit takes over the chains of the verifier before, if it had the same CAs and the same anchors. The pool is taken over
// with them, since the chains hold its certificates.
func (v *verifier) inherit(before *verifier) {
	if before.pool != nil && v.pool != nil && v.partialChain == before.partialChain && v.pool.Equal(before.pool) {
		v.chains, v.pool, v.epoch = before.chains, before.pool, before.chains.nextEpoch()
	}
}
