package pgwire_test

import (
	"encoding/binary"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/pgwire"
)

func TestFatal(t *testing.T) {
	for _, c := range []struct{ sqlstate, message, hint string }{
		{"28000", "connection requires TLS", ""},
		{"57P03", "the database cannot be reached", "Try again later."},
		{"XX000", "", ""},
		{"08P01", "schön \"quoted\"\nand two lines", ""},
	} {
		raw := pgwire.Fatal(c.sqlstate, c.message, c.hint)
		if raw[0] != 'E' || int(binary.BigEndian.Uint32(raw[1:])) != len(raw)-1 {
			t.Fatalf("%s: frame %q", c.sqlstate, raw)
		}
		// libpq does not accept an ErrorResponse of more than 30,000 bytes
		// before authentication (PQconnectPoll in fe-connect.c).
		if len(raw) > 30_000 {
			t.Errorf("%s: %d bytes", c.sqlstate, len(raw))
		}
		var e pgproto3.ErrorResponse
		if err := e.Decode(raw[5:]); err != nil {
			t.Fatalf("%s: pgx: %v", c.sqlstate, err)
		}
		want := pgproto3.ErrorResponse{
			Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: c.sqlstate, Message: c.message, Hint: c.hint,
		}
		// An empty field is not sent, so nothing else may be set.
		if len(e.UnknownFields) > 0 {
			t.Errorf("%s: unknown fields %v", c.sqlstate, e.UnknownFields)
		}
		e.UnknownFields = nil
		if e.Severity != want.Severity || e.SeverityUnlocalized != want.SeverityUnlocalized ||
			e.Code != want.Code || e.Message != want.Message || e.Hint != want.Hint || e.Detail != "" || e.File != "" || e.Routine != "" {
			t.Errorf("pgx reads %+v, want %+v", e, want)
		}
	}
}

// A client of protocol 2 reads a type byte and a string. libpq 7.4 and later do
// too, until they have read an answer.
func TestFatalV2(t *testing.T) {
	if got := string(pgwire.FatalV2("unsupported frontend protocol 2.0")); got != "EFATAL:  unsupported frontend protocol 2.0\n\x00" {
		t.Errorf("got %q", got)
	}
}
