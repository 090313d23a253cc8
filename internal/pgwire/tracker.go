package pgwire

import "encoding/binary"

// A Tracker follows a session after its startup packet by the messages of both
// sides, in chunks of any size. It tells at any moment
//
//   - whether the backend's stream is between two messages (AtBoundary);
//   - what pg_stat_activity would show for the session: Busy is the state "active",
//     Status tells "idle" from "idle in transaction";
//   - whether the client owes the rest of a request (Unfinished);
//   - whether the client or the backend has announced the end (Terminated, Fatal).
//
// It reads the types and lengths of messages, and of contents only the status of
// ReadyForQuery, the severity and SQLSTATE of errors and notices, and what Login
// needs. Ask must be called with the client's bytes before they are sent to the
// backend, Feed or Next with the backend's in the order in which they come.
//
// A length that no message, or no ReadyForQuery, can have makes the rest of that
// stream unknown, and it is no longer followed. Where it is the client's, Busy and
// Unfinished remain true.
//
// The zero value is the beginning of a session, without a Login. A Tracker is not
// safe for concurrent use, and must not be copied once it is in use. After the Login
// it allocates only for a client that has more than five runs of different requests
// unanswered, four bytes for each further run, and up to a bound.
type Tracker struct {
	Login    *Login // filled until the first ReadyForQuery, and nil from then on
	backend  frames
	client   frames
	last     report // of the backend's last message, complete or not
	status   byte
	ended    bool // the backend's last message said why it ends the session
	left     bool // the client's last message was a Terminate
	requests requests
}

// Feed follows p, the next bytes of the backend's stream.
func (t *Tracker) Feed(p []byte) {
	for p = t.followWhole(p); len(p) > 0; p = t.followWhole(p) {
		p = p[t.Next(p):]
	}
}

// followWhole follows the messages that are complete in p, and returns the rest of p.
// It stops at one whose contents are to be read. It is a faster Next for rows.
func (t *Tracker) followWhole(p []byte) []byte {
	if t.backend.partial() || t.backend.broken || t.status == 0 {
		return p
	}
	for len(p) >= headerLen {
		length := binary.BigEndian.Uint32(p[1:])
		if length < 4 || length >= uint32(len(p)) {
			break
		}
		switch kind := p[0]; kind {
		case msgReadyForQuery, msgErrorResponse, msgNotice:
			return p
		case msgDataRow, msgCopyData:
			if !t.requests.active || !t.requests.answered {
				t.requests.received(kind, nil)
			}
		default:
			t.requests.received(kind, nil)
		}
		t.ended = false
		p = p[1+length:]
	}
	return p
}

// Next follows p, the next bytes of the backend's stream, to the end of the first
// message in it or to the end of p, and returns the number of bytes followed.
func (t *Tracker) Next(p []byte) (n int) {
	if t.backend.broken {
		return len(p)
	}
	if !t.backend.partial() && t.last.begun {
		t.last, t.ended = report{}, false
	}
	n, contents, complete := t.backend.next(p)
	kind := t.backend.kind()
	if t.backend.broken || kind == msgReadyForQuery && !t.readyForQuery(contents, complete) {
		t.backend.broken, t.Login = true, nil
		return len(p)
	}
	if kind == msgErrorResponse || kind == msgNotice {
		t.last.read(contents)
	}
	if t.Login != nil {
		t.Login.collect(contents)
	}
	if complete {
		t.complete(kind)
	}
	return n
}

// readyForQuery reads the status from the contents of a ReadyForQuery. It reports
// whether the message has the only length that it can have.
func (t *Tracker) readyForQuery(contents []byte, complete bool) bool {
	if !complete && !t.backend.headerComplete() {
		return true
	}
	if binary.BigEndian.Uint32(t.backend.header[1:]) != 5 {
		return false
	}
	if len(contents) > 0 {
		if t.status != 0 { // the first one answers the startup packet
			t.requests.ready()
		}
		t.status = contents[0]
	}
	return true
}

