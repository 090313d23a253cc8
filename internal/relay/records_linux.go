package relay

import (
	"crypto/tls"
	"errors"
	"io"

	"pgwicket/internal/tlsrecord"
)

// records is the TLS of a leg: a *tlsrecord.Layer, which says what its methods promise,
// or cryptoTLS, for what a Layer cannot take over.
type records interface {
	Open(plain, came, answer []byte) (opened, reply []byte, err error)
	End() error
	Seal(out, p []byte) ([]byte, error)
	CloseNotify(out []byte) []byte
	Wipe()
}

// cachedCiphers is how many sessions of a loop have the ciphers of their legs at hand.
// One with a message now and then pays a microsecond to make them.
const cachedCiphers = 512

// maxPartial is the most that a record may hold whose beginning came before.
const maxPartial = 17 << 10

// readAhead is what was read of a leg before the relay has it.
type readAhead struct {
	plain []byte // opened
	came  []byte // and not
}

// recordsOf returns the TLS of a leg over its socket.
func recordsOf(secure tlsrecord.Secure, under *Conn) (records, readAhead) {
	if ours, ok := secure.(*tlsrecord.Conn); ok {
		layer, plain := ours.Detach()
		return layer, readAhead{plain, under.pending}
	}
	theirs, _ := secure.(*tls.Conn)
	under.Socket, under.fed = nil, true
	return &cryptoTLS{tls: theirs, conn: under}, readAhead{} // it reads under itself
}

// cryptoTLS is a tls.Conn that is fed with what came, and whose records are collected.
type cryptoTLS struct {
	tls  *tls.Conn // over conn
	conn *Conn
	out  []byte
}

// collect has do write its records behind out.
func (c *cryptoTLS) collect(out []byte, do func()) []byte {
	c.out, c.conn.sink = out, &c.out
	do()
	out, c.out = c.out, nil
	return out
}

// Open implements records.
func (c *cryptoTLS) Open(plain, came, answer []byte) (_, _ []byte, err error) {
	if came != nil {
		c.conn.pending = came
	}
	answer = c.collect(answer, func() {
		for err == nil {
			if len(plain) == cap(plain) {
				plain = append(plain, make([]byte, bufferSize)...)[:len(plain)]
			}
			var n int
			n, err = c.tls.Read(plain[len(plain):cap(plain)])
			plain = plain[:len(plain)+n]
		}
	})
	if errors.Is(err, errWouldBlock) {
		err = nil
	}
	return plain, answer, err
}

// End implements records.
func (c *cryptoTLS) End() (err error) {
	c.conn.err = io.EOF // tls.Conn knows if a record was cut
	c.collect(nil, func() { _, err = c.tls.Read(make([]byte, 1)) })
	return err
}

// Seal implements records.
func (c *cryptoTLS) Seal(out, p []byte) (_ []byte, err error) {
	out = c.collect(out, func() { _, err = c.tls.Write(p) })
	return out, err
}

// CloseNotify implements records.
func (c *cryptoTLS) CloseNotify(out []byte) []byte {
	return c.collect(out, func() { _ = c.tls.CloseWrite() })
}

// Wipe implements records. The keys of a tls.Conn cannot be reached.
func (c *cryptoTLS) Wipe() {}

// use lets a leg's ciphers into the cache of its loop.
func (l *loop) use(r records) {
	if layer, ok := r.(*tlsrecord.Layer); ok {
		layer.Use(l.ciphers)
	}
}
