package tlsrecord

import (
	"encoding/binary"
	"net"
)

// tap is the connection under a tls.Conn during its handshake. It hands out one record at
// a time, so that crypto/tls has read none of the data when the handshake is over, and
// follows the records both ways.
type tap struct {
	net.Conn
	in, out follower
	pending []byte // read and not handed out yet
	over    bool   // the handshake is
}

func (t *tap) Read(p []byte) (int, error) {
	if t.over {
		return t.Conn.Read(p)
	}
	if len(t.pending) > 0 {
		n := copy(p, t.pending)
		n = t.in.follow(p[:n])
		if t.pending = t.pending[n:]; len(t.pending) == 0 {
			t.pending = nil
		}
		return n, nil
	}
	n, err := t.Conn.Read(p)
	m := t.in.follow(p[:n])
	t.pending = append(t.pending, p[m:n]...)
	return m, err
}

func (t *tap) Write(p []byte) (int, error) {
	for q := p; len(q) > 0 && !t.over; {
		q = q[t.out.follow(q):]
	}
	return t.Conn.Write(p)
}

// follower follows the records of one direction. The zero value stands before the first.
type follower struct {
	header  [headerLen]byte
	have    int    // bytes of it
	rest    int    // bytes of the current record still to come
	length  int    // of the current record
	sealed  int    // records since the last ChangeCipherSpec, which TLS 1.2 begins its keys with
	changed bool   // there was one
	hello   []byte // the beginning of the first handshake record
	random  []byte // of the ServerHello that stands there
}

const (
	serverHello = 2
	// The type and the length of the message and the version stand before its random
	// (RFC 5246, section 7.4.1.3).
	helloRandom = 1 + 3 + 2
)

// follow takes the next bytes, up to the end of the record that they are in, and returns
// how many it has taken.
func (f *follower) follow(p []byte) (n int) {
	if f.rest == 0 {
		n = copy(f.header[f.have:], p)
		if f.have += n; f.have < headerLen {
			return n
		}
		f.length = int(binary.BigEndian.Uint16(f.header[3:]))
		f.rest = f.length
		if f.changed {
			f.sealed++
		}
		if f.header[0] == typeChangeCipherSpec {
			f.changed, f.sealed = true, 0
		}
	}
	body := p[n:min(len(p), n+f.rest)]
	if missing := helloRandom + randomLen - len(f.hello); missing > 0 && f.header[0] == typeHandshake && f.random == nil {
		f.hello = append(f.hello, body[:min(missing, len(body))]...)
	}
	n += len(body)
	if f.rest -= len(body); f.rest == 0 {
		f.have = 0
		if f.header[0] == typeHandshake && f.random == nil {
			f.random = []byte{} // it is in the first record or nowhere
			if len(f.hello) == helloRandom+randomLen && f.hello[0] == serverHello {
				f.random = f.hello[helloRandom:]
			}
		}
	}
	return n
}

// finished reports whether the direction stands behind its Finished message of TLS 1.2
// and nothing else under its keys.
func (f *follower) finished(s *suite) bool {
	const length = messageHeaderLen + 12 // RFC 5246, section 7.4.9
	return f.sealed == 1 && f.header[0] == typeHandshake && f.length == s.explicit+length+tagLen
}
