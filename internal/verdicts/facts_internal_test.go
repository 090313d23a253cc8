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

// A verdict counts from one step to the next; the second in which a step is, for neither side.
func TestBetween(t *testing.T) {
	t.Parallel()
	steps := AppendSteps(nil, time.Time{}, time.Unix(100, 0), time.Unix(200, 500))
	for _, c := range []struct {
		at          time.Time
		from, until uint32
	}{
		{time.Unix(99, 0), 0, 100},
		{time.Unix(100, 0), 100, 200},
		{time.Unix(199, 999), 100, 200},
		{time.Unix(200, 0), 200, 201},
		{time.Unix(201, 0), 201, 1<<32 - 1},
	} {
		if from, until := Between(c.at, steps); from != c.from || until != c.until {
			t.Errorf("at %v: from %d until %d, want %d and %d", c.at.Unix(), from, until, c.from, c.until)
		}
	}
}
