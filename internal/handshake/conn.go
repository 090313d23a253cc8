// Package handshake bounds what a client can make the gate compute and keep before its
// session: processors, bytes and TLS records.
package handshake

import (
	"context"
	"crypto/tls"
	"errors"
	"io"

	"pgwicket/internal/pgwire"
	"pgwicket/internal/relay"
)

// The types of TLS records that are looked for (RFC 8446, section 5.1). RecordHandshake is
// the first byte of a ClientHello's record.
const (
	RecordHandshake        = 0x16
	recordAlert            = 0x15
	recordChangeCipherSpec = 0x14
)

// Bounds of what may come between the handshake and the end of the startup packet:
// bytes, and records, each of which could be a KeyUpdate that costs us a new key for
// 27 bytes (RFC 8446, section 4.6.3). A client may send a record for each byte of its
// startup packet, up to startupEarned, and startupRecords more. They are judged before each
// read, when crypto/tls has opened all that was read before and Reader has counted what it
// brought; startupRead bounds a read that goes beyond the current record, and thereby what
// can come too much.
//
// OpenSSL pads a record to 16 KiB if it is told to (RecordPadding), and record_size_limit
// can ask for records of 64 bytes (RFC 8449), 157 for the longest packet.
const (
	startupBytes   = pgwire.MaxStartupPacket + 2*(16<<10+256)
	startupRecords = 8
	startupEarned  = 256
	startupRead    = 256
)

// What a connection fails with for a client that sends too much.
var (
	ErrTooLarge       = errors.New("the client sends more than limits.max_handshake_bytes")
	ErrTooManyRecords = errors.New("the client sends too many TLS records for one startup packet")
)

// Conn is the socket under a client's tls.Conn, which bounds what an
// unproved client may make us compute and keep. During the handshake it holds a
// slot but while it waits for the client, to read or to write; then it only counts,
// until Release.
type Conn struct {
	*relay.Conn
	ctx     context.Context // ends when the connection is cut
	slots   Slots           // nil: no handshake is under way
	holds   bool            // a slot
	left    int             // bytes that may still come
	startup bool            // the handshake is over, and records are counted
	records int             // that may still come
	earned  int             // that data may still add to them
	rest    int             // bytes of the current record, its header included, still to come
	header  []byte          // of the next record, as far as it has come
	hello   []byte          // what the client sent first; until the handshake is done
	alert   []byte          // the last alert in clear: its level and its description
	kind    byte            // of the current record
	sent    messages        // in clear; until the handshake is done
	free    bool            // nothing is counted any more
}

// NewConn returns the connection under a tls.Conn, which must make its handshake in Run. Its
// reads and writes fail once ctx has ended while the handshake waits for a slot. A client
// may send most bytes for its handshake.
func NewConn(ctx context.Context, socket *relay.Conn, slots Slots, most int) *Conn {
	return &Conn{Conn: socket, ctx: ctx, slots: slots, left: most}
}

// ExpectStartup begins to count what comes after the handshake.
func (h *Conn) ExpectStartup() {
	h.startup, h.left, h.records, h.earned = true, startupBytes, startupRecords, startupEarned
}

// Silent reports of a handshake that has failed whether the client has sent nothing for it.
func (h *Conn) Silent() bool { return len(h.hello) == 0 }

// Alert returns the last alert that the client has sent in clear.
func (h *Conn) Alert() (alert tls.AlertError, sent bool) {
	if len(h.alert) < alertLen {
		return 0, false
	}
	return tls.AlertError(h.alert[1]), true
}

// ServerName returns the host name in the ClientHello of a handshake that has failed, as the
// client has sent it; empty if there is none.
func (h *Conn) ServerName() string { return serverNameOf(h.hello) }

// Certificates returns the certificates that the client of a handshake that has failed has sent
// in clear, which it does in TLS 1.2 and before; nil if there are none, or too many to keep.
func (h *Conn) Certificates() [][]byte { return h.sent.certificates() }

// Release ends the counting: the relay has the connection.
func (h *Conn) Release() {
	h.free, h.header, h.alert = true, nil, nil
	h.EndPace()
}

// Unread puts p before everything that is still to be read. It must begin a record, whose counting
// begins again when it is read.
func (h *Conn) Unread(p []byte) {
	if len(p) > 0 {
		h.rest, h.header = 0, nil
	}
	h.Conn.Unread(p)
}

func (h *Conn) Read(p []byte) (n int, err error) {
	if h.free {
		return h.Conn.Read(p)
	}
	if h.left <= 0 {
		return 0, ErrTooLarge
	}
	p = p[:min(len(p), h.left)]
	if h.startup {
		if h.records < 0 {
			return 0, ErrTooManyRecords
		}
		p = p[:min(len(p), max(startupRead, h.rest))]
	}
	h.pause()
	n, err = h.Conn.Read(p)
	if e := h.resume(); e != nil {
		return 0, e
	}
	h.left -= n
	h.count(p[:n])
	if h.slots != nil && (len(h.hello) == 0 || !h.sent.ended) { // else it is behind the ClientHello
		h.hello = append(h.hello, p[:min(n, maxHello-len(h.hello))]...)
	}
	return n, err
}

func (h *Conn) Write(p []byte) (int, error) {
	h.pause()
	n, err := h.Conn.Write(p)
	if e := h.resume(); e != nil {
		return n, e
	}
	return n, err
}

// Run runs a handshake over the connection when there is a slot for it.
func (h *Conn) Run(handshake func() error) error {
	defer func() {
		h.pause()
		h.slots = nil
	}()
	if err := h.resume(); err != nil {
		return err
	}
	err := handshake()
	if err == nil {
		h.hello, h.sent = nil, messages{ended: true}
	}
	return err
}

// pause gives the slot up while the handshake waits for its client.
func (h *Conn) pause() {
	if h.holds {
		h.holds = false
		h.slots.Release()
	}
}

// resume waits for a slot again.
func (h *Conn) resume() error {
	if h.slots == nil {
		return nil
	}
	err := h.slots.Acquire(h.ctx)
	h.holds = err == nil
	return err
}

// alertLen is the length of an alert in clear (RFC 8446, section 6).
const alertLen = 2

// count follows the records (RFC 8446, section 5.1) in what was read.
func (h *Conn) count(p []byte) {
	const headerLen = 5
	for len(p) > 0 {
		if h.rest > 0 {
			n := min(h.rest, len(p))
			h.rest -= n
			if h.alert != nil && len(h.alert) < alertLen {
				h.alert = append(h.alert, p[:n]...)
			}
			if h.kind == RecordHandshake && h.slots != nil {
				h.sent.add(p[:n])
			}
			p = p[n:]
			continue
		}
		n := min(headerLen-len(h.header), len(p))
		h.header = append(h.header, p[:n]...)
		p = p[n:]
		if len(h.header) == headerLen {
			h.kind, h.rest = h.header[0], int(h.header[3])<<8|int(h.header[4])
			h.sent.ended = h.sent.ended || h.kind == recordChangeCipherSpec
			if h.header[0] == recordAlert && h.rest == alertLen {
				h.alert = make([]byte, 0, alertLen)
			}
			h.header = h.header[:0]
			if h.startup {
				h.records--
			}
		}
	}
}

// Reader reads what a client sends inside TLS before its session. A record
// that brings a byte is none of those that only cost something.
type Reader struct {
	TLS   io.Reader
	Under *Conn
}

// Read reads from the TLS connection.
func (r Reader) Read(p []byte) (int, error) {
	n, err := r.TLS.Read(p)
	earned := min(n, r.Under.earned)
	r.Under.records += earned
	r.Under.earned -= earned
	return n, err
}
