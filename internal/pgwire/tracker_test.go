package pgwire_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgwicket/internal/pgwire"
)

// message returns one message as it is on the wire.
func message(kind byte, body ...byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return append(b, body...)
}

// login returns what PostgreSQL 15 sends a client that needs no password, up to the
// first ReadyForQuery.
func login(t testing.TB, key []byte) []byte {
	t.Helper()
	var b []byte
	for _, m := range []pgproto3.BackendMessage{
		&pgproto3.AuthenticationOk{},
		&pgproto3.ParameterStatus{Name: "server_version", Value: "15.18"},
		&pgproto3.BackendKeyData{ProcessID: 4711, SecretKey: key},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	} {
		var err error
		if b, err = m.Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestTrackerReadsTheLogin(t *testing.T) {
	for _, key := range [][]byte{{1, 2, 3, 4}, bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{9}, 256)} {
		stream := append(login(t, key), message('Z', 'T')...)
		for chunk := 1; chunk <= len(stream); chunk++ {
			l := new(pgwire.Login)
			tr := pgwire.Tracker{Login: l}
			for part := range chunks(stream, chunk) {
				tr.Feed(part)
			}
			if !l.Authenticated || !l.Ready || l.PID != 4711 || !bytes.Equal(l.Key, key) || l.SQLSTATE != "" {
				t.Fatalf("in chunks of %d: %+v", chunk, l)
			}
			if tr.Login != nil || !tr.AtBoundary() || !tr.Known() || tr.Status() != 'T' {
				t.Fatalf("in chunks of %d: login %v, boundary %v, status %q", chunk, tr.Login, tr.AtBoundary(), tr.Status())
			}
		}
	}
}

func chunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			m := min(n, len(b))
			if !yield(b[:m]) {
				return
			}
			b = b[m:]
		}
	}
}

// A SQLSTATE is five digits and capitals. A backend may leave it out, or send
// anything (CVE-2026-6666 of PgBouncer).
func TestTrackerReadsTheSQLSTATE(t *testing.T) {
	for body, want := range map[string]string{
		"SFATAL\x00VFATAL\x00C28P01\x00Mno\x00\x00": "28P01",
		"SFATAL\x00Mno\x00\x00":                     "",
		"C28p01\x00\x00":                            "",
		"C28P0\x00\x00":                             "",
		"C28P011\x00\x00":                           "",
		"":                                          "",
		"\x00":                                      "",
		"MC28P01\x00C3D000\x00\x00":                 "3D000",
		"S" + string(bytes.Repeat([]byte("x"), 5000)) + "\x00C28P01\x00\x00":         "28P01",
		"SFATAL\x00C53300\x00M" + string(bytes.Repeat([]byte("y"), 100000)) + "\x00": "53300",
	} {
		l := new(pgwire.Login)
		tr := pgwire.Tracker{Login: l}
		tr.Feed(message('E', []byte(body)...))
		if l.SQLSTATE != want || !tr.AtBoundary() {
			t.Errorf("%.40q: SQLSTATE %q, want %q; at a boundary: %v", body, l.SQLSTATE, want, tr.AtBoundary())
		}
	}
}

