package pgwire_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgwicket/internal/pgwire"
)

// Busy and Unfinished after each step of a session: < is a message of the client and >
// one of the backend, by their types, in the order in which PostgreSQL answers. "idle",
// "busy" and "owes" say what must be reported; "owes" is busy and unfinished.
func TestTrackerBusy(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string]string{
		"login":                             ">R busy >K busy >Z idle",
		"password":                          ">R busy <p busy >R busy >Z idle",
		"query":                             ">Z idle <Q busy >T busy >D busy >C busy >Z idle",
		"query before the login":            "<Q busy >Z busy >C busy >Z idle",
		"empty query":                       ">Z <Q busy >I busy >Z idle",
		"function call":                     ">Z <F busy >V busy >Z idle",
		"extended":                          ">Z <P owes <B owes <E owes <S busy >1 busy >2 busy >C busy >Z idle",
		"flush":                             ">Z <P owes <H busy >1 owes <B owes <E owes <H busy >2 busy >C owes <S busy >Z idle",
		"describe":                          ">Z <D idle+owes <H idle >t idle >T idle+owes <S idle >Z idle",
		"close":                             ">Z <C idle+owes <S busy >3 busy >Z idle",
		"sync alone":                        ">Z <S idle >Z idle",
		"flush alone":                       ">Z <H idle <Q busy >C >Z idle <H idle",
		"pipeline of queries":               ">Z <Q <Q busy >C busy >Z busy >C busy >Z idle",
		"pipeline, extended":                ">Z <P <B <E <S <B <E <S busy >1 >2 >C >Z busy >2 >E busy >Z idle",
		"pipeline, mixed":                   ">Z <Q <P <S <Q <P <S <Q <P <S <Q <P <S >C >Z >1 >Z >C >Z >1 >Z >C >Z >1 >Z >C >Z busy >1 >Z idle",
		"pipeline, its next request before": ">Z <Q <P owes >C >Z owes <S busy >1 >Z idle",
		"error":                             ">Z <P <B <E <S >E busy >Z idle",
		"error, Sync later":                 ">Z <P <B <E owes >1 >E owes <P owes <S busy >Z idle",
		"error, Query before Sync":          ">Z <P >E owes <Q owes <S busy >Z idle",
		"no such statement":                 ">Z <B owes >e idle+owes <E idle+owes <S busy >Z idle",
		"Query without Sync":                ">Z <P <Q busy >1 >T busy >C busy >Z idle",
		"Query without Sync, error":         ">Z <P <Q busy >E owes <S busy >Z idle",
		"Query without Sync, its error":     ">Z <P <Q busy >1 >E busy >Z idle",
		"error at the commit":               ">Z <P <B <E owes >1 >2 >C owes <S >E busy >Z idle",
		"CopyDone out of place":             ">Z <Q <Q <c busy >C >Z busy >D busy >C >Z idle",
		"CopyFail out of place":             ">Z <f idle <Q busy <f busy >C >Z idle",
		"CopyData out of place":             ">Z <d idle <Q busy <d busy >C >Z idle",

		"COPY in":                               ">Z <Q >G owes <d owes <d owes <c busy >C busy >Z idle",
		"COPY in, CopyFail":                     ">Z <Q >G <d <f busy >E busy >Z idle",
		"COPY in, two in one query":             ">Z <Q >G <d <c >C >G <d owes <c busy >C busy >Z idle",
		"COPY in, failed meanwhile":             ">Z <Q >G <d >E >Z idle <d idle <c idle",
		"COPY in, failed and a query behind":    ">Z <Q >G <d <c <Q >E >Z busy >C busy >Z idle",
		"COPY in, data before it is asked for":  ">Z <Q <d <c <Q >G busy >C >Z busy >C >Z idle",
		"COPY in, a Sync in it":                 ">Z <Q >G <d <S owes <c busy >C busy >Z idle",
		"COPY in, a Sync in it, failed":         ">Z <Q >G <d <S <S <c busy >E >Z idle <Q busy >C busy >Z idle",
		"COPY in, a Sync in it, answered":       ">Z <Q >G <d <S <S <c busy >E >Z idle >Z >Z idle <Q busy >C busy >Z idle",
		"COPY in, a Sync in it, answered later": ">Z <Q >G <d <S <S <c busy >E >Z <Q busy >Z >Z busy >C busy >Z idle",
		"COPY in, extended":                     ">Z <P <B <E <S >1 >2 >G <d owes <c owes <S busy >C >Z idle",
		"COPY in, extended, Sync later":         ">Z <P <B <E <H >1 >2 >G <d owes <c owes <S busy >C >Z idle",
		"COPY in, extended, pipeline behind":    ">Z <P <B <E <S >1 >2 >G <d <c <S <P <S busy >C >Z busy >1 busy >Z idle",
		"COPY in, extended, refused":            ">Z <P <B <E <S busy >1 >2 >E >Z idle",
		"COPY in, extended, failed meanwhile":   ">Z <P <B <E <S >1 >2 >G <d >E owes <d owes <c owes <S busy >Z idle <Q busy >C >Z idle",
		"COPY in, extended, failed at its end":  ">Z <P <B <E <S >1 >2 >G <d <c <S busy >E busy >Z idle <Q busy >C >Z idle",
		"COPY in, extended, failed at once":     ">Z <P <B <E <S >1 >2 >G <d <c <S >E >Z idle >Z idle <P <S busy >1 >Z idle",
		"COPY out":                              ">Z <Q >H >d busy >d busy >c busy >C >Z idle",
		"replication":                           ">Z <Q >W >d busy <d busy >d <c busy >c busy >C busy >Z idle",

		"no answer before ReadyForQuery": ">Z >Z idle <Q busy >Z idle <P <S <Q busy >Z busy >Z idle",
		"notice and notification":        ">Z >N idle >A idle >S idle <S >N >Z idle",
		"Terminate":                      ">Z <X idle",
	} {
		for _, size := range []int{1, 2, 5, 100} {
			runScript(t, name, steps, size)
		}
	}
}

