package pgwire

import (
	"bytes"
	"encoding/binary"
)

// headerLen is the length of a message's type byte and length word; the length
// counts itself but not the type.
const headerLen = 5

// The backend's messages that a Tracker looks into.
const (
	msgAuthentication = 'R'
	msgBackendKeyData = 'K'
	msgErrorResponse  = 'E'
	msgReadyForQuery  = 'Z'
)

// authSASL is the kind of AuthenticationSASL, which lists mechanisms.
const authSASL = 10

// A Tracker follows a session after its startup packet by the headers of the
// messages, in chunks of any size. It tells at any moment whether the backend's
// stream is between two messages, and whether the backend is busy. It skips the
// contents of messages, except the status of ReadyForQuery and what Login needs.
//
// A length that no message, or no ReadyForQuery, can have makes the rest of the
// stream unknown: the tracker no longer follows it.
//
// The zero value is the beginning of a session, without a Login. A Tracker is not
// safe for concurrent use, and allocates nothing after the Login.
type Tracker struct {
	Login  *Login // filled until the first ReadyForQuery, and nil from then on
	rest   uint32 // bytes of the current message still to come
	have   uint8  // bytes of its header so far
	status byte
	broken bool
	header [headerLen]byte
	client requests
}

// Feed follows p, the next bytes of the stream.
func (t *Tracker) Feed(p []byte) {
	for len(p) > 0 {
		p = t.skip(p)
		p = p[t.Next(p):]
	}
}

// skip skips the messages that are complete in p and have nothing to read, almost
// always rows, and returns the rest of p.
func (t *Tracker) skip(p []byte) []byte {
	if t.have > 0 || t.Login != nil || t.broken {
		return p
	}
	for len(p) >= headerLen && p[0] != msgReadyForQuery {
		length := binary.BigEndian.Uint32(p[1:])
		if length < 4 || length >= uint32(len(p)) {
			break
		}
		p = p[1+length:]
	}
	return p
}

// Next follows p, the next bytes of the stream, to the end of the first message
// in it or to the end of p, and returns the number of bytes followed.
func (t *Tracker) Next(p []byte) (n int) {
	if t.broken {
		return len(p)
	}
	if t.have < headerLen {
		n = copy(t.header[t.have:], p)
		t.have += uint8(n)
		if t.have < headerLen {
			return n
		}
		length := binary.BigEndian.Uint32(t.header[1:])
		if length < 4 || length > 1<<31-1 || t.header[0] == msgReadyForQuery && length != 5 {
			t.broken, t.Login = true, nil
			return len(p)
		}
		t.rest = length - 4
	}
	part := p[n:]
	part = part[:min(int(t.rest), len(part))]
	t.read(part)
	if t.rest -= uint32(len(part)); t.rest == 0 {
		t.have = 0
	}
	return n + len(part)
}

// read reads the next part of a message's contents.
func (t *Tracker) read(part []byte) {
	if t.Login != nil {
		t.Login.read(t.header[0], part, int(t.rest) == len(part))
	}
	if t.header[0] == msgReadyForQuery && len(part) > 0 {
		if t.status != 0 { // the first one answers the startup packet
			t.client.answered()
		}
		t.status, t.Login = part[0], nil
	}
}

// AtBoundary reports whether the backend's stream is between two messages, the
// only place where a message of the gate may be inserted.
func (t *Tracker) AtBoundary() bool { return t.have == 0 && !t.broken }

// Known reports whether the backend's stream is still followed.
func (t *Tracker) Known() bool { return !t.broken }

// Status returns the status of the last ReadyForQuery: 'I' idle, 'T' in a
// transaction, 'E' in a failed one; 0 before the first. While a query runs it is
// the status from before the query.
func (t *Tracker) Status() byte { return t.status }

// Ask follows p, the next bytes of the client's stream. It must be called before
// the answers to p are fed.
func (t *Tracker) Ask(p []byte) { t.client.follow(p) }

// Busy reports whether the backend is doing anything but waiting for the client's
// next request: a request has not been answered by ReadyForQuery, or is not
// complete. A session whose client breaks the framing, or sends a Query instead of
// the Sync that is due, remains busy.
func (t *Tracker) Busy() bool { return t.status == 0 || t.client.pending() }

// Terminated reports whether the client's last message was a Terminate.
// PostgreSQL may then close the connection before the client does.
func (t *Tracker) Terminated() bool { return t.client.last == msgTerminate }

// maxLogin is how many bytes of one message a Login keeps: the longest cancel key
// with its process, and the beginning of an error, which has the SQLSTATE.
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

// read collects the parts of one message and reads it after the last one.
func (l *Login) read(kind byte, part []byte, last bool) {
	if room := maxLogin - len(l.part); room > 0 {
		l.part = append(l.part, part[:min(room, len(part))]...)
	}
	if !last {
		return
	}
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
		l.SQLSTATE = sqlstate(body)
	case kind == msgReadyForQuery:
		l.Ready = true
		l.part = nil
	}
}

// sqlstate returns the C field of an ErrorResponse, or "" if there is none or it is
// not a SQLSTATE (CVE-2026-6666 of PgBouncer).
func sqlstate(body []byte) string {
	for field := range bytes.SplitSeq(body, []byte{0}) {
		if len(field) == 6 && field[0] == 'C' {
			for _, c := range field[1:] {
				if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
					return ""
				}
			}
			return string(field[1:])
		}
	}
	return ""
}
