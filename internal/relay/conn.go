package relay

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Socket is what a relay can take over: *net.TCPConn or *net.UnixConn.
type Socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// Conn is the socket under a TLS connection, a client's or a backend's. Until a
// relay takes over, it is the socket. From then on a tlsrecord.Layer needs it no more. Of
// a tls.Conn the relay reads the socket and feeds what it read to the Conn: Read hands that out and then returns a
// temporary error, which tls.Conn survives, so that no goroutine waits for a
// record with a buffer in hand. A relay that also writes the socket sets a sink,
// which collects the records.
//
// Two goroutines must not read at the same time. One may write beside another
// that reads.
type Conn struct {
	Socket
	pending []byte  // is read before anything else
	fed     bool    // the relay reads the socket
	err     error   // how the socket's stream ended, once pending is used up
	sink    *[]byte // where written bytes go instead of the socket
	first   [1]byte
	pace    *pace // of reads; nil: none
}

// pace is what a client's reads have come to.
type pace struct{ short, received int }

// A read for which a goroutine has to be woken costs ten microseconds, and a client can have one for
// each byte. So freeReads that leave the socket empty are free, and one more for each freeBytes;
// from then on what comes is left to gather for slowRead before each. An honest client
// has a few, and one more for each segment of a long chain of certificates.
const (
	freeReads = 32
	freeBytes = 1 << 10
	slowRead  = 100 * time.Millisecond
)

// NewPacedConn returns a Conn over the socket of a client, which is read seldom if it sends little at a
// time, until EndPace.
func NewPacedConn(s Socket) *Conn { return &Conn{Socket: s, pace: new(pace)} }

// EndPace ends that.
func (c *Conn) EndPace() { c.pace = nil }

// readSocket reads the socket.
func (c *Conn) readSocket(p []byte) (int, error) {
	if c.pace == nil {
		return c.Socket.Read(p)
	}
	if c.pace.short > freeReads+c.pace.received/freeBytes {
		time.Sleep(slowRead)
	}
	n, err := c.Socket.Read(p)
	c.pace.received += n
	if n < len(p) {
		c.pace.short++
	}
	return n, err
}

// NewConn returns a Conn over s.
func NewConn(s Socket) *Conn { return &Conn{Socket: s} }

// wouldBlock is the error of a Conn that has nothing to read yet.
type wouldBlock struct{}

var errWouldBlock net.Error = wouldBlock{}

func (wouldBlock) Error() string { return "no data fed to the TLS connection yet" }
func (wouldBlock) Timeout() bool { return false }

// Temporary makes tls.Conn keep its state and try again on the next Read.
func (wouldBlock) Temporary() bool { return true }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	switch {
	case len(c.pending) > 0:
		n := copy(p, c.pending)
		if c.pending = c.pending[n:]; len(c.pending) == 0 {
			c.pending = nil // or an idle session would keep the buffer alive
		}
		return n, nil
	case !c.fed:
		return c.readSocket(p)
	case c.err != nil:
		return 0, c.err
	}
	return 0, errWouldBlock
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if c.sink == nil {
		return c.Socket.Write(p)
	}
	*c.sink = append(*c.sink, p...)
	return len(p), nil
}

// SetWriteDeadline implements net.Conn. tls.Conn calls it around its
// close_notify; a sink needs none.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.sink == nil {
		return c.Socket.SetWriteDeadline(t)
	}
	return nil
}

// Unread puts p before everything that is still to be read. The Conn keeps p.
func (c *Conn) Unread(p []byte) {
	if len(p) > 0 {
		c.pending = append(p[:len(p):len(p)], c.pending...)
	}
}

// Peek returns the next byte and leaves it to be read.
func (c *Conn) Peek() (byte, error) {
	if len(c.pending) == 0 {
		n, err := c.Read(c.first[:])
		if c.pending = c.first[:n]; n == 0 {
			return 0, err
		}
	}
	return c.pending[0], nil
}

// HasPrefix reports whether the next bytes are prefix, and leaves them to be read.
// It waits for no more bytes than it needs to decide. A stream that ends first has
// not the prefix; the next Read returns why it ended.
func (c *Conn) HasPrefix(prefix string) bool {
	for i := range len(prefix) {
		if len(c.pending) <= i {
			var next [1]byte
			if n, _ := c.readSocket(next[:]); n == 0 {
				return false
			}
			c.pending = append(c.pending, next[0])
		}
		if c.pending[i] != prefix[i] {
			return false
		}
	}
	return true
}

// IsReset reports whether err says that a connection was cut, by the peer or by
// the kernel on its behalf, instead of ended.
func IsReset(err error) bool {
	for _, e := range []error{syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, net.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
