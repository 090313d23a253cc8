package tlsrecord

import (
	"errors"
	"io"
	"net"
	"slices"
)

// Conn is an established TLS connection for a goroutine that waits. Only one goroutine
// may read and write it at a time; deadlines and Close are the transport's.
type Conn struct {
	net.Conn
	layer  *Layer
	plain  []byte // opened and not read yet
	opened []byte // the room of plain
	err    error
	buf    [512]byte
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	for len(c.plain) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.plain)
	c.plain = c.plain[n:]
	return n, nil
}

// fill reads the transport once. An error of the transport that is not its end is not
// kept: it may be a deadline that has passed.
func (c *Conn) fill() error {
	n, err := c.Conn.Read(c.buf[:])
	if n > 0 {
		var answer []byte
		c.plain, answer, c.err = c.layer.Open(c.opened[:0], c.buf[:n], nil)
		c.opened = c.plain
		if len(answer) > 0 {
			if _, e := c.Conn.Write(answer); e != nil && c.err == nil {
				c.err = e
			}
		}
		return nil
	}
	if errors.Is(err, io.EOF) {
		c.err = c.layer.End()
		return nil
	}
	return err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	out, err := c.layer.Seal(nil, slices.Clip(p))
	if err != nil {
		return 0, err
	}
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite implements Secure.
func (c *Conn) CloseWrite() error {
	out := c.layer.CloseNotify(nil)
	if len(out) == 0 {
		return nil
	}
	_, err := c.Conn.Write(out)
	return err
}

// Detach returns the Layer and what it has opened that was not read yet. The Conn must
// not be used any more.
func (c *Conn) Detach() (*Layer, []byte) { return c.layer, c.plain }
