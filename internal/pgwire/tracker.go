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
// messages, across any chunking, so that it is known at any moment whether the
// backend's stream stands between two of them, and whether the backend has
// something to do. It steps over contents; all that it reads of them is what its
// Login wants and the status of ReadyForQuery.
//
// A length that no message can have, or no ReadyForQuery (its status is one
// byte), makes the rest of the stream unknown: it is no longer followed, and is
// for the two ends to make sense of.
//
// The zero value stands at the beginning of a session, without a Login. A Tracker
// is not safe for concurrent use, and allocates nothing after the Login.
type Tracker struct {
	Login  *Login // gathers what the backend says until the first ReadyForQuery, and is nil from then on
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

// skip steps over the messages that are whole in p and hold nothing to read:
// rows, almost always, and many of them.
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
// in it, or to its own, and returns how far it has come.
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

// read looks at the next part of a message's contents.
func (t *Tracker) read(part []byte) {
	if t.Login != nil {
		t.Login.read(t.header[0], part, int(t.rest) == len(part))
	}
	if t.header[0] == msgReadyForQuery && len(part) > 0 {
		if t.status != 0 { // the first answers the startup packet
			t.client.answered()
		}
		t.status, t.Login = part[0], nil
	}
}

// AtBoundary reports whether the stream stands between two messages, the only
// place for one of ours.
func (t *Tracker) AtBoundary() bool { return t.have == 0 && !t.broken }

// Known reports whether the stream has kept to the framing so far.
func (t *Tracker) Known() bool { return !t.broken }

// Status is what the last ReadyForQuery said: 'I' idle, 'T' in a transaction,
// 'E' in a failed one; 0 before the first. While a query runs it is the status
// from before it.
func (t *Tracker) Status() byte { return t.status }

// Ask follows p, the next bytes of the client's stream. Its messages must be
// followed before their answers are.
func (t *Tracker) Ask(p []byte) { t.client.follow(p) }

// Busy reports whether the backend has anything to do, or to wait for, but the
// client's next request: it has not been ready for as many as there were, or one
// is not complete. A pipeline has many under way at once. A client that breaks
// the framing, or sends a Query where a Sync has to come, looks busy for good.
func (t *Tracker) Busy() bool { return t.status == 0 || t.client.underWay() }

// Terminated reports whether the last that the client has said was a Terminate.
// PostgreSQL may then close its side before the client has closed its own.
func (t *Tracker) Terminated() bool { return t.client.last == msgTerminate }

// maxLogin is how much of one message a Login keeps: the longest cancel key
// with its process, and the beginning of any error, where the SQLSTATE stands.
const maxLogin = 4 + maxCancelKey

// A Login is what the backend says of a session before its first
// ReadyForQuery.
type Login struct {
	Authenticated bool   // AuthenticationOk
	Ready         bool   // ReadyForQuery
	PID           uint32 // BackendKeyData; 0: not sent, as behind some poolers
	Key           []byte // the cancel key: 4 bytes in protocol 3.0, up to 256 in 3.2
	SQLSTATE      string // of the last ErrorResponse; empty: none
	Binding       bool   // it has offered an authentication that is bound to its certificate (SCRAM-SHA-256-PLUS)

	part []byte
}

// CancelKey is what a CancelRequest for the session has to prove itself with;
// empty if there is none.
func (l *Login) CancelKey() string {
	if len(l.Key) == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint32(nil, l.PID)) + string(l.Key)
}

// read gathers one message of kind from its parts; last says that it is
// complete.
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

// sqlstate finds the C field of an ErrorResponse. A backend that sends none, or
// one that is no SQLSTATE, gets none (pgbouncer's CVE-2026-6666).
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
