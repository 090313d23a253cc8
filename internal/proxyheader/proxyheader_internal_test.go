package proxyheader

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

// FuzzRead: whatever comes, the reader does not panic, takes no byte that
// is not the header's without giving it back, and what it makes of a header
// depends neither on how it comes in nor on what follows.
func FuzzRead(f *testing.F) {
	v2Header := func(command, family byte, body ...byte) []byte {
		return append(append([]byte(v2), command, family, byte(len(body)>>8), byte(len(body))), body...)
	}
	tcp4 := []byte{192, 0, 2, 7, 192, 0, 2, 1, 18, 103, 21, 56}
	for _, header := range [][]byte{
		nil,
		[]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4711 5432\r\n"),
		[]byte("PROXY TCP6 2001:db8::7 ::1 4711 5432\r\n"),
		[]byte("PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 5432\r\n"),
		[]byte("PROXY TCP6 fe80::1%lo ::1 4711 5432\r\n"),
		[]byte("PROXY UNKNOWN\r\n"), []byte("PROXY UNKNOWN x\r\n"), []byte("PROXY \r\n"), []byte("PROXY TCP4\n"),
		append([]byte("PROXY UNKNOWN "), bytes.Repeat([]byte("x"), 200)...),
		v2Header(0x21, 0x11, tcp4...), v2Header(0x21, 0x21, make([]byte, 36)...), v2Header(0x20, 0), v2Header(0x20, 0x11), v2Header(0x20, 0x31, make([]byte, 216)...),
		v2Header(0x21, 0x11, append(bytes.Clone(tcp4), 4, 0, 1, 0)...), v2Header(0x21, 0x11, append(bytes.Clone(tcp4), 4, 0, 2, 0)...),
		v2Header(0x21, 0x12, tcp4...), v2Header(0x21, 0x31, make([]byte, 216)...), v2Header(0x21, 0, tcp4...), v2Header(0x21, 0x11, tcp4[:11]...),
		v2Header(0x21, 0x11, append(bytes.Clone(tcp4), make([]byte, 4096-12)...)...), v2Header(0x21, 0x11, make([]byte, 4097)...),
		[]byte(v2), []byte("\r\n\r\n"), []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		f.Add(header, []byte(nil))
		f.Add(header, []byte("\x00\x00\x00\x08\x04\xd2\x16\x2f\x16\x03\x01"))
	}
	f.Fuzz(func(t *testing.T, header, behind []byte) {
		all := slices.Concat(header, behind)
		type result struct {
			source, rest string
			err          error
		}
		read := func(r io.Reader) result {
			source, rest, err := Read(r)
			if err != nil {
				if source.IsValid() {
					t.Fatalf("both %v and %v", source, err)
				}
				return result{err: err}
			}
			if source.IsValid() && (source.Addr().Is4In6() || source.Addr().Zone() != "") {
				t.Fatalf("%v is not how addresses are judged", source)
			}
			more, _ := io.ReadAll(r)
			return result{source.String(), string(rest) + string(more), nil}
		}
		want := read(bytes.NewReader(all))
		for _, r := range []io.Reader{
			iotest.OneByteReader(bytes.NewReader(all)), iotest.HalfReader(bytes.NewReader(all)), iotest.DataErrReader(bytes.NewReader(all)),
		} {
			got := read(r)
			if got.source != want.source || got.rest != want.rest || (got.err == nil) != (want.err == nil) {
				t.Fatalf("%+v in one way, %+v in another", want, got)
			}
		}
		if errors.Is(want.err, io.EOF) != (len(all) == 0) {
			t.Fatalf("%d bytes end in %v", len(all), want.err)
		}
		if want.err != nil {
			return
		}
		n := len(all) - len(want.rest)
		if n < len("PROXY UNKNOWN\r\n") || n > v2Fixed+v2Limit || string(all[n:]) != want.rest {
			t.Fatalf("%d of %d bytes are the header's", n, len(all))
		}
		if alone := read(bytes.NewReader(all[:n])); alone.source != want.source || alone.rest != "" || alone.err != nil {
			t.Fatalf("%+v with more behind it, %+v without", want, alone)
		}
		for i := range n {
			if cut := read(bytes.NewReader(all[:i])); cut.err == nil {
				t.Fatalf("%d bytes of %d are enough: %+v", i, n, cut)
			}
		}
	})
}
