package proxy

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// socket is what a relay can take over: *net.TCPConn or *net.UnixConn.
type socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// wire is the socket under a TLS connection, a client's or a backend's. Until a relay takes
// over, it is the socket. From then on the relay reads the socket and feeds
// what it got: Read hands that out and then reports errWouldBlock, which
// tls.Conn survives, so that nobody waits for a record with a buffer in hand.
// A relay that also writes the socket itself sets sink, where records are
// collected.
//
// Not safe for concurrent use by two readers; writing beside reading is fine.
type wire struct {
	socket
	pending []byte  // to be read before anything else
	fed     bool    // the relay reads the socket
	err     error   // how the socket's stream ended, once pending is used up
	sink    *[]byte // where written bytes go instead of the socket
	turns   turns   // of a handshake: whose turn is given up while it waits for the client
	first   [1]byte
}

// wouldBlock is the error of a wire that has nothing to read yet.
type wouldBlock struct{}

var errWouldBlock net.Error = wouldBlock{}

func (wouldBlock) Error() string { return "no data fed to the TLS connection yet" }
func (wouldBlock) Timeout() bool { return false }

// Temporary makes tls.Conn keep its state and try again on the next Read.
func (wouldBlock) Temporary() bool { return true }

func (w *wire) Read(p []byte) (int, error) {
	switch {
	case len(w.pending) > 0:
		n := copy(p, w.pending)
		if w.pending = w.pending[n:]; len(w.pending) == 0 {
			w.pending = nil // or an idle session would keep the buffer alive
		}
		return n, nil
	case !w.fed && w.turns != nil:
		w.turns.give()
		defer w.turns.take()
		return w.socket.Read(p)
	case !w.fed:
		return w.socket.Read(p)
	case w.err != nil:
		return 0, w.err
	}
	return 0, errWouldBlock
}

func (w *wire) Write(p []byte) (int, error) {
	if w.sink == nil {
		return w.socket.Write(p)
	}
	*w.sink = append(*w.sink, p...)
	return len(p), nil
}

// SetWriteDeadline is called by tls.Conn around its close_notify; a sink needs
// none.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.sink == nil {
		return w.socket.SetWriteDeadline(t)
	}
	return nil
}

// peek returns the next byte and leaves it to be read: a TLS record begins
// with another byte than any start-up packet.
func (w *wire) peek() (byte, error) {
	if len(w.pending) == 0 {
		n, err := w.Read(w.first[:])
		if w.pending = w.first[:n]; n == 0 {
			return 0, err
		}
	}
	return w.pending[0], nil
}

// begins reports whether the next bytes are these, and leaves them to be read. It
// waits for no more of them than it takes to know.
func (w *wire) begins(with string) bool {
	for i := range len(with) {
		if len(w.pending) <= i {
			var next [1]byte
			if n, _ := w.socket.Read(next[:]); n == 0 {
				return false // whoever reads on sees why
			}
			w.pending = append(w.pending, next[0])
		}
		if w.pending[i] != with[i] {
			return false
		}
	}
	return true
}

// isReset reports whether a connection was cut, by the peer or by the kernel
// on its behalf, rather than ended.
func isReset(err error) bool {
	for _, e := range []error{syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, net.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
