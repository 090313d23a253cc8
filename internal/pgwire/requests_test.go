package pgwire_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgwicket/internal/pgwire"
)

// Busy after each step of a session: < is a message of the client and > one of the
// backend, by their types, in the order in which PostgreSQL answers.
func TestTrackerBusy(t *testing.T) {
	for name, steps := range map[string]string{
		"login":                                ">R busy >K busy >Z idle",
		"password":                             ">R busy <p busy >R busy >Z idle",
		"query":                                ">Z idle <Q busy >T busy >D busy >C busy >Z idle",
		"query before the login":               "<Q busy >Z busy >C busy >Z idle",
		"function call":                        ">Z <F busy >V busy >Z idle",
		"extended":                             ">Z <P busy <B busy <E busy <S busy >1 busy >2 busy >C busy >Z idle",
		"flush":                                ">Z <P busy <D busy <H busy >1 busy >t busy <S busy >Z idle",
		"pipeline of queries":                  ">Z <Q <Q busy >C busy >Z busy >C busy >Z idle",
		"pipeline, extended":                   ">Z <P <B <E <S <B <E <S busy >C >Z busy >E busy >Z idle",
		"pipeline, its next request before":    ">Z <Q <P busy >Z busy <S busy >Z idle",
		"error":                                ">Z <P <B <E <S >E busy >Z idle",
		"COPY in":                              ">Z <Q >G busy <d busy <d busy <c busy >C busy >Z idle",
		"COPY in, CopyFail":                    ">Z <Q >G <d <f busy >E busy >Z idle",
		"COPY in, two in one query":            ">Z <Q >G <d <c >C >G <d busy <c busy >C busy >Z idle",
		"COPY in, failed meanwhile":            ">Z <Q >G <d >E >Z idle <d idle <c idle",
		"COPY in, a Sync in it":                ">Z <Q >G <d <S busy <c busy <S busy >C busy >Z idle",
		"COPY in, extended":                    ">Z <P <B <E <S >G <d busy <c busy <S busy >C >Z idle",
		"COPY in, extended, Sync later":        ">Z <P <B <E <H >G <d busy <c busy <S busy >C >Z idle",
		"COPY in, extended, refused":           ">Z <P <B <E <S busy >E >Z idle",
		"COPY in, extended, refused meanwhile": ">Z <P <B <E <S >G <d >E <d busy <c busy <S busy >Z idle",
		"COPY in, extended, after a query":     ">Z <Q >Z <P <B <E <H >G <d <c busy <S busy >Z idle",
		"COPY out":                             ">Z <Q >H >d busy >d busy >c busy >C >Z idle",
		"replication":                          ">Z <Q >W >d busy <d busy >d <c busy >c busy >C busy >Z idle",
		"unexpected answer":                    ">Z >Z idle <Q busy >Z idle",
		"notice and notification":              ">Z >N idle >A idle >S idle",
		"Terminate":                            ">Z <X idle",
	} {
		for _, size := range []int{1, 2, 5, 100} {
			tr := pgwire.Tracker{Login: new(pgwire.Login)}
			done := ""
			for step := range strings.FieldsSeq(steps) {
				done += step + " "
				switch {
				case step[0] == '<':
					for part := range chunks(message(step[1], make([]byte, 7)...), size) {
						tr.Ask(part)
					}
				case step == ">Z":
					tr.Feed(message('Z', 'I'))
				case step[0] == '>':
					tr.Feed(message(step[1], make([]byte, 7)...))
				case tr.Busy() != (step == "busy"):
					t.Errorf("%s, in chunks of %d: busy %v after %s", name, size, tr.Busy(), done)
				}
			}
		}
	}
}

// A part of a message is unfinished and does not make the session busy; a stream that
// cannot be followed remains both.
func TestTrackerBusyWithParts(t *testing.T) {
	query := message('Q', []byte("select 1\x00")...)
	for n := 1; n < len(query); n++ {
		tr := pgwire.Tracker{}
		tr.Feed(message('Z', 'I'))
		tr.Ask(query[:n])
		if tr.Busy() || !tr.Unfinished() {
			t.Errorf("after %d bytes of a query: busy %v, unfinished %v", n, tr.Busy(), tr.Unfinished())
		}
	}
	for _, length := range []string{"\x00\x00\x00\x03", "\x80\x00\x00\x00", "\xff\xff\xff\xff"} {
		tr := pgwire.Tracker{}
		tr.Feed(message('Z', 'I'))
		tr.Ask([]byte("d" + length + "S\x00\x00\x00\x04"))
		tr.Feed(message('Z', 'I'))
		if !tr.Busy() || !tr.Unfinished() || tr.Terminated() {
			t.Errorf("length %q: busy %v, terminated %v", length, tr.Busy(), tr.Terminated())
		}
	}
}

// A value that ends with the bytes of a Terminate is not one.
func TestTrackerTerminated(t *testing.T) {
	terminate := message('X')
	for _, c := range []struct {
		said []byte
		want bool
	}{
		{nil, false},
		{terminate, true},
		{append(message('Q', []byte("select 1\x00")...), terminate...), true},
		{message('d', terminate...), false},
		{append(terminate, 'Q', 0, 0, 0, 4), false},
	} {
		for _, size := range []int{1, 3, 100} {
			tr := pgwire.Tracker{}
			for part := range chunks(c.said, size) {
				tr.Ask(part)
			}
			if tr.Terminated() != c.want {
				t.Errorf("%q in chunks of %d: %v", c.said, size, !c.want)
			}
		}
	}
}

// Any bytes in any chunks: no panic, and the same result whatever the chunks.
func FuzzTrackerAsk(f *testing.F) {
	f.Add(append(message('Q', 'x', 0), message('S')...), uint8(3), uint8(2))
	f.Add([]byte("P\x00\x00\x00\x03"), uint8(1), uint8(0))
	f.Add(append(message('c'), 'S', 0xff, 0xff, 0xff, 0xff), uint8(4), uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, chunk, answers uint8) {
		var whole, parts pgwire.Tracker
		whole.Ask(stream)
		for p := range chunks(stream, 1+int(chunk)) {
			parts.Ask(p)
		}
		for n := range answers {
			whole.Feed(message('Z', 'I'))
			parts.Feed(message('Z', 'I'))
			if whole.Busy() != parts.Busy() || whole.Terminated() != parts.Terminated() {
				t.Fatalf("whole and in parts differ after %d answers: %s", n, fmt.Sprintf("%+v, %+v", whole, parts))
			}
		}
	})
}

// BenchmarkTrackerAsk measures the client's side: a COPY of small rows, and one
// large value.
func BenchmarkTrackerAsk(b *testing.B) {
	for name, stream := range map[string][]byte{
		"rows of 100 bytes": bytes.Repeat(message('d', make([]byte, 95)...), 655),
		"one large value":   message('d', make([]byte, 64<<10-5)...),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(stream)))
			var tr pgwire.Tracker
			for b.Loop() {
				tr.Ask(stream)
			}
		})
	}
}
