package proxy

import (
	"slices"
	"testing"

	"pgwicket/internal/outcome"
)

// Each outcome is foreseen by the counters that it may come to, and by no other. The gates of the other tests hold
// themselves to it when they stop.
func TestOutcomesAreExpected(t *testing.T) {
	e := expected()
	has := func(list []string, o Outcome) bool { return slices.Contains(list, o.String()) }
	for o, f := range outcome.All() {
		cancel, session := o >= outcome.CancelForwarded, o >= outcome.AuthenticationFailed && o < outcome.CancelForwarded
		if has(e.Cancelled, o) != cancel || has(e.Refused, o) == (cancel || session) || has(e.Handshakes, o) != f.TLS {
			t.Errorf("%v: cancelled %v, refused %v, handshakes %v", o, has(e.Cancelled, o), has(e.Refused, o), has(e.Handshakes, o))
		}
		if session && !has(e.Ended, o) || cancel && has(e.Ended, o) {
			t.Errorf("%v: ended %v", o, has(e.Ended, o))
		}
	}
	for _, o := range []Outcome{outcome.SourceDenied, outcome.CertRevoked, outcome.CRLStale, outcome.NoRule} {
		if !has(e.Ended, o) {
			t.Errorf("a recheck may end a session with %v", o)
		}
	}
	if has(e.Ended, outcome.Probe) || has(e.Ended, outcome.Plaintext) {
		t.Error("a live session cannot be a probe")
	}
}
