package proxy

import "testing"

var starters = map[string]starter{"pump": startPump, "loop": startLoop}

// sharedRelay is one relay for several sessions; stop ends it after them.
func sharedRelay(t *testing.T) (with starter, stop func()) {
	t.Helper()
	r, err := newRelay(func(int, int) {}, func(any) {})
	if err != nil {
		t.Fatal(err)
	}
	return func(h handover, _ func(up, down int), _ func(any)) reins {
		held, err := r.start(h)
		if err != nil {
			panic(err)
		}
		return held
	}, r.stop
}

// startLoop hands a session to a relay that ends with it.
func startLoop(h handover, count func(up, down int), alarm func(any)) reins {
	r, err := newRelay(count, alarm)
	if err != nil {
		panic(err)
	}
	done := h.done
	h.done = func(result relayed) {
		r.stop()
		done(result)
	}
	held, err := r.start(h)
	if err != nil {
		panic(err)
	}
	return held
}
