package relay

import (
	"bytes"
	"errors"
	"testing"

	"pgwicket/internal/tlsrecord"
)

// A byte between KeyUpdates does not begin their count anew: a client that had not logged in
// cost a hundred times a handshake with them, and every other session of its loop waited.
func TestKeyUpdatesForBytes(t *testing.T) {
	t.Parallel()
	var keys bytes.Buffer
	r := newRig(t, rigging{relay: starters["loop"], keys: &keys})
	if err := r.client.Handshake(); err != nil {
		t.Fatal(err)
	}
	k := clientKeys(t, keys.String())
	if k == nil {
		t.Skip("the suite is not AES-128-GCM")
	}
	var flood []byte
	for range 10 {
		for range 15 {
			flood = k.update(flood, 0)
		}
		flood = k.record(flood, 23, 'x')
	}
	if _, err := r.tcp.Write(flood); err != nil {
		t.Fatal(err)
	}
	r.ended(LimitReached, 2, 0) // after 32 KeyUpdates
	if !errors.Is(r.result.Err, tlsrecord.ErrKeyUpdates) {
		t.Errorf("the error is %v", r.result.Err)
	}
}
