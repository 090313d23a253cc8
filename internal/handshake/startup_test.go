package handshake

import (
	"errors"
	"testing"

	"pgwicket/internal/outcome"
	"pgwicket/internal/pgwire"
)

// pgwire's SQLSTATEs must arrive as outcomes that have the same one.
func TestStartupRefusalKeepsTheSQLSTATE(t *testing.T) {
	t.Parallel()
	for sqlstate, want := range map[string]outcome.Outcome{"08P01": outcome.ProtocolViolation, "0A000": outcome.UnsupportedProtocol, "28000": outcome.NoUser} {
		var r *outcome.Refusal
		if err := StartupRefusal(&pgwire.ProtocolError{SQLSTATE: sqlstate, Message: "why"}); !errors.As(err, &r) {
			t.Fatalf("%s: %v", sqlstate, err)
		}
		if r.Outcome != want || r.Outcome.Meaning().SQLSTATE != sqlstate {
			t.Errorf("%s became %v with %s", sqlstate, r.Outcome, r.Outcome.Meaning().SQLSTATE)
		}
		if s, text := r.Message(); s != sqlstate || text != "why" {
			t.Errorf("%s: the client is told %s %q", sqlstate, s, text)
		}
	}
}