// complete follows the end of a message.
func (t *Tracker) complete(kind byte) {
	t.ended = t.last.ends(kind)
	if t.Login != nil {
		t.Login.received(kind, &t.last)
		if kind == msgReadyForQuery {
			t.Login.Requested = t.requests.busy()
			t.Login = nil
		}
	}
	t.received(kind)
}

// received has the requests follow the end of a message.
func (t *Tracker) received(kind byte) {
	if t.status != 0 && kind != msgReadyForQuery {
		t.requests.received(kind, &t.last)
	}
}

// Ask follows p, the next bytes of the client's stream.
func (t *Tracker) Ask(p []byte) {
	for len(p) > 0 && !t.client.broken {
		if !t.client.partial() && t.Login == nil {
			if p = t.askWhole(p); len(p) == 0 {
				return
			}
		}
		n, contents, complete := t.client.next(p)
		p = p[n:]
		if t.Login != nil {
			t.Login.answer(t.client.kind(), contents, complete)
		}
		if complete {
			t.sent(t.client.kind())
		}
	}
}

// askWhole follows the messages that are complete in p, and returns the rest of p.
func (t *Tracker) askWhole(p []byte) []byte {
	for len(p) >= headerLen {
		length := binary.BigEndian.Uint32(p[1:])
		if length < 4 || length >= uint32(len(p)) {
			break
		}
		t.sent(p[0])
		p = p[1+length:]
	}
	return p
}

func (t *Tracker) sent(kind byte) {
	t.left = kind == msgTerminate
	if kind != msgCopyData {
		t.requests.sent(kind)
	}
}

// AtBoundary reports whether the backend's stream is between two messages, the
// only place where a message of the gate may be inserted.
func (t *Tracker) AtBoundary() bool { return !t.backend.partial() && !t.backend.broken }

// Known reports whether the backend's stream is still followed.
func (t *Tracker) Known() bool { return !t.backend.broken }

// Status returns the status of the last ReadyForQuery: 'I' idle, 'T' in a
// transaction, 'E' in a failed one; 0 before the first. While the session is busy it
// is the status from before.
func (t *Tracker) Status() byte { return t.status }

// Busy reports whether pg_stat_activity would show the session as active, or
// will once the backend has taken what the client has sent. It is true before the
// first ReadyForQuery.
//
// It is active, as in pg_stat_activity, while it waits for the data of a COPY, and
// after a Parse, Bind or Execute until the Sync has been answered, also when they
// have failed; Unfinished tells these. It is not active while a message is not
// complete, nor for Describe, Close and Flush alone.
func (t *Tracker) Busy() bool {
	return t.status == 0 || t.client.broken || t.requests.busy()
}

// Unfinished reports whether the client has begun a request that the backend cannot
// answer before the client sends more: a part of a message, extended-protocol
// messages without a Sync (or a Flush that is still unanswered), a COPY whose data
// has not been ended by CopyDone or CopyFail. It does not depend on Busy. It is true
// for good if the client's stream cannot be followed, and false before the first
// ReadyForQuery.
//
// An honest client may be in this state for hours, as in a large COPY, while it sends
// data. It owes nothing while what it has sent waits for a backend that does not read.
func (t *Tracker) Unfinished() bool {
	return t.status != 0 && (t.client.partial() || t.client.broken || t.requests.unfinished())
}

// CopyBoth reports whether the session streams in both directions, as a walsender
// does after START_REPLICATION. It is then busy until the stream ends.
func (t *Tracker) CopyBoth() bool { return t.requests.copyBoth }

// Terminated reports whether the client's last message was a Terminate.
// PostgreSQL may then close the connection before the client does.
func (t *Tracker) Terminated() bool { return t.left }

// Fatal reports whether the backend's last message was one that ends the session: an
// ErrorResponse of severity FATAL or PANIC, or the warning with SQLSTATE 57P01 or
// 57P02 that PostgreSQL sends instead at an immediate shutdown or after a crash. The
// SQLSTATE is empty if the message has none, or none that is valid.
func (t *Tracker) Fatal() (sqlstate string, ok bool) {
	if !t.ended {
		return "", false
	}
	return t.last.sqlstate(), true
}
