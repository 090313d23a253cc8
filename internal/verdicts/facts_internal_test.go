package verdicts

import (
	"encoding/binary"
	"testing"
	"time"
)

// However many peers there are, what is known of them has a bound.
func TestFactsAreBounded(t *testing.T) {
	t.Parallel()
	var facts Facts
	for i := range uint32(factsLimit + 1000) {
		facts.Add([][]byte{binary.BigEndian.AppendUint32(nil, i)}, nil, 0, 0, 0)
	}
	if n := len(facts.byDigest); n != factsLimit {
		t.Errorf("there are %d facts, want %d", n, factsLimit)
	}
}

// What is known of certificates is not known of the same bytes that are divided otherwise.
func TestFactsAreOfWholeCertificates(t *testing.T) {
	t.Parallel()
	var facts Facts
	facts.Add([][]byte{[]byte("ab"), []byte("c")}, nil, 1, 0, 100)
	for _, sent := range [][][]byte{{[]byte("abc")}, {[]byte("a"), []byte("bc")}, {[]byte("ab"), []byte("c"), nil}, {[]byte("ab")}} {
		if facts.Find(sent).Known {
			t.Errorf("%q is known", sent)
		}
	}
	if !facts.Find([][]byte{[]byte("ab"), []byte("c")}).Admitted(1, time.Unix(50, 0)) {
		t.Error("what was added is not known")
	}
}

// A verdict counts from one step to the next. Where a step lies within a second there is none in that second, since it
// could be of either side. The bounds of the numbers widen none either.
func TestBetween(t *testing.T) {
	t.Parallel()
	steps := []time.Time{{}, time.Unix(100, 0), time.Unix(200, 500)}
	before1970 := []time.Time{time.Unix(-50, 0)}
	for _, c := range []struct {
		at          time.Time
		steps       []time.Time
		from, until uint32
	}{
		{time.Unix(99, 0), steps, 0, 100},
		{time.Unix(100, 0), steps, 100, 200},
		{time.Unix(199, 999), steps, 100, 200},
		{time.Unix(200, 0), steps, 100, 200},
		{time.Unix(200, 499), steps, 100, 200},
		{time.Unix(200, 500), steps, 201, 1<<32 - 1},
		{time.Unix(201, 0), steps, 201, 1<<32 - 1},
		{time.Unix(200, 7), []time.Time{time.Unix(200, 5), time.Unix(200, 9)}, 0, 0},
		{time.Unix(-100, 0), before1970, 0, 0},
		{time.Unix(100, 0), before1970, 0, 1<<32 - 1},
		{time.Unix(1<<33, 0), []time.Time{time.Unix(1<<32+5, 0)}, 0, 0},
	} {
		if from, until := Between(c.at, c.steps); from != c.from || until != c.until {
			t.Errorf("at %v: from %d until %d, want %d and %d", c.at, from, until, c.from, c.until)
		}
	}
}
