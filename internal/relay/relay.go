package relay

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"pgwicket/internal/pgwire"
	"pgwicket/internal/tlsrecord"
)

// lingerTimeout is how long a client may take to close its side once the
// backend has ended the session and all its bytes have been delivered.
const lingerTimeout = 5 * time.Second

// firstByteTimeout is how long a backend may take for its first byte if its client has ended
// its side without a byte after the startup packet. There is nothing to answer then, and PostgreSQL
// itself takes the end of its input during the authentication for the client's leave
// (recv_password_packet in src/backend/libpq/auth.c).
const firstByteTimeout = 5 * time.Second

// boundaryWait is how long LoginMessage waits for a place between two messages.
const boundaryWait = 500 * time.Millisecond

// bufferSize holds many records of a client, so that one system call can move
// several of them.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Observer is what a Relay tells its owner. Its functions are called from the
// relay's own goroutines and must not block.
type Observer struct {
	// Moved counts bytes that were moved: to backends and to clients.
	Moved func(fromClient, toClient int)
	// Panicked gets a panic that has ended one session.
	Panicked func(recovered any)
}

// Session is a session that a relay takes over, with both its connections. The
// backend has been sent the startup packet; nothing else has passed.
type Session struct {
	Client     tlsrecord.Secure
	ClientConn *Conn // under Client
	Backend    *Conn
	BackendTLS tlsrecord.Secure // over Backend; nil: the backend's connection is in clear

	// LoginDeadline is when the backend must be ready for queries. If the client leaves before
	// either has sent a byte, it comes firstByteTimeout after Start. The client gets
	// LoginMessage then, an ErrorResponse, if it can be sent between two messages of the
	// backend; nil: it gets none.
	LoginDeadline time.Time
	LoginMessage  []byte
	// SilentMessage is sent in place of LoginMessage if the backend has sent nothing at
	// all; nil: LoginMessage is.
	SilentMessage []byte
	// Ready is called once if the backend gets ready for queries, by the relay
	// itself, which waits for it. What it returns, if anything, ends the session
	// there: the client gets its Message instead of the ReadyForQuery, or behind it if
	// the client has the beginning of that by then.
	Ready func(pgwire.Login) *Termination
	// Refused is called once if the backend refuses the login, with what it has sent so
	// far, before the client gets it: by the relay itself, as Ready. The client may
	// keep the connection open for long after that.
	Refused func(pgwire.Login)
	// Done is called once, in a goroutine of its own, when both connections are
	// closed.
	Done func(Result)
}

// loginMessage is what the client gets at the LoginDeadline, when the backend has sent
// so many bytes.
func (s *Session) loginMessage(sent int64) []byte {
	if sent == 0 && s.SilentMessage != nil {
		return s.SilentMessage
	}
	return s.LoginMessage
}

// Cause is what ended a session first.
type Cause uint8

// The causes.
const (
	ClientClosed  Cause = iota // the client ended its side in order
	ClientLost                 // the client's connection broke
	BackendClosed              // the backend ended its side in order
	BackendLost                // the backend's connection broke
	LoginTimeout               // the backend was not ready by LoginDeadline
	Terminated                 // Terminate
	Failed                     // an error of the relay itself
	LimitReached               // the client has asked for more than the relay grants it; Err says of what
)

func (c Cause) String() string {
	return [...]string{"client closed", "client lost", "backend closed", "backend lost", "login timeout", "terminated", "failed", "limit reached"}[c]
}

// Result is what a relay has done with a session.
type Result struct {
	FromClient, ToClient int64 // bytes to the backend and to the client, without TLS
	Cause                Cause
	Termination          uint8        // the Reason of the Termination, where Cause is Terminated
	Busy                 bool         // the backend had a request to work on
	Fatal                bool         // the last message of the backend says why it ends the session
	Err                  error        // what broke a connection or has failed, where Cause is one of those
	SQLSTATE             string       // of that message; empty: none, or not valid
	Login                pgwire.Login // what the backend sent before it was ready
}

// Termination is how a session is ended from outside.
//
// One without a Message is cut at once. A Message is an ErrorResponse in the
// backend's place, and can only stand between two of its messages: the relay waits
// for such a place, and then lets the client read all that came before. If there
// is none by the Deadline (as in a stream that is not followed), the session is cut.
//
// Unless it waits for an idle backend, no byte of the client is forwarded from its
// beginning on: what the client sends is read and dropped.
//
// A walsender that streams is never idle, and its client begins again where it was: it
// counts as idle, once what its client had sent when the session was to end has been
// forwarded.
type Termination struct {
	Reason   uint8 // the caller's own; Result has it back
	Message  []byte
	WhenIdle bool      // wait, too, until the backend is idle, outside of a transaction, with no request to answer
	Deadline time.Time // zero: none
	// Taken is called once, by the relay itself, when the relay has taken the Termination: from
	// then on, of one that does not wait for an idle backend, what the backend still sends ends
	// with the message that has begun. So what is done to the backend because of the
	// Termination belongs here, and the client hears nothing of it. It is called, too, if the session has
	// ended by then; nil: nothing is.
	Taken func()
}

