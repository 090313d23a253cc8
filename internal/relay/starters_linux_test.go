package relay

import "testing"

var starters = map[string]starter{"pump": startPump, "loop": {startLoop, true}, "loop over crypto/tls": {startLoop, false}}

// sharedRelay is one relay for several sessions; stop ends it after them.
func sharedRelay(t *testing.T) (with starter, stop func()) {
	t.Helper()
	r, err := New(Observer{Moved: func(int, int) {}, Panicked: func(any) {}})
	if err != nil {
		t.Fatal(err)
	}
	return starter{func(s Session, _ Observer) Handle {
		held, err := r.Start(s)
		if err != nil {
			panic(err)
		}
		return held
	}, true}, r.Stop
}

// startLoop hands a session to a relay that ends with it.
func startLoop(s Session, o Observer) Handle {
	r, err := New(o)
	if err != nil {
		panic(err)
	}
	done := s.Done
	s.Done = func(result Result) {
		r.Stop()
		done(result)
	}
	held, err := r.Start(s)
	if err != nil {
		panic(err)
	}
	return held
}
