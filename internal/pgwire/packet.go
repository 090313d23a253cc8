// Package pgwire knows the bytes of PostgreSQL's start-up phase and nothing
// else: exact reads of start-up packets, the startup message, the messages
// that a gate must write itself.
//
// It is the only package that may import pgproto3, of which it uses the codec
// of ErrorResponse; see docs/design.md for why the rest is not used.
package pgwire

import (
	"encoding/binary"
	"errors"
	"io"
)

// Limits of a start-up packet, its length word included. PostgreSQL checks
// 4 <= length-4 <= MAX_STARTUP_PACKET_LENGTH (10000) in ProcessStartupPacket.
const (
	minPacket = 8
	maxPacket = 10004
)

// Request codes, which stand where a startup message has its version.
const (
	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSSENC = 1234<<16 | 5680
)

// Limits of a cancel key: 4 bytes in protocol 3.0, up to 256 in 3.2.
const (
	minCancelKey = 4
	maxCancelKey = 256
)

// ErrLength reports a packet whose length no start-up packet can have.
// PostgreSQL closes such a connection without a word, and so should we.
var ErrLength = errors.New("invalid length of startup packet")

// ErrLayout reports a request that is longer or shorter than its kind allows.
// PostgreSQL ignores bytes behind an SSLRequest; a gate has no use for them.
var ErrLayout = errors.New("request has an invalid length for its kind")

// Kind says what a start-up packet asks for.
type Kind uint8

// The kinds of a start-up packet. Everything that carries no request code is a
// startup message, whatever version it claims.
const (
	Startup Kind = iota
	SSLRequest
	GSSENCRequest
	CancelRequest
)

func (k Kind) String() string {
	return [...]string{"StartupMessage", "SSLRequest", "GSSENCRequest", "CancelRequest"}[k]
}

// Packet is one start-up packet, complete and of a legal length.
type Packet struct {
	raw []byte // with its length word
}

// ReadPacket reads one start-up packet from r and not a byte more: what stands
// behind an SSLRequest belongs to the TLS handshake (CVE-2021-23214). Nothing
// is allocated before the length has been checked.
//
// The error is ErrLength, ErrLayout, or r's own; io.EOF only if nothing was
// read, io.ErrUnexpectedEOF if the packet was cut short.
func ReadPacket(r io.Reader) (Packet, error) {
	var head [minPacket]byte
	if n, err := io.ReadFull(r, head[:4]); err != nil {
		return Packet{}, cut(n, err)
	}
	length := binary.BigEndian.Uint32(head[:4])
	if length < minPacket || length > maxPacket {
		return Packet{}, ErrLength
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return Packet{}, cut(4, err)
	}
	if !lengthFits(kindOf(head[:]), length) {
		return Packet{}, ErrLayout
	}
	raw := make([]byte, length)
	copy(raw, head[:])
	if _, err := io.ReadFull(r, raw[minPacket:]); err != nil {
		return Packet{}, cut(minPacket, err)
	}
	return Packet{raw: raw}, nil
}

// cut turns the end of a stream in the middle of a packet into
// io.ErrUnexpectedEOF, so that a bare connect and a torn packet differ.
func cut(n int, err error) error {
	if n > 0 && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func kindOf(head []byte) Kind {
	switch binary.BigEndian.Uint32(head[4:]) {
	case codeSSL:
		return SSLRequest
	case codeGSSENC:
		return GSSENCRequest
	case codeCancel:
		return CancelRequest
	}
	return Startup
}

func lengthFits(k Kind, length uint32) bool {
	switch k {
	case SSLRequest, GSSENCRequest:
		return length == minPacket
	case CancelRequest:
		key := int(length) - minPacket - 4
		return key >= minCancelKey && key <= maxCancelKey
	default:
		return true
	}
}

// Kind says what the packet asks for.
func (p Packet) Kind() Kind { return kindOf(p.raw) }

// Bytes returns the packet exactly as it was received; a cancel request is
// forwarded like this. The caller must not change it.
func (p Packet) Bytes() []byte { return p.raw }

// Cancel returns the CancelRequest for a backend process, with the key that
// its BackendKeyData gave.
func Cancel(pid uint32, key []byte) []byte {
	b := make([]byte, minPacket, minPacket+4+len(key))
	binary.BigEndian.PutUint32(b, uint32(cap(b)))
	binary.BigEndian.PutUint32(b[4:], codeCancel)
	b = binary.BigEndian.AppendUint32(b, pid)
	return append(b, key...)
}

// RequestTLS returns the SSLRequest.
func RequestTLS() []byte {
	b := binary.BigEndian.AppendUint32(nil, minPacket)
	return binary.BigEndian.AppendUint32(b, codeSSL)
}

// CancelKey returns what a CancelRequest proves itself with: the process and its
// key, as they stand in it.
func (p Packet) CancelKey() string { return string(p.raw[minPacket:]) }
