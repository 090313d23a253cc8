package relay

import "testing"

// A part of a long record carries nothing yet, and must not make its client one
// that is read in small pieces: that cost a long upload nine tenths of its speed.
func TestKeyUpdateGuard(t *testing.T) {
	t.Parallel()
	var upload keyUpdateGuard
	data := int64(0)
	for range 100 {
		for _, part := range []int{5000, 3000, 8413} { // of one record of 16 KiB
			upload.observe(part, data)
		}
		data += 16 << 10
	}
	if upload.lowYield {
		t.Error("an upload is taken for a flood of KeyUpdates")
	}
	var bytes keyUpdateGuard
	for i := range int64(10_000) { // records of one byte, over TLS 1.3
		bytes.observe(23, i+1)
	}
	if bytes.lowYield {
		t.Error("a client that sends its bytes one by one is taken for a flood")
	}
	var flood keyUpdateGuard
	for i := range int64(4) {
		flood.observe(bufferSize, i+1)
	}
	if !flood.lowYield {
		t.Error("a flood of KeyUpdates is not noticed")
	}
}
