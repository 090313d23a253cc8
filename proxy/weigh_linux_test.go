package proxy

import "testing"

// A part of a long record is worth nothing yet, and must not make a client one
// that is read in small pieces: that cost a long upload nine tenths of its speed.
func TestWeigh(t *testing.T) {
	upload := new(flow)
	for range 100 {
		for _, part := range []int{5000, 3000, 8413} { // of one record of 16 KiB
			upload.weigh(part)
		}
		upload.up.Add(16 << 10)
	}
	if upload.thin {
		t.Error("an upload is taken for a flood of KeyUpdates")
	}
	bytes := new(flow)
	for range 10_000 { // records of one byte, over TLS 1.3
		bytes.up.Add(1)
		bytes.weigh(23)
	}
	if bytes.thin {
		t.Error("a client that sends its bytes one by one is taken for a flood")
	}
	flood := new(flow)
	for range 4 {
		flood.up.Add(1)
		flood.weigh(bufferSize)
	}
	if !flood.thin {
		t.Error("a flood of KeyUpdates is not noticed")
	}
}
