package pgwire

import "encoding/binary"

// The client's messages that decide when the backend is ready for the next request.
const (
	msgQuery        = 'Q'
	msgFunctionCall = 'F'
	msgSync         = 'S'
	msgParse        = 'P'
	msgBind         = 'B'
	msgDescribe     = 'D'
	msgExecute      = 'E'
	msgClose        = 'C'
	msgFlush        = 'H'
	msgCopyDone     = 'c'
	msgCopyFail     = 'f'
	msgTerminate    = 'X'
)

// requests follows the client's side of a session and counts the ReadyForQuery
// messages that the backend still has to send: one for each Query, FunctionCall
// and Sync, except a Sync during COPY IN, which the backend ignores ("COPY
// Operations" in PostgreSQL's documentation).
type requests struct {
	rest   uint32 // bytes of the current message still to come
	owed   uint32 // ReadyForQuery messages still to come
	have   uint8  // bytes of its header so far
	header [headerLen]byte
	last   byte // kind of the last message
	synced bool // the last message that ReadyForQuery answers was a Sync
	open   bool // extended-protocol messages since then need a Sync
	broken bool
}

func (r *requests) follow(p []byte) {
	for !r.broken {
		n := min(int(r.rest), len(p))
		r.rest -= uint32(n)
		if p = p[n:]; len(p) == 0 {
			return
		}
		header := r.header[:]
		if r.have == 0 && len(p) >= headerLen {
			header, p = p[:headerLen], p[headerLen:]
		} else {
			n := copy(r.header[r.have:], p)
			r.have += uint8(n)
			if p = p[n:]; r.have < headerLen {
				return
			}
			r.have = 0
		}
		length := binary.BigEndian.Uint32(header[1:])
		r.broken = length < 4 || length > 1<<31-1
		r.rest = length - 4
		r.begin(header[0])
	}
}

func (r *requests) begin(kind byte) {
	r.last = kind
	switch kind {
	case msgQuery, msgFunctionCall, msgSync:
		r.owed++
		r.open, r.synced = false, kind == msgSync
	case msgParse, msgBind, msgDescribe, msgExecute, msgClose, msgFlush:
		r.open = true
	case msgCopyDone, msgCopyFail:
		// The client has seen CopyInResponse, so everything before has been
		// answered, and a Sync since then was ignored.
		if r.owed = min(r.owed, 1); r.owed > 0 && r.synced {
			r.owed, r.open = 0, true
		}
	}
}

func (r *requests) answered() {
	if r.owed > 0 {
		r.owed--
	}
}

func (r *requests) pending() bool { return r.owed > 0 || r.open || r.have > 0 || r.broken }
