// Package verdicts remembers what has been found out about certificates, for as long as it cannot change.
package verdicts

import (
	"crypto/sha256"
	"encoding/binary"
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

// digestOf returns the SHA-256 of some certificates, with the length of each: the same bytes that are divided otherwise are
// other certificates.
func digestOf(sent [][]byte) (digest [sha256.Size]byte) {
	h := sha256.New()
	for _, der := range sent {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(der)))
		h.Write(length[:])
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

// Between returns the first whole second and the one behind the last between which no step lies but the time does: from the
// last step that is not after the time to the first that is. Both are zero if there is no such second. The zero time is no step.
func Between(at time.Time, steps ...[]time.Time) (from, until uint32) {
	first, last := time.Unix(0, 0), time.Unix(math.MaxUint32, 0)
	for _, some := range steps {
		for _, step := range some {
			switch {
			case step.IsZero():
			case !step.After(at) && step.After(first):
				first = step
			case step.After(at) && step.Before(last):
				last = step
			}
		}
	}
	begin, end := first.Unix(), last.Unix()
	if first.Nanosecond() > 0 {
		begin++
	}
	if begin >= end { // the second of a step that is in the middle of it, too
		return 0, 0
	}
	return uint32(begin), uint32(end)
}

// AppendDates appends the dates of certificates: the times at which a verdict about them may change.
func AppendDates(steps []time.Time, all []*certs.Certificate) []time.Time {
	for _, c := range all {
		steps = append(steps, c.NotBefore, c.NotAfter)
	}
	return steps
}
