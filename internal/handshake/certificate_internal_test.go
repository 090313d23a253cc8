package handshake

import (
	"bytes"
	"slices"
	"testing"
)

// message is a handshake message (RFC 5246, section 7.4).
func message(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

func vector24(b []byte) []byte {
	return append([]byte{byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

// record is a TLS record.
func record(kind byte, body []byte) []byte {
	return append([]byte{kind, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
}

// The certificates are found however the client cuts its messages into records and its records
// into segments, up to the end of what is in clear.
func TestCertificatesInClear(t *testing.T) {
	t.Parallel()
	first, second := bytes.Repeat([]byte{1}, 300), []byte{2, 3}
	chain := message(11, vector24(slices.Concat(vector24(first), vector24(second))))
	hello := message(1, make([]byte, 70))
	one := record(RecordHandshake, slices.Concat(hello, chain))
	parts := slices.Concat(record(RecordHandshake, hello), record(RecordHandshake, chain[:2]), record(RecordHandshake, chain[2:100]),
		record(recordAlert, []byte{1, 0}), record(RecordHandshake, chain[100:]))
	late := slices.Concat(record(RecordHandshake, hello), record(recordChangeCipherSpec, []byte{1}), record(RecordHandshake, chain))
	long := record(RecordHandshake, message(11, vector24(vector24(make([]byte, maxCertificates)))))
	for _, c := range []struct {
		name string
		sent []byte
		want [][]byte
	}{
		{"one record", one, [][]byte{first, second}},
		{"several records", parts, [][]byte{first, second}},
		{"none of a client without one", record(RecordHandshake, message(11, vector24(nil))), nil},
		{"encrypted", late, nil},
		{"too long to keep", long, nil},
		{"not complete", one[:len(one)-1], nil},
	} {
		for _, size := range []int{1, 7, len(c.sent)} {
			h := &Conn{ctx: t.Context(), slots: NewSlots()}
			for segment := range slices.Chunk(c.sent, size) {
				h.count(segment)
			}
			if got := h.Certificates(); !slices.EqualFunc(got, c.want, bytes.Equal) {
				t.Errorf("%s, in segments of %d: %d certificates, want %d", c.name, size, len(got), len(c.want))
			}
			if err := h.Run(func() error { return nil }); err != nil {
				t.Fatal(err)
			}
			if h.Certificates() != nil {
				t.Errorf("%s: they are kept after the handshake", c.name)
			}
		}
	}
}