// pgt-proxy#6: channel binding is found in the list of mechanisms and nowhere
// else, wherever the stream is cut.
func TestTrackerReadsTheBinding(t *testing.T) {
	const list = "\x00\x00\x00\x0a" // AuthenticationSASL
	for _, c := range []struct {
		name   string
		stream []byte
		want   bool
	}{
		{"offered", message('R', []byte(list+"SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00")...), true},
		{"offered last", message('R', []byte(list+"SCRAM-SHA-256\x00SCRAM-SHA-256-PLUS\x00\x00")...), true},
		{"another hash", message('R', []byte(list+"SCRAM-SHA-512-PLUS\x00\x00")...), true},
		{"not offered", message('R', []byte(list+"SCRAM-SHA-256\x00\x00")...), false},
		{"an empty list", message('R', []byte(list+"\x00")...), false},
		{"no list", message('R', []byte(list)...), false},
		{"within a name", message('R', []byte(list+"X-PLUS-MINUS\x00\x00")...), false},
		{"in the next step", message('R', []byte("\x00\x00\x00\x0bSCRAM-SHA-256-PLUS\x00\x00")...), false},
		{"in a notice", message('N', []byte(list+"SCRAM-SHA-256-PLUS\x00\x00")...), false},
		{"after a notice", append(message('N', 'M', 'x', 0, 0), message('R', []byte(list+"SCRAM-SHA-256-PLUS\x00\x00")...)...), true},
	} {
		stream := append(slices.Clone(c.stream), message('E', []byte("SFATAL\x00C28000\x00Mno\x00\x00")...)...)
		for first := range stream {
			for second := first; second < len(stream); second++ {
				l := new(pgwire.Login)
				tr := pgwire.Tracker{Login: l}
				for _, part := range [][]byte{stream[:first], stream[first:second], stream[second:]} {
					tr.Feed(part)
				}
				if l.Binding != c.want || l.Authenticated || l.SQLSTATE != "28000" {
					t.Fatalf("%s, cut at %d and %d: %+v", c.name, first, second, l)
				}
			}
		}
		l := new(pgwire.Login)
		tr := pgwire.Tracker{Login: l}
		for part := range chunks(stream, 1) {
			tr.Feed(part)
		}
		if l.Binding != c.want {
			t.Errorf("%s, byte by byte: %+v", c.name, l)
		}
	}
}

// A length that no message can have ends the tracking.
func TestTrackerStopsAtBrokenFraming(t *testing.T) {
	for _, length := range []uint32{0, 1, 3, 1 << 31, 1<<32 - 1} {
		tr := pgwire.Tracker{Login: new(pgwire.Login)}
		tr.Feed(append([]byte{'D'}, binary.BigEndian.AppendUint32(nil, length)...))
		tr.Feed(message('Z', 'I'))
		if tr.Known() || tr.AtBoundary() || tr.Status() != 0 || tr.Login != nil {
			t.Errorf("length %d: known %v, boundary %v, status %q", length, tr.Known(), tr.AtBoundary(), tr.Status())
		}
	}
	for _, z := range [][]byte{message('Z'), message('Z', 'I', 'I'), message('Z', 'X', 0, 'C')} {
		for n := range len(z) {
			tr := pgwire.Tracker{Login: new(pgwire.Login)}
			tr.Feed(z[:n])
			tr.Feed(z[n:])
			tr.Feed(message('Z', 'I'))
			if tr.Known() || tr.Login != nil || tr.Status() != 0 {
				t.Errorf("a ReadyForQuery of %d bytes is followed: %+v", len(z), tr)
			}
		}
	}
	tr := pgwire.Tracker{}
	tr.Feed(append([]byte{'D'}, binary.BigEndian.AppendUint32(nil, 1<<31-1)...))
	if !tr.Known() || tr.AtBoundary() {
		t.Error("the longest message is not followed")
	}
}

