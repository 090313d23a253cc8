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

func (s *chains) fact(digest [sha256.Size]byte) (f fact, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok = s.facts[digest]
	return f, ok
}

// hasSigned reports whether the signatures of a chain have been found good for what a client sent.
func (s *chains) hasSigned(sent [][]byte, chain []*certs.Certificate) bool {
	f, ok := s.fact(digestOf(sent))
	return ok && f.chain == chainDigest(chain)
}

// settled reports whether a client is known to be admitted at a time, with all that it sent.
func (v *verifier) settled(sent [][]byte, at time.Time) bool {
	f, ok := v.chains.fact(digestOf(sent))
	return ok && f.epoch == v.epoch && int64(f.from) <= at.Unix() && at.Unix() < int64(f.until)
}

// settle remembers that a client is admitted at a time, for as long as that cannot change.
func (v *verifier) settle(sent, keep [][]byte, p *path, at time.Time) {
	f := fact{chain: chainDigest(p.chain), epoch: v.epoch}
	if len(keep) == len(sent) {
		f.from, f.until = v.constant(p, at)
	}
	digest := digestOf(sent)
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
