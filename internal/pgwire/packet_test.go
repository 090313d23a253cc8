package pgwire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"pgwicket/internal/pgwire"
)

// Codes of startup packets, as PostgreSQL's pqcomm.h has them.
const (
	protocol3  = 3 << 16
	cancelCode = 80877102
	sslCode    = 80877103
	gssencCode = 80877104
)

// packet returns a startup packet that claims to be as long as it is.
func packet(code uint32, body ...byte) []byte {
	return claiming(uint32(8+len(body)), code, body...)
}

// claiming returns a startup packet that claims any length.
func claiming(length, code uint32, body ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, length)
	b = binary.BigEndian.AppendUint32(b, code)
	return append(b, body...)
}

// cancelKey returns a CancelRequest of process 7 with a key of n bytes.
func cancelKey(n int) []byte {
	return packet(cancelCode, append([]byte{0, 0, 0, 7}, bytes.Repeat([]byte{0xab}, n)...)...)
}

// countingReader counts the bytes that were read, and the most that were asked for
// at once, which is what an unchecked length has made the caller allocate.
type countingReader struct {
	r            io.Reader
	taken, asked int
}

func (c *countingReader) Read(p []byte) (int, error) {
	c.asked = max(c.asked, len(p))
	n, err := c.r.Read(p)
	c.taken += n
	return n, err
}

// jackc/pgproto3#20, CVE-2026-6664, duckgres#715: a length comes from the client
// and cannot be trusted. A refused length costs a read of 4 bytes and no buffer, a
// request of a wrong size one of 8.
func TestReadPacketLength(t *testing.T) {
	lengths := []uint32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 16, 17, 267, 268, 269, 10_000, 10_003, 10_004, 10_005, math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32 - 7, math.MaxUint32 - 1, math.MaxUint32}
	for _, kind := range []struct {
		name     string
		code     uint32
		min, max uint32
	}{
		{"startup 3.0", protocol3, 8, 10_004},
		{"startup 2.0", 2 << 16, 8, 10_004},
		{"startup 0.0", 0, 8, 10_004},
		{"SSLRequest", sslCode, 8, 8},
		{"GSSENCRequest", gssencCode, 8, 8},
		{"CancelRequest", cancelCode, 16, 268},
	} {
		for _, length := range lengths {
			var want error
			taken := int(length)
			switch {
			case length < 8 || length > 10_004:
				want, taken = pgwire.ErrLength, 4
			case length < kind.min || length > kind.max:
				want, taken = pgwire.ErrLayout, 8
			}
			r := &countingReader{r: bytes.NewReader(claiming(length, kind.code, make([]byte, 10_100)...))}
			p, err := pgwire.ReadPacket(r)
			if !errors.Is(err, want) {
				t.Errorf("%s of length %d: %v, want %v", kind.name, length, err, want)
				continue
			}
			if r.taken != taken || r.asked > taken {
				t.Errorf("%s of length %d: read %d bytes and asked for up to %d, want %d", kind.name, length, r.taken, r.asked, taken)
			}
			if err == nil && len(p.Bytes()) != int(length) {
				t.Errorf("%s of length %d: returned %d bytes", kind.name, length, len(p.Bytes()))
			}
		}
	}
}

// duckgres#715: for a refused length only the 8 bytes of the header are allocated.
func TestReadPacketAllocatesNothingForARefusedLength(t *testing.T) {
	for _, length := range []uint32{0, 7, 10_005, math.MaxInt32, math.MaxUint32} {
		data := claiming(length, protocol3)
		r := bytes.NewReader(data)
		if n := testing.AllocsPerRun(100, func() {
			r.Reset(data)
			if _, err := pgwire.ReadPacket(r); !errors.Is(err, pgwire.ErrLength) {
				t.Fatal(err)
			}
		}); n > 1 {
			t.Errorf("length %d: %v allocations", length, n)
		}
	}
}

// teleport#68711, pgx#2489: keys have 4 bytes in protocol 3.0 and 4 to 256 in 3.2.
// Other keys are refused.
func TestReadPacketCancelKey(t *testing.T) {
	for n, want := range map[int]error{
		0: pgwire.ErrLayout, 3: pgwire.ErrLayout,
		4: nil, 32: nil, 255: nil, 256: nil,
		257: pgwire.ErrLayout, 9_000: pgwire.ErrLayout,
	} {
		p, err := pgwire.ReadPacket(bytes.NewReader(cancelKey(n)))
		if !errors.Is(err, want) {
			t.Errorf("key of %d bytes: %v, want %v", n, err, want)
		}
		if err == nil && (p.Kind() != pgwire.CancelRequest || !bytes.Equal(p.Bytes(), cancelKey(n))) {
			t.Errorf("key of %d bytes: read as a %v of %d bytes", n, p.Kind(), len(p.Bytes()))
		}
	}
	short := packet(cancelCode, 0, 0, 0) // not even a process
	if _, err := pgwire.ReadPacket(bytes.NewReader(short)); !errors.Is(err, pgwire.ErrLayout) {
		t.Errorf("CancelRequest of 11 bytes: %v", err)
	}
}

// valid is one packet of each kind.
var valid = map[pgwire.Kind][]byte{
	pgwire.Startup:       packet(protocol3, []byte("user\x00alice\x00\x00")...),
	pgwire.SSLRequest:    packet(sslCode),
	pgwire.GSSENCRequest: packet(gssencCode),
	pgwire.CancelRequest: cancelKey(32),
}

