// Package wire is a client of PostgreSQL's protocol that can do what no driver
// does: send a part of a message, leave in every way, and speak to a gate one step
// at a time. It knows no SQL and no authentication but trust.
package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The codes that begin a connection, and the versions of the protocol (pqcomm.h).
const (
	CancelRequest = 80877102
	SSLRequest    = 80877103
	GSSENCRequest = 80877104
	Protocol30    = 3 << 16
	Protocol32    = 3<<16 | 2
)

// Terminate is the message by which a client ends its session.
const Terminate = "X\x00\x00\x00\x04"

// Message encodes one message.
func Message(kind byte, body string) string { return string([]byte{kind}) + packet(body) }

// packet encodes what has a length and no kind.
func packet(body string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))) + body
}

// Query encodes a simple query.
func Query(sql string) string { return Message('Q', sql+"\x00") }

// Request encodes a request that is only a code: SSLRequest or GSSENCRequest.
func Request(code uint32) string { return packet(string(binary.BigEndian.AppendUint32(nil, code))) }

// Startup encodes the startup packet with these parameters, as pairs.
func Startup(version uint32, parameters ...string) string {
	var b strings.Builder
	b.Write(binary.BigEndian.AppendUint32(nil, version))
	for _, p := range parameters {
		b.WriteString(p + "\x00")
	}
	return packet(b.String() + "\x00")
}

// Cancel encodes a CancelRequest. key is the body of BackendKeyData: the process
// and its secret.
func Cancel(key []byte) string {
	return packet(string(binary.BigEndian.AppendUint32(nil, CancelRequest)) + string(key))
}

// Field returns a field of an ErrorResponse, empty if there is none.
func Field(body []byte, code byte) string {
	for f := range strings.SplitSeq(string(body), "\x00") {
		if f != "" && f[0] == code {
			return f[1:]
		}
	}
	return ""
}

// Error is an ErrorResponse.
type Error struct{ Severity, Code, Message string }

func newError(body []byte) *Error {
	return &Error{Field(body, 'S'), Field(body, 'C'), Field(body, 'M')}
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (SQLSTATE %s)", e.Severity, e.Message, e.Code)
}

// SQLState is as that of pgconn.PgError.
func (e *Error) SQLState() string { return e.Code }
