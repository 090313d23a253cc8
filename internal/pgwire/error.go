package pgwire

import "github.com/jackc/pgproto3/v2"

// Fatal returns the ErrorResponse that ends a connection, with the fields that
// PostgreSQL itself sends before authentication (S, V, C, M) and a hint (H)
// unless it is empty. A NUL in a text would end its field early, so text from
// the client must be quoted first.
func Fatal(sqlstate, message, hint string) []byte {
	b, err := (&pgproto3.ErrorResponse{
		Severity:            "FATAL",
		SeverityUnlocalized: "FATAL",
		Code:                sqlstate,
		Message:             message,
		Hint:                hint,
	}).Encode(nil)
	if err != nil {
		panic("pgwire: " + err.Error()) // it fails only for a message of 1 GiB
	}
	return b
}

// FatalV2 is Fatal for a client of protocol 2 or older: a type byte and a
// string, without a SQLSTATE.
func FatalV2(message string) []byte {
	return append([]byte("EFATAL:  "+message+"\n"), 0)
}