func runScript(t *testing.T, name, steps string, size int) {
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
		case step == ">e":
			tr.Feed(message('E', []byte("SERROR\x00C26000\x00\x00")...))
		case step[0] == '>':
			tr.Feed(message(step[1], make([]byte, 7)...))
		default:
			busy, unfinished := step == "busy" || step == "owes", strings.HasSuffix(step, "owes")
			if tr.Busy() != busy || tr.Unfinished() != unfinished {
				t.Errorf("%s, in chunks of %d: busy %v, unfinished %v after %s", name, size, tr.Busy(), tr.Unfinished(), done)
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
			if whole.Busy() != parts.Busy() || whole.Unfinished() != parts.Unfinished() || whole.Terminated() != parts.Terminated() {
				t.Fatalf("whole and in parts differ after %d answers: %s", n, fmt.Sprintf("%+v, %+v", whole, parts))
			}
		}
	})
}

// A client that pipelines requests of every kind without end costs memory up to a
// bound. It is then busy and unfinished for good, so that a deadline ends it.
func TestTrackerBoundsItsQueue(t *testing.T) {
	var tr pgwire.Tracker
	tr.Feed(message('Z', 'I'))
	mixed := append(message('Q', 0), message('S')...)
	for range 1000 {
		tr.Ask(bytes.Repeat(mixed, 20)) // 40,000 messages in all
		if !tr.Busy() || tr.Unfinished() {
			t.Fatalf("busy %v, unfinished %v", tr.Busy(), tr.Unfinished())
		}
	}
	for range 20_000 {
		if !tr.Busy() {
			t.Fatal("idle too early")
		}
		tr.Feed(message('C', 0))
		tr.Feed(message('Z', 'I'))
		tr.Feed(message('Z', 'I'))
	}
	if tr.Busy() || tr.Unfinished() {
		t.Errorf("all is answered: busy %v, unfinished %v", tr.Busy(), tr.Unfinished())
	}
	if n := testing.AllocsPerRun(10, func() { tr.Ask(bytes.Repeat(mixed, 50_000)) }); n > 1000 {
		t.Errorf("%v allocations", n)
	}
	if !tr.Busy() || !tr.Unfinished() {
		t.Errorf("too much to follow: busy %v, unfinished %v", tr.Busy(), tr.Unfinished())
	}
}

// What clients usually do costs no allocation.
func TestTrackerAllocatesNothing(t *testing.T) {
	tr := openTracker()
	for name, exchange := range exchanges {
		if n := testing.AllocsPerRun(100, func() { exchange.play(&tr) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if tr.Busy() || tr.Unfinished() {
			t.Errorf("%s: busy %v, unfinished %v", name, tr.Busy(), tr.Unfinished())
		}
	}
}

func openTracker() (tr pgwire.Tracker) {
	tr.Feed(message('Z', 'I'))
	return tr
}

// An exchange is what the client and the backend send in turn.
type exchange struct{ ask, answer []byte }

func (e exchange) play(tr *pgwire.Tracker) {
	tr.Ask(e.ask)
	tr.Feed(e.answer)
}

// messages returns messages of these types, each with a few bytes.
func messages(types string) (b []byte) {
	for _, kind := range []byte(types) {
		if kind == 'Z' {
			b = append(b, message('Z', 'I')...)
		} else {
			b = append(b, message(kind, make([]byte, 20)...)...)
		}
	}
	return b
}

var exchanges = map[string]exchange{
	"query":           {messages("Q"), messages("TDCZ")},
	"prepared":        {messages("BES"), messages("2DCZ")},
	"100 in a batch":  {messages(strings.Repeat("PBDE", 100) + "S"), messages(strings.Repeat("12tTDC", 100) + "Z")},
	"100 in a row":    {messages(strings.Repeat("BES", 100)), messages(strings.Repeat("2DCZ", 100))},
	"a failing query": {messages("Q"), append(message('E', []byte("SERROR\x00VERROR\x00C22012\x00Mdivision by zero\x00Fint.c\x00L841\x00Rint4div\x00\x00")...), messages("Z")...)},
}

// BenchmarkTrackerExchange measures both sides of small requests.
func BenchmarkTrackerExchange(b *testing.B) {
	for name, exchange := range exchanges {
		b.Run(name, func(b *testing.B) {
			tr := openTracker()
			for b.Loop() {
				exchange.play(&tr)
			}
		})
	}
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
			tr := openTracker()
			for b.Loop() {
				tr.Ask(stream)
			}
		})
	}
}
