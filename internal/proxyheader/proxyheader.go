// Package proxyheader reads the header of the PROXY protocol, with which a load balancer says
// for whom it speaks, as HAProxy's proxy-protocol.txt has it.
package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"

	"github.com/pires/go-proxyproto"

	"pgwicket/internal/relay"
)

// The header is cut out of the stream here and then understood by the library,
// whose own reading wants version 1 in one segment and keeps what it has read
// too much.
const (
	v1      = "PROXY "
	v2      = "\r\n\r\n\x00\r\nQUIT\n"
	v1Limit = 107     // of the whole line
	v2Limit = 4 << 10 // of what stands behind the fixed part
	v2Fixed = 16
	atOnce  = 536 // which the protocol promises to fit one segment
)

var (
	errNoHeader = errors.New("there is no PROXY header")
	errTooLong  = errors.New("the PROXY header is too long")
	errFamily   = errors.New("the PROXY header is not for TCP")
	errLength   = errors.New("the PROXY header is not as long as it says")
)

// Signatures returns how the headers of the two versions begin.
func Signatures() [2]string { return [2]string{v1, v2} }

// Read reads a header and returns the address in it, an invalid one
// if the sender speaks for itself, and what it has read behind the header. It is
// io.EOF if nothing comes at all.
func Read(r io.Reader) (source netip.AddrPort, rest []byte, err error) {
	b := make([]byte, 0, atOnce)
	for {
		length, err := headerLength(b)
		if err != nil {
			return source, nil, err
		}
		if length > 0 && length <= len(b) {
			source, err = parse(b[:length])
			return source, b[length:], err
		}
		b = slices.Grow(b, max(length-len(b), 1))
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case n > 0 || err == nil:
		case len(b) == 0 && relay.IsReset(err):
			return source, nil, io.EOF // how some health checks end
		case len(b) > 0 && errors.Is(err, io.EOF):
			return source, nil, io.ErrUnexpectedEOF
		default:
			return source, nil, err
		}
	}
}

// headerLength returns the length of the header that begins with b, or 0 if
// b is too short to tell.
func headerLength(b []byte) (int, error) {
	agrees := func(with string) bool {
		n := min(len(b), len(with))
		return string(b[:n]) == with[:n]
	}
	switch {
	case agrees(v1):
		line := b[:min(len(b), v1Limit)]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			return i + 1, nil
		}
		if len(line) == v1Limit {
			return 0, errTooLong
		}
		return 0, nil
	case agrees(v2):
		if len(b) < v2Fixed {
			return 0, nil
		}
		length := int(binary.BigEndian.Uint16(b[v2Fixed-2:]))
		if length > v2Limit {
			return 0, errTooLong
		}
		return v2Fixed + length, nil
	}
	return 0, errNoHeader
}

// parse understands a whole header. What it carries besides the
// addresses is of no use here, but its lengths must add up.
func parse(b []byte) (source netip.AddrPort, err error) {
	all := bufio.NewReaderSize(bytes.NewReader(b), len(b))
	h, err := proxyproto.Read(all)
	switch {
	case err != nil:
		return source, err
	case all.Buffered() > 0:
		return source, errLength // we have cut it in another place than the library
	case h.Command.IsLocal():
		return source, nil
	}
	if _, err := h.TLVs(); err != nil {
		return source, err
	}
	addr, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok {
		return source, errFamily
	}
	ap := addr.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