// Handle controls a session that a relay has taken over. Any goroutine may call
// its methods at any time, also when the session has ended; none of them blocks.
type Handle interface {
	// Terminate ends the session. The last call before it has ended counts.
	Terminate(Termination)
	// TerminateIf is Terminate, if the session is in a state and has moved so many
	// bytes and not one more.
	TerminateIf(s State, t Termination, moved int64)
	// CancelTermination takes back a Termination that waits for an idle backend.
	CancelTermination()
	// Moved returns how many bytes have been moved so far, as Result has them.
	Moved() (fromClient, toClient int64)
	// Activity returns what the session does now.
	Activity() Activity
	// Movable reports whether another process can go on with the session.
	Movable() bool
	// Freeze stops the session between two events, and calls done with it, or with nil if it goes on: it logs
	// in, ends within seconds, or is not Movable. done is called by the relay itself, and not at all if the
	// relay stops before.
	Freeze(done func(*Frozen))
	// BackendClosed reports whether the backend's connection is closed. The
	// client's may be open for a while longer, until it has read the Message.
	BackendClosed() bool
}

// State is what a session waits for.
type State uint8

// The states. PostgreSQL's are those of pg_stat_activity. A session may be Unfinished
// in any of the others, or in none.
const (
	Idle              State = iota // for a request, outside of a transaction
	IdleInTransaction              // the same, inside of one
	Unfinished                     // for the client to send the rest of a request
)

// holds reports whether a session is in the state. queued says that bytes of its client
// wait for the backend to take them: until then the client owes nothing.
func (s State) holds(t *pgwire.Tracker, queued bool) bool {
	switch s {
	case Idle:
		return !t.Busy() && t.Status() == 'I'
	case IdleInTransaction:
		return !t.Busy() && t.Status() != 'I'
	case Unfinished:
		return t.Unfinished() && !queued
	}
	return false
}

// Activity is what a session does, in the words of pg_stat_activity where it has them.
type Activity uint32

// The activities.
const (
	LoggingIn Activity = iota // PostgreSQL is not ready for its first query
	Active                    // the backend works on a request, or streams
	Quiet                     // it waits for a request, outside of a transaction
	InTransaction
	InFailedTransaction
	NotFollowed  // the stream has broken the framing
	AwaitsClient // in its login: PostgreSQL has asked what the client has not answered
)

func (a Activity) String() string {
	return [...]string{"authentication", "active", "idle", "idle in transaction", "idle in transaction (aborted)", "unknown", "authentication"}[a]
}

func activityOf(t *pgwire.Tracker) Activity {
	switch {
	case t.Login != nil && t.Login.AwaitsClient():
		return AwaitsClient
	case t.Login != nil:
		return LoggingIn
	case !t.Known():
		return NotFollowed
	case t.Busy(), t.CopyBoth():
		return Active
	case t.Status() == 'T':
		return InTransaction
	case t.Status() == 'E':
		return InFailedTransaction
	}
	return Quiet
}

// followLogin has t follow p until the login is over, or until e may be sent. It
// returns how many bytes were followed, and where the last message of them begins;
// of one that has begun before p, where it ends.
func followLogin(t *pgwire.Tracker, e *Termination, p []byte) (n, start int) {
	whole := false
	for n < len(p) && t.Login != nil && (n == 0 || e == nil || !e.canSend(t)) {
		if t.AtBoundary() {
			start, whole = n, true
		}
		n += t.Next(p[n:])
	}
	if !whole {
		return n, n
	}
	return n, start
}

// follow has t follow p, the next bytes of the backend's stream, and returns how
// many of them come before the message: all of them, if its place is not within p.
func (e *Termination) follow(t *pgwire.Tracker, p []byte) (n int) {
	for n < len(p) {
		n += t.Next(p[n:])
		if e.canSend(t) {
			break
		}
	}
	return n
}

// canSend reports whether the message may be sent now.
func (e *Termination) canSend(t *pgwire.Tracker) bool {
	return t.AtBoundary() && (!e.WhenIdle || t.CopyBoth() || t.Status() == 'I' && !t.Busy())
}

// recordSize is the most that a TLS record for a client holds. An asynchronous
// user of libpq reads 8 KiB, waits for its socket, and may never ask for what
// OpenSSL still holds of a longer record: pg_basebackup hangs. PostgreSQL's own
// records are no longer, up to version 16 (PQ_SEND_BUFFER_SIZE in
// src/backend/libpq/pqcomm.c).
const recordSize = 8 << 10

// writeRecords writes p to a client in records of at most recordSize.
func writeRecords(client io.Writer, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), recordSize)
		if _, err := client.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// readAll reads until buf is full or there is nothing more to read.
func readAll(conn io.Reader, buf []byte) (have int, err error) {
	for err == nil && have < len(buf) {
		var n int
		n, err = conn.Read(buf[have:])
		have += n
	}
	return have, err
}

// clientFailure tells an error of a client's TLS: crypto/tls ends a stream of records
// without data after maxUselessRecords (crypto/tls/common.go) of them, which is no
// failure of the client (golang/go#80528), and a Layer one of KeyUpdates for little data.
func clientFailure(err error) Cause {
	if errors.Is(err, tlsrecord.ErrKeyUpdates) || strings.Contains(err.Error(), "too many non-advancing records") || strings.Contains(err.Error(), "too many ignored records") {
		return LimitReached
	}
	return ClientLost
}

// errManyAnswers ends a client that asks for more than maxAnswers.
var errManyAnswers = fmt.Errorf("the client asks for more than %d bytes of answers to KeyUpdates at a time", maxAnswers)

// errLingers is of a client that reads what is left for it too slowly, or does not
// close.
var errLingers = fmt.Errorf("the client has not closed within %v of the end of the session", lingerTimeout)

// A failure to write, told from a failure to read.
var (
	errBackendWrite = errors.New("cannot write to the backend")
	errClientWrite  = errors.New("cannot write to the client")
)
