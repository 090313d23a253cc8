package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Conn is a connection to a server or a gate. It is not safe for concurrent use,
// except that one goroutine may read while another writes.
type Conn struct {
	net.Conn              // TCP, and from Handshake on TLS
	TCP      *net.TCPConn // nil if New was not given one
	TLS      *tls.Conn    // nil before Handshake

	r *bufio.Reader // of Conn; nil until a message is read
}

// Dial opens a connection, which must do all that it is for within that time:
// that is its deadline.
func Dial(ctx context.Context, address string, within time.Duration) (*Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return New(c), c.SetDeadline(time.Now().Add(within))
}

// New returns a Conn that has sent nothing yet.
func New(c net.Conn) *Conn {
	tcp, _ := c.(*net.TCPConn)
	return &Conn{Conn: c, TCP: tcp}
}

// Send writes messages with one call.
func (c *Conn) Send(messages string) error {
	_, err := io.WriteString(c.Conn, messages)
	return err
}

// Request sends an SSLRequest or a GSSENCRequest and returns the byte that answers
// it. After an E, ReadBody reads the rest of the error.
func (c *Conn) Request(code uint32) (answer byte, err error) {
	if err := c.Send(Request(code)); err != nil {
		return 0, err
	}
	if c.r != nil {
		return c.r.ReadByte()
	}
	// Unbuffered: what comes next may be TLS.
	var b [1]byte
	_, err = io.ReadFull(c.Conn, b[:])
	return b[0], err
}

// RequestTLS sends an SSLRequest, which must be accepted.
func (c *Conn) RequestTLS() error {
	answer, err := c.Request(SSLRequest)
	if err == nil && answer != 'S' {
		err = fmt.Errorf("the answer to SSLRequest is %q", answer)
	}
	return err
}

// Handshake goes over to TLS.
func (c *Conn) Handshake(ctx context.Context, config *tls.Config) error {
	t := tls.Client(c.Conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	c.Conn, c.TLS, c.r = t, t, nil
	return nil
}

// LogIn does the handshake and the startup, up to ReadyForQuery.
func (c *Conn) LogIn(ctx context.Context, config *tls.Config, parameters ...string) error {
	if err := c.Handshake(ctx, config); err != nil {
		return err
	}
	return c.Exchange(Startup(Protocol30, parameters...))
}

// Exchange sends messages and reads up to ReadyForQuery.
func (c *Conn) Exchange(messages string) error {
	if err := c.Send(messages); err != nil {
		return err
	}
	_, err := c.Skip('Z')
	return err
}

// Await reads messages up to one of this kind and returns its body. An
// ErrorResponse is an *Error.
func (c *Conn) Await(kind byte) ([]byte, error) {
	for {
		got, body, err := c.ReadMessage()
		switch {
		case err != nil:
			return nil, err
		case got == kind:
			return body, nil
		case got == 'E':
			return nil, newError(body)
		}
	}
}

// Skip is Await that keeps no message, and returns how many bytes they had.
func (c *Conn) Skip(kind byte) (n int64, err error) {
	for {
		head, err := c.reader().Peek(5)
		if err != nil {
			return n, err
		}
		got, size := head[0], 1+int(binary.BigEndian.Uint32(head[1:]))
		if got == 'E' && got != kind {
			_, body, err := c.ReadMessage()
			if err == nil {
				err = newError(body)
			}
			return n, err
		}
		if _, err := c.r.Discard(size); err != nil {
			return n, err
		}
		n += int64(size)
		if got == kind {
			return n, nil
		}
	}
}

// ReadMessage reads one message.
func (c *Conn) ReadMessage() (kind byte, body []byte, err error) {
	if kind, err = c.reader().ReadByte(); err != nil {
		return 0, nil, err
	}
	body, err = c.ReadBody()
	return kind, body, err
}

// ReadBody reads what comes after a message's kind.
func (c *Conn) ReadBody() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.reader(), head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 4 || n > 1<<30 { // MaxAllocSize of PostgreSQL
		return nil, errors.New("no message has that length")
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(c.reader(), body)
	return body, err
}

func (c *Conn) reader() *bufio.Reader {
	if c.r == nil {
		c.r = bufio.NewReader(c.Conn)
	}
	return c.r
}

// CloseTCP closes the connection without close_notify.
func (c *Conn) CloseTCP() { _ = c.TCP.Close() }

// Reset closes the connection with a TCP reset.
func (c *Conn) Reset() {
	_ = c.TCP.SetLinger(0)
	_ = c.TCP.Close()
}
