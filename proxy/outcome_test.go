package proxy

import (
	"slices"
	"testing"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
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

// pgwire's SQLSTATEs must arrive as outcomes that have the same one.
func TestStartupRefusalKeepsTheSQLSTATE(t *testing.T) {
	for sqlstate, want := range map[string]Outcome{"08P01": outcome.ProtocolViolation, "0A000": outcome.UnsupportedProtocol, "28000": outcome.NoUser} {
		r := asRefusal(startupRefusal(&pgwire.ProtocolError{SQLSTATE: sqlstate, Message: "why"}))
		o := r.Outcome
		if o != want || o.Meaning().SQLSTATE != sqlstate {
			t.Errorf("%s became %v with %s", sqlstate, o, o.Meaning().SQLSTATE)
		}
		if s, text := r.Message(); s != sqlstate || text != "why" {
			t.Errorf("%s: the client is told %s %q", sqlstate, s, text)
		}
	}
}
