package pgwire

import (
	"encoding/json"
	"reflect"
	"testing"
)

// A tracker that is saved and restored after any byte goes on as one that is not.
func TestTrackerState(t *testing.T) {
	t.Parallel()
	message := func(kind byte, contents string) string {
		n := len(contents) + 4
		return string([]byte{kind, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + contents
	}
	ready := message('Z', "I")
	client := message('P', "stmt") + message('B', "bind") + message('E', "run") + message('S', "") + message('Q', "copy t from stdin\x00") +
		message('d', "rows") + message('S', "") + message('c', "") + message('Q', "x") + message('D', "d") + message('H', "") + message('X', "")
	backend := ready + message('1', "") + message('2', "") + message('C', "SELECT\x00") + message('Z', "T") + message('G', "\x00\x00\x00") +
		message('C', "COPY 1\x00") + message('Z', "E") + message('E', "SFATAL\x00VFATAL\x00C57P01\x00Mend\x00\x00")
	for cut := range len(client) + 1 {
		kept, moved := new(Tracker), new(Tracker)
		kept.Feed([]byte(ready))
		moved.Feed([]byte(ready))
		rest := backend[len(ready):]
		at := cut * len(rest) / len(client)
		for _, tracker := range []*Tracker{kept, moved} {
			tracker.Ask([]byte(client[:cut]))
			tracker.Feed([]byte(rest[:at]))
		}
		text, err := json.Marshal(moved.State())
		if err != nil {
			t.Fatal(err)
		}
		var state TrackerState
		if err := json.Unmarshal(text, &state); err != nil {
			t.Fatal(err)
		}
		restored := new(Tracker)
		if err := restored.Restore(state); err != nil {
			t.Fatalf("after %d bytes: %v", cut, err)
		}
		if !reflect.DeepEqual(restored.State(), kept.State()) {
			t.Fatalf("after %d bytes: %+v\nwant %+v", cut, restored, kept)
		}
		for _, tracker := range []*Tracker{kept, restored} {
			tracker.Ask([]byte(client[cut:]))
			tracker.Feed([]byte(rest[at:]))
		}
		if !reflect.DeepEqual(restored.State(), kept.State()) {
			t.Fatalf("after all, cut at %d: %+v\nwant %+v", cut, restored, kept)
		}
	}
}

// FuzzTrackerState restores what another process might send.
func FuzzTrackerState(f *testing.F) {
	t := new(Tracker)
	t.Feed([]byte("Z\x00\x00\x00\x05I"))
	t.Ask([]byte("Q\x00\x00\x00\x06x\x00Q\x00\x00"))
	text, err := json.Marshal(t.State())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, []byte("Q\x00\x00\x00\x06x\x00"), []byte("Z\x00\x00\x00\x05I"))
	f.Add([]byte(`{"status":73,"requests":{"runs":[8,9,10,11,12,13,14]}}`), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, text, client, backend []byte) {
		var s TrackerState
		tracker := new(Tracker)
		if json.Unmarshal(text, &s) != nil || tracker.Restore(s) != nil {
			return
		}
		tracker.Ask(client)
		tracker.Feed(backend)
		again := new(Tracker)
		if err := again.Restore(tracker.State()); err != nil {
			t.Errorf("its own state: %v", err)
		}
	})
}
