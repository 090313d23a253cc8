package proxy

import (
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"pgwicket/internal/pgwire"
)

// lingerTimeout is how long a client may take to close its side once the
// backend has ended the session and all it said has been delivered.
const lingerTimeout = 5 * time.Second

// bufferSize holds many records of a client, so that one system call can move
// several of them.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// handover is a session that a relay takes over, with both its connections. The
// backend has been sent the startup packet and nothing else has passed.
//
// A relay moves every byte both ways until both directions have ended. One that
// ends in order is passed on as a half-close; one that is cut ends both. The
// backend must be ready for queries by the deadline. An idle session holds no
// buffer, and a side that does not read stops the other one from being read.
type handover struct {
	client   *tls.Conn
	wire     *wire // under client
	backend  *upstream
	deadline time.Time
	// ready is called once if the backend gets ready for queries, by the relay
	// itself, which waits for it.
	ready func(pgwire.Login)
	// done is called once, in a goroutine of its own, when both connections
	// are closed.
	done func(relayed)
}

// relayed is what a relay has done with a session.
type relayed struct {
	up, down int64        // bytes to the backend and to the client
	cause    Outcome      // what ended it first
	busy     bool         // the backend had something to do
	login    pgwire.Login // what the backend said before it was ready
}

// reins are held on a session that a relay has taken over. All may be
// called by anybody, at any time, also when the session has ended.
type reins struct {
	end   func(ending)            // ends the session; the last call before it has ended counts
	close func(ending, int64)     // ends it if it is quiet: no byte has moved since so many, and nothing is under way
	spare func()                  // takes back an ending that waits for an idle backend
	moved func() (up, down int64) // as relayed has them, so far
}

// ending is how a session is to be ended from outside.
//
// One without words is cut at once. Words are a message of the backend's, an
// ErrorResponse, and can only stand between two of its messages: the relay waits
// for such a place, and then lets the client read all that came before. If there
// is none by the deadline (as in a stream that is not followed), the session is cut.
type ending struct {
	cause Outcome
	words []byte
	idle  bool      // wait, too, until the backend is idle, outside of a transaction and with no query to answer
	by    time.Time // zero: no deadline
}

// follow has t follow p, the next bytes of the backend's stream, and returns how
// many of them come before the words: all, if their time is not within them.
func (e *ending) follow(t *pgwire.Tracker, p []byte) (n int) {
	for n < len(p) {
		n += t.Next(p[n:])
		if e.may(t) {
			break
		}
	}
	return n
}

// may says whether the words may be sent now.
func (e *ending) may(t *pgwire.Tracker) bool {
	return t.AtBoundary() && (!e.idle || t.Status() == 'I' && !t.Busy())
}

// settle finds the cause of a session that its backend never made ready. The
// client may be faster to leave, once it has read why, than the backend is.
func (r *relayed) settle() {
	switch r.cause {
	case BackendClosed, ClientClosed, ClientLost:
	default:
		return
	}
	if r.login.Ready || r.login.SQLSTATE == "" {
		return
	}
	r.cause = BackendRefused
	if r.login.SQLSTATE[:2] == "28" { // invalid authorization specification
		r.cause = AuthenticationFailed
	}
}

// recordSize is the most that a TLS record for a client holds. A libpq that is used
// asynchronously reads 8 KiB, waits for its socket, and may never ask for what
// OpenSSL still has of a longer record: pg_basebackup hangs. PostgreSQL's own
// records are no longer, up to version 16.
const recordSize = 8 << 10

// say writes p to a client in records that it can take.
func say(client *tls.Conn, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), recordSize)
		if _, err := client.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// A failure to write, told from a failure to read.
var (
	errBackendGone = errors.New("the backend takes no more")
	errClientGone  = errors.New("the client takes no more")
)
