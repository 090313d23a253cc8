package tlsconfig

import (
	"crypto/sha256"
	"math"
	"slices"
	"time"

	"pgwicket/internal/certs"
)

// factsLimit is for how many clients there are facts, of some 100 bytes each.
const factsLimit = 64 << 10

// facts is what has been found out about clients that were admitted, by the SHA-256 of what they sent. A session keeps its
// certificates in DER. To read them again takes longer than everything else of a recheck but signatures, and leaves garbage
// of twice their size, so the verdict is remembered for as long as it cannot change.
type facts map[[sha256.Size]byte]fact

// fact is what has been found out about one client.
type fact struct {
	chain [16]byte // of the SHA-256 of the chain whose signatures are good
	// The verdict of the verifier of this epoch from one second on and until another: the client is admitted, and all that it
	// has sent is in the chain. Both are zero where something else was sent.
	epoch, from, until uint32
}

// digestOf returns the SHA-256 of certificates in DER, which has their ends.
func digestOf(sent [][]byte) (digest [sha256.Size]byte) {
	if len(sent) == 1 {
		return sha256.Sum256(sent[0])
	}
	h := sha256.New()
	for _, der := range sent {
		h.Write(der)
	}
	h.Sum(digest[:0])
	return digest
}

func chainDigest(chain []*certs.Certificate) [16]byte {
	all := make([][]byte, 0, 4)
	for _, c := range chain {
		all = append(all, c.Raw)
	}
	digest := digestOf(all)
	return [16]byte(digest[:16])
}

// memory is what is remembered of what a client sent.
type memory struct {
	key  uint64 // of path
	path *path  // nil: it must be read
	fact fact   // if there is no path
	seen bool   // there is a fact
}

func (s *chains) recall(sent [][]byte) memory {
	m := memory{key: hashOf(sent)}
	if m.path = s.get(m.key, sent); m.path == nil {
		digest := digestOf(sent)
		s.mu.Lock()
		m.fact, m.seen = s.facts[digest]
		s.mu.Unlock()
	}
	return m
}

// hasSigned reports whether the signatures of a chain have been found good for the client.
func (m *memory) hasSigned(chain []*certs.Certificate) bool {
	return m.seen && m.fact.chain == chainDigest(chain)
}

// settled reports whether the verifier of an epoch is known to admit the client at a time, with all that it sent.
func (m *memory) settled(epoch uint32, at time.Time) bool {
	return m.seen && m.fact.epoch == epoch && int64(m.fact.from) <= at.Unix() && at.Unix() < int64(m.fact.until)
}

// settle remembers that a client is admitted at a time, for as long as that cannot change. whole says that all that it sent
// is in the chain.
func (v *verifier) settle(digest [sha256.Size]byte, whole bool, p *path, at time.Time) {
	f := fact{chain: chainDigest(p.chain), epoch: v.epoch}
	if whole {
		f.from, f.until = v.constant(p, at)
	}
	s := v.chains
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.facts == nil {
		s.facts = facts{}
	}
	for other := range s.facts {
		if len(s.facts) < factsLimit {
			break
		}
		delete(s.facts, other)
	}
	s.facts[digest] = f
}

// constant returns from which second and until which other a verdict of that time cannot change by itself: between two of
// the dates of the configured certificates, the lists and what the client has sent.
func (v *verifier) constant(p *path, at time.Time) (from, until uint32) {
	if v.steps == nil {
		return 0, 0
	}
	own := appendSteps(nil, p.leaf.NotBefore, p.leaf.NotAfter)
	for _, c := range p.sent {
		own = appendSteps(own, c.NotBefore, c.NotAfter)
	}
	first, last := int64(0), int64(math.MaxUint32)
	for _, steps := range [][]int64{v.steps, own} {
		for _, step := range steps {
			if step <= at.Unix() {
				first = max(first, step)
			} else {
				last = min(last, step)
			}
		}
	}
	return uint32(first), uint32(last)
}

// stepsOf returns the seconds at which a verdict of the verifier may change, whatever the client. They are not nil.
func (v *verifier) stepsOf() []int64 {
	steps := []int64{}
	if v.pool != nil {
		for _, c := range v.pool.Certificates() {
			steps = appendSteps(steps, c.NotBefore, c.NotAfter)
		}
	}
	if v.crls != nil {
		steps = appendSteps(steps, v.crls.Dates()...)
	}
	slices.Sort(steps)
	return slices.Compact(steps)
}

// appendSteps appends the seconds that begin at or around times; the zero time has none.
func appendSteps(steps []int64, times ...time.Time) []int64 {
	for _, t := range times {
		switch {
		case t.IsZero():
		case t.Nanosecond() == 0:
			steps = append(steps, t.Unix())
		default: // the second in which it is counts for neither side
			steps = append(steps, t.Unix(), t.Unix()+1)
		}
	}
	return steps
}
