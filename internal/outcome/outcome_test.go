package outcome

import (
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
)

// An outcome is a metric label and a log attribute, so no two may
// share a name and none may lack one.
func TestOutcomesHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	plain := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := make(map[string]Outcome)
	for o, f := range All() {
		if !plain.MatchString(f.Label) {
			t.Errorf("outcome %d is called %q", o, f.Label)
		}
		if other, dup := seen[f.Label]; dup {
			t.Errorf("outcomes %d and %d are both called %q", other, o, f.Label)
		}
		seen[f.Label] = o
		if o.String() != f.Label {
			t.Errorf("%q prints as %q", f.Label, o)
		}
	}
}

// A SQLSTATE goes with words and words with a SQLSTATE. The SQLSTATE is one of
// the few that libpq and people act on: 57P03, which moves libpq to its next
// host, must not say that a client is unwelcome.
func TestOutcomesSpeakPostgreSQL(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"": true, "28000": true, "08P01": true, "0A000": true, "53300": true, "57P03": true, "42501": true, "22023": true, "57014": true, "XX000": true}
	for o, f := range All() {
		if (f.SQLSTATE == "") != (f.Public == "") {
			t.Errorf("%v: SQLSTATE %q with the words %q", o, f.SQLSTATE, f.Public)
		}
		if !known[f.SQLSTATE] {
			t.Errorf("%v: SQLSTATE %q", o, f.SQLSTATE)
		}
		if moves := o == AuditUnavailable || o == BackendUnavailable || o == ShuttingDown || o == ConnectionLimit; moves != (f.SQLSTATE == "57P03") {
			t.Errorf("%v has SQLSTATE %s", o, f.SQLSTATE)
		}
		if strings.ContainsAny(f.Public, "\n\x00%") || strings.HasSuffix(f.Public, ".") {
			t.Errorf("%v: %q is not how PostgreSQL words a message", o, f.Public)
		}
	}
}

// The groups of the constants are relied upon: account tells a cancel request by
// its place, and only a refusal may say anything to the client.
func TestOutcomesStandInTheirGroups(t *testing.T) {
	t.Parallel()
	for o, f := range All() {
		refusal := o < ClientClosed
		if !refusal && f.SQLSTATE != "" {
			t.Errorf("%v would tell a client of a session or of a cancel request %s", o, f.SQLSTATE)
		}
		handshake := NotTLS <= o && o <= TLSFailed
		certificate := CertMissing <= o && o <= CRLStale
		if (handshake || certificate) != f.TLS {
			t.Errorf("%v counts as a failed handshake: %v", o, f.TLS)
		}
		// Who fails a handshake cannot hear us. A version, a suite or a group can
		// also be found wanting later, by a policy that was reloaded; and who
		// shows a bad certificate is told so.
		judged := certificate || o == TLSVersion || o == TLSCipher || o == TLSGroup
		if (handshake || certificate) && (f.SQLSTATE == "28000") != judged {
			t.Errorf("%v has SQLSTATE %q", o, f.SQLSTATE)
		}
		// cockroach#98279: a health check every second must not fill the log.
		if o == Probe && f.Level != slog.LevelDebug {
			t.Errorf("%v is logged as %v", o, f.Level)
		}
		if o != Probe && f.Level < slog.LevelInfo {
			t.Errorf("%v is not in the log by default", o)
		}
	}
}

// The operator looks the outcome up.
func TestOutcomesAreDocumented(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for o := range All() {
		if !strings.Contains(string(manual), "\n| `"+o.String()+"` |") {
			t.Errorf("docs/troubleshooting.md does not explain %v", o)
		}
	}
}

// The client learns less than the log: the words of the outcome, or those that
// a refusal brings for it, but never the detail.
func TestRefusalTellsTheClientNoDetail(t *testing.T) {
	t.Parallel()
	for o, f := range All() {
		r := &Refusal{Outcome: o, Detail: "SECRET"}
		if sqlstate, text := r.Message(); sqlstate != f.SQLSTATE || text != f.Public || strings.Contains(text, "SECRET") {
			t.Errorf("%v: %s %q", o, sqlstate, text)
		}
		r.Public = "in other words"
		if sqlstate, text := r.Message(); sqlstate != f.SQLSTATE || text != "in other words" {
			t.Errorf("%v with words of its own: %s %q", o, sqlstate, text)
		}
		if got, want := r.Error(), f.Label+": SECRET"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		if got := Refuse(o, "").Error(); got != f.Label {
			t.Errorf("error without detail %q, want %q", got, f.Label)
		}
	}
}