// CVE-2021-23214: no byte after the packet may be read, because it belongs to the
// TLS handshake. pgbouncer#1058: the chunks in which the bytes arrive do not matter.
func TestReadPacketReadsOnePacketOnly(t *testing.T) {
	readers := map[string]func(io.Reader) io.Reader{
		"whole":        func(r io.Reader) io.Reader { return r },
		"byte by byte": iotest.OneByteReader,
		"in halves":    iotest.HalfReader,
		"data and EOF": iotest.DataErrReader,
	}
	for kind, data := range valid {
		for name, wrap := range readers {
			for _, after := range []string{"", "after"} {
				source := bytes.NewReader(append(bytes.Clone(data), after...))
				p, err := pgwire.ReadPacket(wrap(source))
				if err != nil || p.Kind() != kind || !bytes.Equal(p.Bytes(), data) {
					t.Errorf("%v, %s: %v %q, %v", kind, name, p.Kind(), p.Bytes(), err)
					continue
				}
				if name == "data and EOF" {
					continue // iotest reads ahead
				}
				if rest, _ := io.ReadAll(source); string(rest) != after {
					t.Errorf("%v, %s: left %q, want %q", kind, name, rest, after)
				}
			}
		}
	}
}

// A packet cut anywhere is an error. Where nothing was sent it is io.EOF, so that
// a port scan differs from a client that died.
func TestReadPacketTruncated(t *testing.T) {
	for kind, data := range valid {
		for n := range len(data) {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			_, err := pgwire.ReadPacket(bytes.NewReader(data[:n]))
			if err != want {
				t.Errorf("%v cut after %d bytes: %v, want %v", kind, n, err, want)
			}
		}
	}
}

// An error of the connection, a deadline above all, must not be lost.
func TestReadPacketReturnsTheErrorOfItsReader(t *testing.T) {
	for n := range 20 {
		broken := io.MultiReader(bytes.NewReader(valid[pgwire.Startup][:n]), iotest.ErrReader(iotest.ErrTimeout))
		if _, err := pgwire.ReadPacket(broken); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// The first bytes of other protocols are refused, whatever they mean as a length.
func TestReadPacketOfOtherProtocols(t *testing.T) {
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: db\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
		"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "\r\n\r\n\x00\r\nQUIT\n", "Q\x00\x00\x00\x0dselect 1\x00", "*1\r\n$4\r\nPING\r\n",
	} {
		if p, err := pgwire.ReadPacket(strings.NewReader(text)); !errors.Is(err, pgwire.ErrLength) {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}

func TestKindString(t *testing.T) {
	for kind, want := range map[pgwire.Kind]string{
		pgwire.Startup: "StartupMessage", pgwire.SSLRequest: "SSLRequest",
		pgwire.GSSENCRequest: "GSSENCRequest", pgwire.CancelRequest: "CancelRequest",
	} {
		if kind.String() != want {
			t.Errorf("Kind %d is %q, want %q", kind, kind, want)
		}
	}
}

// FuzzReadPacket compares ReadPacket with referenceReadPacket.
func FuzzReadPacket(f *testing.F) {
	for _, data := range valid {
		f.Add(data)
		f.Add(append(bytes.Clone(data), "after"...))
		f.Add(data[:len(data)-1])
	}
	for _, length := range []uint32{0, 7, 8, 9, 10_004, 10_005, math.MaxInt32, math.MaxUint32} {
		f.Add(claiming(length, protocol3, make([]byte, 10_000)...))
		f.Add(claiming(length, sslCode, 0))
	}
	for _, n := range []int{0, 3, 4, 32, 256, 257} {
		f.Add(cancelKey(n))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &countingReader{r: bytes.NewReader(data)}
		p, err := pgwire.ReadPacket(r)
		want, wantErr := referenceReadPacket(data)
		if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, want %v", err, wantErr)
		}
		if r.asked > 10_004 {
			t.Errorf("asked for %d bytes at once", r.asked)
		}
		if err != nil {
			return
		}
		if r.taken != len(want) || !bytes.Equal(p.Bytes(), want) {
			t.Errorf("read %d bytes and returned %q, want %q", r.taken, p.Bytes(), want)
		}
		if m, err := pgwire.ParseStartup(p); p.Kind() == pgwire.Startup && err == nil && !bytes.Equal(m.Encode(), want) {
			t.Errorf("encodes to %q, want %q", m.Encode(), want)
		}
	})
}

// referenceReadPacket follows the rules of ProcessStartupPacket
// (backend_startup.c), without regard to speed or memory.
func referenceReadPacket(data []byte) ([]byte, error) {
	truncated := io.ErrUnexpectedEOF
	if len(data) == 0 {
		return nil, io.EOF
	}
	if len(data) < 4 {
		return nil, truncated
	}
	length := int64(binary.BigEndian.Uint32(data))
	if length < 8 || length > 10_004 {
		return nil, pgwire.ErrLength
	}
	if len(data) < 8 {
		return nil, truncated
	}
	switch code := binary.BigEndian.Uint32(data[4:]); {
	case (code == sslCode || code == gssencCode) && length != 8,
		code == cancelCode && (length < 8+4+4 || length > 8+4+256):
		return nil, pgwire.ErrLayout
	}
	if int64(len(data)) < length {
		return nil, truncated
	}
	return data[:length], nil
}
