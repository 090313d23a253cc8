package pgwire

import "github.com/jackc/pgproto3/v2"

// Fatal returns the ErrorResponse that ends a connection, with the fields that
// PostgreSQL itself sends before authentication (S, V, C, M) and a hint (H)
// where there is one. A NUL in the texts would end its field early, so none of
// them may come from the client unquoted.
func Fatal(sqlstate, message, hint string) []byte {
	b, err := (&pgproto3.ErrorResponse{
		Severity:            "FATAL",
		SeverityUnlocalized: "FATAL",
		Code:                sqlstate,
		Message:             message,
		Hint:                hint,
	}).Encode(nil)
	if err != nil {
		panic("pgwire: " + err.Error()) // only a message of 1 GiB fails to encode
	}
	return b
}

// FatalV2 is Fatal for a client of protocol 2 or older, which knows a type byte
// and a string and no SQLSTATE.
func FatalV2(message string) []byte {
	return append([]byte("EFATAL:  "+message+"\n"), 0)
}
