// Package verdicts remembers what has been found out about certificates, for as long as it cannot change.
package verdicts

import (
	"crypto/sha256"
	"math"
	"sync"
	"time"

	"pgwicket/internal/certs"
)

// factsLimit is for how many peers there are facts, of some 100 bytes each.
const factsLimit = 64 << 10

// Facts is what has been found out about peers that were admitted, by the SHA-256 of what they sent. A session keeps its
// certificates in DER. To read them again takes longer than everything else of a recheck but signatures, and leaves garbage
// of twice their size, so a verdict is remembered for as long as it cannot change. The zero value is empty. It may be used
// by many goroutines at once.
type Facts struct {
	mu       sync.Mutex
	byDigest map[[sha256.Size]byte]Fact
}

// Fact is what has been found out about one peer.
type Fact struct {
	Known bool

	chain [16]byte // of the SHA-256 of the chain whose signatures are good
	// The verdict of one epoch, from one second on and until another. Both are zero where there is none.
	epoch, from, until uint32
}

// Find returns what is known of a peer that has sent these certificates in DER.
func (f *Facts) Find(sent [][]byte) Fact {
	digest := digestOf(sent)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byDigest[digest]
}

// Add remembers that the signatures of the peer's chain are good and that it is admitted in an epoch, from one second on and
// until another. When there is no room it forgets any other peer.
func (f *Facts) Add(sent [][]byte, chain []*certs.Certificate, epoch, from, until uint32) {
	digest, fact := digestOf(sent), Fact{true, chainDigest(chain), epoch, from, until}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byDigest == nil {
		f.byDigest = make(map[[sha256.Size]byte]Fact)
	}
	for other := range f.byDigest {
		if len(f.byDigest) < factsLimit {
			break
		}
		delete(f.byDigest, other)
	}
	f.byDigest[digest] = fact
}

// Signed reports whether the signatures of a chain have been found good for the peer.
func (f Fact) Signed(chain []*certs.Certificate) bool {
	return f.Known && f.chain == chainDigest(chain)
}

// Admitted reports whether the peer is known to be admitted at a time of an epoch.
func (f Fact) Admitted(epoch uint32, at time.Time) bool {
	return f.Known && f.epoch == epoch && int64(f.from) <= at.Unix() && at.Unix() < int64(f.until)
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

// Between returns the last of the steps that is not after a time and the first that is, in seconds.
func Between(at time.Time, steps ...[]int64) (from, until uint32) {
	first, last := int64(0), int64(math.MaxUint32)
	for _, some := range steps {
		for _, step := range some {
			if step <= at.Unix() {
				first = max(first, step)
			} else {
				last = min(last, step)
			}
		}
	}
	return uint32(first), uint32(last)
}

// AppendSteps appends the seconds that begin at or around times; the zero time has none.
func AppendSteps(steps []int64, times ...time.Time) []int64 {
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

// AppendDates appends the steps of certificates: the seconds at which a verdict about them may change by itself.
func AppendDates(steps []int64, all []*certs.Certificate) []int64 {
	for _, c := range all {
		steps = AppendSteps(steps, c.NotBefore, c.NotAfter)
	}
	return steps
}
