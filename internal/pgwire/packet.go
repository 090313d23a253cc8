// Package pgwire reads and writes the parts of PostgreSQL's protocol that a gate
// needs: the packets before authentication, the FATAL that ends a connection, and
// the headers of both sides' messages once a session is open.
//
// It is the only package that may import pgproto3, and uses only its codec of
// ErrorResponse; docs/design.md says why.
package pgwire

import (
	"encoding/binary"
	"errors"
	"io"
)

// Limits of a startup packet, its length word included. PostgreSQL checks
// 4 <= length-4 <= MAX_STARTUP_PACKET_LENGTH (10000) in ProcessStartupPacket.
const (
	minPacket = 8

	// MaxStartupPacket is the longest packet before authentication, in bytes.
	MaxStartupPacket = 10004
)

// Request codes; a startup message has its version in the same place.
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

// ErrLength reports a length that no startup packet can have. PostgreSQL closes
// such a connection without an answer, and so should the gate.
var ErrLength = errors.New("invalid length of startup packet")

// ErrLayout reports a request that is longer or shorter than its kind allows.
// PostgreSQL ignores further bytes in an SSLRequest; the gate refuses them.
var ErrLayout = errors.New("request has an invalid length for its kind")

// Kind is the kind of a startup packet.
type Kind uint8

// The kinds of a startup packet. Every packet without a request code is a startup
// message, whatever its version is.
const (
	Startup Kind = iota
	SSLRequest
	GSSENCRequest
	CancelRequest
)

func (k Kind) String() string {
	return [...]string{"StartupMessage", "SSLRequest", "GSSENCRequest", "CancelRequest"}[k]
}

// Packet is one startup packet, complete and of a valid length.
type Packet struct {
	raw []byte // with its length word
}

// ReadPacket reads one startup packet from r and not a byte more: the bytes after
// an SSLRequest belong to the TLS handshake (CVE-2021-23214). Nothing is allocated
// before the length has been checked.
//
// The error is ErrLength, ErrLayout, or r's own: io.EOF only if nothing was
// read, io.ErrUnexpectedEOF if the packet was cut short.
func ReadPacket(r io.Reader) (Packet, error) {
	var head [minPacket]byte
	if n, err := io.ReadFull(r, head[:4]); err != nil {
		return Packet{}, truncated(n, err)
	}
	length := binary.BigEndian.Uint32(head[:4])
	if length < minPacket || length > MaxStartupPacket {
		return Packet{}, ErrLength
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return Packet{}, truncated(4, err)
	}
	if !lengthFits(kindOf(head[:]), length) {
		return Packet{}, ErrLayout
	}
	raw := make([]byte, length)
	copy(raw, head[:])
	if _, err := io.ReadFull(r, raw[minPacket:]); err != nil {
		return Packet{}, truncated(minPacket, err)
	}
	return Packet{raw: raw}, nil
}

// truncated turns io.EOF after n bytes of a packet into io.ErrUnexpectedEOF, so
// that a connection without a packet and one with half a packet differ.
func truncated(n int, err error) error {
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

// Kind returns the kind of the packet.
func (p Packet) Kind() Kind { return kindOf(p.raw) }

// Bytes returns the packet exactly as it was received. Cancel requests are
// forwarded in this form. The caller must not change it.
func (p Packet) Bytes() []byte { return p.raw }

// Cancel returns the CancelRequest for the process pid, with the key from its
// BackendKeyData.
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

// CancelKey returns the process and the key of a CancelRequest as they are on the
// wire; it compares equal to Login.CancelKey of the session that is meant. p must
// be a CancelRequest.
func (p Packet) CancelKey() string { return string(p.raw[minPacket:]) }
