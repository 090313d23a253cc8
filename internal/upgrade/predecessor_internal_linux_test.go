package upgrade

import (
	"io"
	"testing"

	"pgwicket/internal/handover"
)

// The first word of the old process decides whether a new one that serves goes on: the old one may have waited
// too long for it, and accept again.
func TestUpgradeTakenBack(t *testing.T) {
	t.Parallel()
	p := &Predecessor{process: -1} // nobody knows that it is dead
	for _, c := range []struct {
		name  string
		frame handover.Frame
		err   error
		back  bool
	}{
		{"it hands over", handover.Frame{Kind: handover.Counters}, nil, false},
		{"it has waited too long", handover.Frame{Kind: handover.Failed, Text: []byte(`{"reason":"timeout"}`)}, nil, true},
		{"it lives and has closed the channel", handover.Frame{}, io.EOF, true},
	} {
		if err := p.takenBack(&c.frame, c.err); (err != nil) != c.back {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
