package pgwire

import (
	"bytes"
	"encoding/binary"
)

// authSASL is the kind of AuthenticationSASL, which lists mechanisms.
const authSASL = 10

// maxLogin is how many bytes of one message a Login keeps: the longest cancel key
// with its process.
const maxLogin = 4 + maxCancelKey

// A Login is what the backend has sent before its first ReadyForQuery.
type Login struct {
	Authenticated bool   // AuthenticationOk was sent
	Ready         bool   // ReadyForQuery was sent
	PID           uint32 // from BackendKeyData; 0: not sent, as by some poolers
	Key           []byte // the cancel key: 4 bytes in protocol 3.0, up to 256 in 3.2
	SQLSTATE      string // of the last ErrorResponse; empty: none, or not valid
	Binding       bool   // the backend offered channel binding (SCRAM-SHA-256-PLUS)

	part []byte
}

// CancelKey returns the process and the key that a CancelRequest for the session
// must have, as they are on the wire; empty if the backend sent none.
func (l *Login) CancelKey() string {
	if len(l.Key) == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint32(nil, l.PID)) + string(l.Key)
}

// collect keeps a part of the contents of a message.
func (l *Login) collect(part []byte) {
	if room := maxLogin - len(l.part); room > 0 {
		l.part = append(l.part, part[:min(room, len(part))]...)
	}
}

// received reads a complete message from the parts that were collected; e is what an
// ErrorResponse says.
func (l *Login) received(kind byte, e *report) {
	body := l.part
	l.part = l.part[:0]
	switch {
	case kind == msgAuthentication && len(body) == 4 && binary.BigEndian.Uint32(body) == 0:
		l.Authenticated = true
	case kind == msgAuthentication && len(body) > 4 && binary.BigEndian.Uint32(body) == authSASL:
		l.Binding = bytes.Contains(body[4:], []byte("-PLUS\x00"))
	case kind == msgBackendKeyData && len(body) > 4:
		l.PID = binary.BigEndian.Uint32(body)
		l.Key = bytes.Clone(body[4:])
	case kind == msgErrorResponse:
		l.SQLSTATE = e.sqlstate()
	case kind == msgReadyForQuery:
		l.Ready = true
		l.part = nil
	}
}