// The tracker agrees with a simple model on where messages end, whatever the
// chunks, and allocates nothing after the login.
func TestTrackerBoundaries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	ends := map[int]bool{0: true}
	for range 500 {
		body := make([]byte, rnd.IntN(1<<rnd.IntN(14)))
		kind := "DdTCZSNA"[rnd.IntN(8)]
		if kind == 'Z' {
			body = []byte{'I'}
		}
		stream = append(stream, message(kind, body...)...)
		ends[len(stream)] = true
	}
	var tr pgwire.Tracker
	for at := 0; at < len(stream); {
		n := min(1+rnd.IntN(1<<rnd.IntN(12)), len(stream)-at)
		tr.Feed(stream[at : at+n])
		at += n
		if tr.AtBoundary() != ends[at] {
			t.Fatalf("after %d bytes: at a boundary %v, want %v", at, tr.AtBoundary(), ends[at])
		}
	}
	if n := testing.AllocsPerRun(10, func() { tr.Feed(stream) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The tracker knows when the backend's last message has ended the session, before and
// after the login.
func TestTrackerFatal(t *testing.T) {
	t.Parallel()
	long := string(bytes.Repeat([]byte("x"), 3000))
	for _, c := range []struct {
		name     string
		stream   []byte
		sqlstate string
		ok       bool
	}{
		{"nothing", nil, "", false},
		{"FATAL", message('E', []byte("SFATAL\x00VFATAL\x00C57P01\x00M"+long+"\x00\x00")...), "57P01", true},
		{"PANIC", message('E', []byte("SPANIC\x00VPANIC\x00CXX000\x00Mno\x00\x00")...), "XX000", true},
		{"ERROR", message('E', []byte("SERROR\x00VERROR\x00C57014\x00Mno\x00\x00")...), "", false},
		{"translated", message('E', []byte("SFATALE\x00VFATAL\x00C57P05\x00Mno\x00\x00")...), "57P05", true},
		{"translated ERROR", message('E', []byte("SFATAL\x00VERROR\x00C57014\x00Mno\x00\x00")...), "", false},
		{"V before S", message('E', []byte("VERROR\x00SFATAL\x00C57014\x00Mno\x00\x00")...), "", false},
		{"before 9.6", message('E', []byte("SFATAL\x00C57P01\x00Mno\x00\x00")...), "57P01", true},
		{"another field", message('E', []byte("SERROR\x00VERROR\x00C22012\x00MVFATAL\x00\x00")...), "", false},
		{"without a SQLSTATE", message('E', []byte("SFATAL\x00VFATAL\x00Mno\x00\x00")...), "", true},
		{"no SQLSTATE", message('E', []byte("SFATAL\x00VFATAL\x00C57p01\x00Mno\x00\x00")...), "", true},
		{"without terminators", message('E', []byte("SFATAL\x00C57P01")...), "", true},
		{"empty", message('E'), "", false},
		{"crash", message('N', []byte("SWARNING\x00VWARNING\x00C57P02\x00Mno\x00\x00")...), "57P02", true},
		{"immediate shutdown", message('N', []byte("SWARNING\x00VWARNING\x00C57P01\x00Mno\x00\x00")...), "57P01", true},
		{"notice", message('N', []byte("SNOTICE\x00VNOTICE\x00C00000\x00MFATAL\x00\x00")...), "", false},
		{"FATAL, then a row", append(message('E', []byte("SFATAL\x00VFATAL\x00C57P01\x00Mno\x00\x00")...), message('D', 0, 0)...), "", false},
		{"FATAL, then another", append(message('E', []byte("SFATAL\x00VFATAL\x00C57P01\x00Mno\x00\x00")...), message('Z', 'I')...), "", false},
		{"FATAL, not all of it", message('E', []byte("SFATAL\x00VFATAL\x00C57P01\x00Mno\x00\x00")...)[:30], "", false},
		{"two errors", append(message('E', []byte("SERROR\x00VERROR\x00C08P01\x00Mno\x00\x00")...), message('E', []byte("SFATAL\x00VFATAL\x00C57P01\x00Mno\x00\x00")...)...), "57P01", true},
	} {
		for _, before := range [][]byte{nil, message('Z', 'I'), append(message('Z', 'I'), messages("DDD")...)} {
			for _, size := range []int{1, 2, 7, 100, 5000} {
				tr := pgwire.Tracker{Login: new(pgwire.Login)}
				for part := range chunks(append(slices.Clone(before), c.stream...), size) {
					tr.Feed(part)
				}
				if sqlstate, ok := tr.Fatal(); sqlstate != c.sqlstate || ok != c.ok {
					t.Errorf("%s, in chunks of %d: %q, %v, want %q, %v", c.name, size, sqlstate, ok, c.sqlstate, c.ok)
				}
			}
		}
	}
}

// Any bytes in any chunks: no panic, and the same result whatever the chunks.
func FuzzTracker(f *testing.F) {
	f.Add(login(f, []byte{1, 2, 3, 4}), uint8(3))
	f.Add(message('E', []byte("C28P01\x00\x00")...), uint8(1))
	f.Add([]byte("S\x00\x00\x00\x00"), uint8(2))
	f.Add([]byte("Z\x00\x00\x00\x08x\x00\x43\x00"), uint8(2))
	f.Fuzz(func(t *testing.T, stream []byte, chunk uint8) {
		whole := pgwire.Tracker{Login: new(pgwire.Login)}
		a := whole.Login
		whole.Feed(stream)
		parts := pgwire.Tracker{Login: new(pgwire.Login)}
		b := parts.Login
		for p := range chunks(stream, 1+int(chunk)) {
			parts.Feed(p)
		}
		wholeState, wholeFatal := whole.Fatal()
		if partsState, partsFatal := parts.Fatal(); wholeState != partsState || wholeFatal != partsFatal {
			t.Errorf("whole and in parts differ: %q %v, %q %v", wholeState, wholeFatal, partsState, partsFatal)
		}
		if whole.AtBoundary() != parts.AtBoundary() || whole.Status() != parts.Status() || whole.Known() != parts.Known() {
			t.Errorf("whole and in parts differ: %+v, %+v", whole, parts)
		}
		if a.PID != b.PID || a.SQLSTATE != b.SQLSTATE || a.Ready != b.Ready || a.Authenticated != b.Authenticated || a.Binding != b.Binding || !bytes.Equal(a.Key, b.Key) {
			t.Errorf("whole and in parts differ: %+v, %+v", a, b)
		}
	})
}

// BenchmarkTracker measures the backend's side: small rows, and one large value.
func BenchmarkTracker(b *testing.B) {
	for name, stream := range map[string][]byte{
		"rows of 100 bytes": bytes.Repeat(message('D', make([]byte, 95)...), 655),
		"one large value":   message('D', make([]byte, 64<<10-5)...),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(stream)))
			tr := openTracker()
			for b.Loop() {
				tr.Feed(stream)
			}
		})
	}
}

