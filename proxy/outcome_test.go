package proxy

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgwicket/internal/pgwire"
)

// all is every outcome there is.
func all(yield func(Outcome, meaning) bool) {
	for o := range outcomeCount {
		if !yield(o, outcomes[o]) {
			return
		}
	}
}

// An outcome is a metric label and a log attribute, so no two may
// share a name and none may lack one.
func TestOutcomesHaveNamesOfTheirOwn(t *testing.T) {
	plain := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := make(map[string]Outcome)
	for o, f := range all {
		if !plain.MatchString(f.label) {
			t.Errorf("outcome %d is called %q", o, f.label)
		}
		if other, dup := seen[f.label]; dup {
			t.Errorf("outcomes %d and %d are both called %q", other, o, f.label)
		}
		seen[f.label] = o
		if o.String() != f.label {
			t.Errorf("%q prints as %q", f.label, o)
		}
	}
}

// A SQLSTATE goes with words and words with a SQLSTATE. The SQLSTATE is one of
// the few that libpq and people act on: 57P03, which moves libpq to its next
// host, must not say that a client is unwelcome.
func TestOutcomesSpeakPostgreSQL(t *testing.T) {
	known := map[string]bool{"": true, "28000": true, "08P01": true, "0A000": true, "53300": true, "57P03": true, "42501": true, "22023": true, "57014": true, "XX000": true}
	for o, f := range all {
		if (f.sqlstate == "") != (f.public == "") {
			t.Errorf("%v: SQLSTATE %q with the words %q", o, f.sqlstate, f.public)
		}
		if !known[f.sqlstate] {
			t.Errorf("%v: SQLSTATE %q", o, f.sqlstate)
		}
		if moves := o == AuditUnavailable || o == BackendUnavailable || o == ShuttingDown || o == ConnectionLimit; moves != (f.sqlstate == "57P03") {
			t.Errorf("%v has SQLSTATE %s", o, f.sqlstate)
		}
		if strings.ContainsAny(f.public, "\n\x00%") || strings.HasSuffix(f.public, ".") {
			t.Errorf("%v: %q is not how PostgreSQL words a message", o, f.public)
		}
	}
}

// The groups of the constants are relied upon: account tells a cancel request by
// its place, and only a refusal may say anything to the client.
func TestOutcomesStandInTheirGroups(t *testing.T) {
	for o, f := range all {
		refusal := o < ClientClosed
		if !refusal && f.sqlstate != "" {
			t.Errorf("%v would tell a client of a session or of a cancel request %s", o, f.sqlstate)
		}
		handshake := NotTLS <= o && o <= TLSFailed
		certificate := CertMissing <= o && o <= CRLStale
		if (handshake || certificate) != f.tls {
			t.Errorf("%v counts as a failed handshake: %v", o, f.tls)
		}
		// Who fails a handshake cannot hear us. A version, a suite or a group can
		// also be found wanting later, by a policy that was reloaded; and who
		// shows a bad certificate is told so.
		judged := certificate || o == TLSVersion || o == TLSCipher || o == TLSGroup
		if (handshake || certificate) && (f.sqlstate == "28000") != judged {
			t.Errorf("%v has SQLSTATE %q", o, f.sqlstate)
		}
		// cockroach#98279: a health check every second must not fill the log.
		if o == Probe && f.level != slog.LevelDebug {
			t.Errorf("%v is logged as %v", o, f.level)
		}
		if o != Probe && f.level < slog.LevelInfo {
			t.Errorf("%v is not in the log by default", o)
		}
	}
}

// Each outcome is foreseen by the counters that it may come to, and by no other. The gates of the other tests hold
// themselves to it when they stop.
func TestOutcomesAreExpected(t *testing.T) {
	e := expected()
	has := func(list []string, o Outcome) bool { return slices.Contains(list, o.String()) }
	for o, f := range all {
		cancel, session := o >= CancelForwarded, o >= AuthenticationFailed && o < CancelForwarded
		if has(e.Cancelled, o) != cancel || has(e.Refused, o) == (cancel || session) || has(e.Handshakes, o) != f.tls {
			t.Errorf("%v: cancelled %v, refused %v, handshakes %v", o, has(e.Cancelled, o), has(e.Refused, o), has(e.Handshakes, o))
		}
		if session && !has(e.Ended, o) || cancel && has(e.Ended, o) {
			t.Errorf("%v: ended %v", o, has(e.Ended, o))
		}
	}
	for _, o := range []Outcome{SourceDenied, CertRevoked, CRLStale, NoRule} {
		if !has(e.Ended, o) {
			t.Errorf("a recheck may end a session with %v", o)
		}
	}
	if has(e.Ended, Probe) || has(e.Ended, Plaintext) {
		t.Error("a live session cannot be a probe")
	}
}

// The operator looks the outcome up.
func TestOutcomesAreDocumented(t *testing.T) {
	manual, err := os.ReadFile("../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for o := range all {
		if !strings.Contains(string(manual), "\n| `"+o.String()+"` |") {
			t.Errorf("docs/troubleshooting.md does not explain %v", o)
		}
	}
}

// The client learns less than the log: the words of the outcome, or those that
// a refusal brings for it, but never the detail.
func TestRefusalTellsTheClientNoDetail(t *testing.T) {
	for o, f := range all {
		r := &Refusal{Outcome: o, Detail: "SECRET"}
		if sqlstate, text := r.Message(); sqlstate != f.sqlstate || text != f.public || strings.Contains(text, "SECRET") {
			t.Errorf("%v: %s %q", o, sqlstate, text)
		}
		r.Public = "in other words"
		if sqlstate, text := r.Message(); sqlstate != f.sqlstate || text != "in other words" {
			t.Errorf("%v with words of its own: %s %q", o, sqlstate, text)
		}
		if got, want := r.Error(), f.label+": SECRET"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		if got := refuse(o, "").Error(); got != f.label {
			t.Errorf("error without detail %q, want %q", got, f.label)
		}
	}
}

// pgwire's SQLSTATEs must arrive as outcomes that have the same one.
func TestStartupRefusalKeepsTheSQLSTATE(t *testing.T) {
	for sqlstate, want := range map[string]Outcome{"08P01": ProtocolViolation, "0A000": UnsupportedProtocol, "28000": NoUser} {
		r := asRefusal(startupRefusal(&pgwire.ProtocolError{SQLSTATE: sqlstate, Message: "why"}))
		o := r.Outcome
		if o != want || outcomes[o].sqlstate != sqlstate {
			t.Errorf("%s became %v with %s", sqlstate, o, outcomes[o].sqlstate)
		}
		if s, text := r.Message(); s != sqlstate || text != "why" {
			t.Errorf("%s: the client is told %s %q", sqlstate, s, text)
		}
	}
}
