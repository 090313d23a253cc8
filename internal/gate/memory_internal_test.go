package gate

import "testing"

// Memory is given back when a wave of sessions is over, and not for a few, nor again and
// again.
func TestMemoryReturn(t *testing.T) {
	t.Parallel()
	var m memoryReturn
	for i, step := range []struct {
		sessions int
		due      bool
	}{
		{400, false},
		{400, false}, // a few
		{1000, false},
		{1500, false}, // they still come
		{1500, true},
		{1500, false},
		{1400, false},
		{1500, false},
		{1500, false},
		{2200, false},
		{2200, false}, // less than a quarter and a step more
		{3300, false},
		{3290, true},
		{100, false},
		{100, false}, // a smaller wave after the large one
		{900, false},
		{900, true},
	} {
		if due := m.due(step.sessions); due != step.due {
			t.Errorf("step %d, %d sessions: due is %t", i, step.sessions, due)
		}
	}
}