// Whether the result of a login is PostgreSQL's to give, or an answer the client's, after each message of it; the client's
// messages are those of kind p. SCRAM asks twice, and an answer may come before it is asked for.
func TestLoginAwaits(t *testing.T) {
	t.Parallel()
	request := func(code byte, more string) string {
		return "R\x00\x00\x00" + string([]byte{byte(8 + len(more)), 0, 0, 0, code}) + more
	}
	const answer = "p\x00\x00\x00\x05x"
	sasl, sent, final, ok := request(10, "SCRAM-SHA-256\x00\x00"), request(11, "r=1"), request(12, "v=1"), request(0, "")
	for name, c := range map[string]struct {
		messages []string
		want     string // of each: + for the result, ? for the client
	}{
		"cleartext":             {[]string{request(3, ""), answer, "E\x00\x00\x00\x0cC28P01\x00\x00"}, "?+-"},
		"md5":                   {[]string{request(5, "salt"), answer, ok}, "?+-"},
		"scram":                 {[]string{sasl, answer, sent, answer, final, ok}, "?+?++-"},
		"answered ahead":        {[]string{answer, request(3, "")}, "++"},
		"too many answers":      {[]string{sasl, answer, answer, sent}, "?+++"},
		"a part of an answer":   {[]string{request(3, ""), answer[:5], answer[5:]}, "??+"},
		"something else":        {[]string{request(3, ""), "Q\x00\x00\x00\x05\x00"}, "??"},
		"two asks of one login": {[]string{request(3, ""), answer, request(3, ""), answer}, "?+?+"},
	} {
		login := new(pgwire.Login)
		tracker, got := pgwire.Tracker{Login: login}, ""
		for _, m := range c.messages {
			if m[0] == 'R' || m[0] == 'E' {
				tracker.Feed([]byte(m))
			} else {
				tracker.Ask([]byte(m))
			}
			switch {
			case login.AwaitsResult() && login.AwaitsClient():
				got += "both"
			case login.AwaitsResult():
				got += "+"
			case login.AwaitsClient():
				got += "?"
			default:
				got += "-"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
