package handshake

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"pgwicket/internal/relay"
)

// A record whose beginning came with the end of the handshake, and was put back, does not hide the
// records behind it.
func TestRecordsBehindOnePutBackAreCounted(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	_ = accepted.SetDeadline(time.Now().Add(10 * time.Second))

	finished, next := record(RecordHandshake, make([]byte, 36)), record(0x17, bytes.Repeat([]byte{0xff}, 200))
	h := NewConn(t.Context(), relay.NewConn(accepted.(*net.TCPConn)), NewSlots(), 16<<10)
	const came = 100 // of the next record
	if _, err := client.Write(slices.Concat(finished, next[:came])); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(finished)+came)
	if err := h.Run(func() error { _, err := io.ReadFull(h, buf); return err }); err != nil {
		t.Fatal(err)
	}
	h.ExpectStartup()
	h.Unread(buf[len(finished):])

	more := slices.Concat(next[came:], bytes.Repeat(record(0x17, make([]byte, 22)), 10*startupRecords))
	if _, err := client.Write(more); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, h, int64(came+len(more))); !errors.Is(err, ErrTooManyRecords) {
		t.Errorf("after %d records: %v, want %v", 1+10*startupRecords, err, ErrTooManyRecords)
	}
}

// Of what the client sends the beginning is kept, and nothing of what it encrypts later.
func TestHelloIsKeptAlone(t *testing.T) {
	t.Parallel()
	hello := record(RecordHandshake, message(1, make([]byte, 200)))
	encrypted := slices.Concat(record(recordChangeCipherSpec, []byte{1}), record(0x17, make([]byte, 1000)))
	for _, c := range []struct {
		name  string
		reads [][]byte
		want  []byte
	}{
		{"one read", [][]byte{hello, encrypted}, hello},
		{"in parts", [][]byte{hello[:7], hello[7:], encrypted}, hello},
		{"behind it at once", [][]byte{slices.Concat(hello, encrypted), encrypted}, slices.Concat(hello, encrypted)},
	} {
		under := relay.NewConn(nil)
		h := NewConn(t.Context(), under, NewSlots(), 16<<10)
		for _, sent := range c.reads {
			under.Unread(sent)
			if n, err := h.Read(make([]byte, len(sent))); n != len(sent) || err != nil {
				t.Fatal(n, err)
			}
		}
		if !bytes.Equal(h.hello, c.want) {
			t.Errorf("%s: %d bytes are kept, want %d", c.name, len(h.hello), len(c.want))
		}
	}
}

// Data earns records only up to a bound: each could come with a KeyUpdate.
func TestDataEarnsRecords(t *testing.T) {
	t.Parallel()
	h := new(Conn)
	h.ExpectStartup()
	if _, err := io.Copy(io.Discard, Reader{TLS: bytes.NewReader(make([]byte, 9000)), Under: h}); err != nil {
		t.Fatal(err)
	}
	if want := startupRecords + startupEarned; h.records != want {
		t.Errorf("9,000 bytes allow %d records, want %d", h.records, want)
	}
}
