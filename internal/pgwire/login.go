package pgwire

import (
	"bytes"
	"encoding/binary"
)

// The kinds of Authentication that ask for a password. AuthenticationSASL lists
// mechanisms.
const (
	authOK        = 0
	authCleartext = 3
	authMD5       = 5
	authSASL      = 10
	authSASLFinal = 12 // with the result
)

// maxLogin is how many bytes of one message a Login keeps: the longest cancel key
// with its process.
const maxLogin = 4 + maxCancelKey

// A Login is what the backend has sent before its first ReadyForQuery.
type Login struct {
	Authenticated bool // AuthenticationOk was sent
	Ready         bool // ReadyForQuery was sent
	Requested     bool // the client has sent a request before that
	Binding       bool // the backend offered channel binding (SCRAM-SHA-256-PLUS)
	Asked         bool // the backend asked for a password, in clear, as MD5 or by SASL
	Answered      bool // the client's first answer is complete
	// Discovery is a client that has asked with which OAuth provider it must log in
	// (RFC 7628, section 4.3), and not tried to: PostgreSQL answers with the provider
	// and ends the session with SQLSTATE 28000, or without an error.
	Discovery bool
	oauth     bool // the backend offered OAUTHBEARER

	PID      uint32 // from BackendKeyData; 0: not sent, as by some poolers
	Key      []byte // the cancel key: 4 bytes in protocol 3.0, up to 256 in 3.2
	SQLSTATE string // of the last ErrorResponse; empty: none, or not valid

	requests int // messages of the backend that want an answer
	answers  int // of the client
	part     []byte
	reply    []byte // of the client's first answer
}

// CancelKey returns the process and the key that a CancelRequest for the session
// must have, as they are on the wire; empty if the backend sent none.
func (l *Login) CancelKey() string {
	if len(l.Key) == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint32(nil, l.PID)) + string(l.Key)
}

// AwaitsResult reports whether the client has answered all that the backend has asked, and the
// backend has not said yet whether it accepts that. The password may have been guessed then.
func (l *Login) AwaitsResult() bool {
	return l.answers > 0 && l.answers >= l.requests && !l.Authenticated && !l.Ready && l.SQLSTATE == ""
}

// AwaitsClient reports whether the backend has asked what the client has not answered yet.
func (l *Login) AwaitsClient() bool {
	return l.requests > l.answers && !l.Authenticated && !l.Ready && l.SQLSTATE == ""
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
	if kind == msgAuthentication && len(body) >= 4 {
		if code := binary.BigEndian.Uint32(body); code != authOK && code != authSASLFinal {
			l.requests++
		}
	}
	switch {
	case kind == msgAuthentication && len(body) == 4 && binary.BigEndian.Uint32(body) == 0:
		l.Authenticated = true
	case kind == msgAuthentication && len(body) >= 4 && (binary.BigEndian.Uint32(body) == authCleartext || binary.BigEndian.Uint32(body) == authMD5):
		l.Asked = true
	case kind == msgAuthentication && len(body) > 4 && binary.BigEndian.Uint32(body) == authSASL:
		l.Asked = true
		l.Binding = bytes.Contains(body[4:], []byte("-PLUS\x00"))
		l.oauth = bytes.Contains(append([]byte{0}, body[4:]...), []byte("\x00"+oauthMechanism))
	case kind == msgBackendKeyData && len(body) > 4:
		l.PID = binary.BigEndian.Uint32(body)
		l.Key = bytes.Clone(body[4:])
	case kind == msgErrorResponse:
		l.SQLSTATE = e.sqlstate()
	case kind == msgReadyForQuery:
		l.Ready = true
		l.part, l.reply = nil, nil
	}
}

// oauthMechanism is OAUTHBEARER, terminated.
const oauthMechanism = "OAUTHBEARER\x00"

// answer follows a part of a client's message. Only the first answer to an offer of
// OAUTHBEARER says anything: PostgreSQL allows one exchange.
func (l *Login) answer(kind byte, part []byte, complete bool) {
	if kind != msgPassword {
		return
	}
	if complete {
		l.answers++
	}
	if l.Answered {
		return
	}
	if l.oauth && len(l.reply) <= maxLogin {
		l.reply = append(l.reply, part[:min(maxLogin+1-len(l.reply), len(part))]...)
	}
	if !complete {
		return
	}
	l.Answered = true
	l.Discovery = isDiscovery(l.reply)
	l.reply = nil
}

// isDiscovery reports whether a SASLInitialResponse has an empty token, as in
// oauth_exchange (src/backend/libpq/auth-oauth.c of PostgreSQL 18). PostgreSQL takes
// no second auth in it.
func isDiscovery(reply []byte) bool {
	const lengthLen = 4
	response, ok := bytes.CutPrefix(reply, []byte(oauthMechanism))
	return ok && len(reply) <= maxLogin && len(response) > lengthLen && bytes.Contains(response[lengthLen:], []byte("\x01auth=\x01"))
}
