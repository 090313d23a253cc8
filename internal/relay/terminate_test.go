package relay

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgwire"
)

// said is one message of a backend's.
func said(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body))), body...)
}

// ready is a login and where it ends.
var ready = slices.Concat(said('R', "\x00\x00\x00\x00"), said('K', "\x00\x00\x00\x07key!"), said('Z', "I"))

var fatal = pgwire.Fatal("57P01", "terminating connection: for a test", "")

// relayedRig returns a rig whose session the relay has.
func relayedRig(t *testing.T, with starter) *rig {
	t.Helper()
	r := newRig(t, rigging{relay: with})
	if err := r.client.Handshake(); err != nil {
		t.Fatal(err)
	}
	<-r.started
	return r
}

// hears checks what the client gets next.
func (r *rig) hears(want []byte) {
	r.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r.client, got); err != nil || !bytes.Equal(got, want) {
		r.t.Fatalf("the client got %q (%v), want %q", got[:n], err, want)
	}
}

// leaves checks that nothing more comes to the client and the backend but an
// orderly end, and closes the client.
func (r *rig) leaves() {
	r.t.Helper()
	if rest, err := io.ReadAll(r.client); err != nil || len(rest) > 0 {
		r.t.Errorf("the client got %q (%v) after the message", rest, err)
	}
	_ = r.client.Close()
	if _, err := io.Copy(io.Discard, r.backend); err != nil {
		r.t.Errorf("the backend's end: %v", err)
	}
}

func (r *rig) says(message ...byte) {
	r.t.Helper()
	if _, err := r.backend.Write(message); err != nil {
		r.t.Fatal(err)
	}
}

// asks sends a query and waits until the backend has it.
func (r *rig) asks() {
	r.t.Helper()
	query := said('Q', "select 1\x00")
	if _, err := r.client.Write(query); err != nil {
		r.t.Fatal(err)
	}
	if _, err := io.ReadFull(r.backend, make([]byte, len(query))); err != nil {
		r.t.Fatal(err)
	}
}

// silent checks that the client gets nothing for a moment.
func (r *rig) silent(why string) {
	r.t.Helper()
	_ = r.client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	b := make([]byte, 1)
	if n, _ := r.client.Read(b); n > 0 {
		r.t.Errorf("%s: the client got %q", why, b)
	}
	_ = r.client.SetReadDeadline(time.Now().Add(testTimeout))
}

func TestTerminateAtBoundary(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		r.says(ready...)
		r.hears(ready)
		r.asks() // a running query is no reason to wait
		r.handle.Terminate(Termination{Reason: revoked, Message: fatal})
		r.hears(fatal)
		r.leaves()
		r.endedBy(revoked, 14, int64(len(ready)))
	})
}

// A message of ours in the middle of one of the backend's would be read as a
// part of it, wherever that is cut.
func TestTerminateWaitsForABoundary(t *testing.T) {
	row := said('D', strings.Repeat("x", 300))
	eachRelay(t, func(t *testing.T, with starter) {
		for _, cut := range []int{1, 4, 5, 6, len(row) - 1} {
			r := relayedRig(t, with)
			r.says(ready...)
			r.says(row[:cut]...)
			r.hears(slices.Concat(ready, row[:cut]))
			r.handle.Terminate(Termination{Reason: revoked, Message: fatal, Deadline: time.Now().Add(testTimeout)})
			r.silent("in the middle of a row")
			r.says(row[cut:]...)
			r.hears(slices.Concat(row[cut:], fatal))
			r.leaves()
			r.endedBy(revoked, 0, int64(len(ready)+len(row)))
		}
	})
}

// Where no boundary comes, or none can be known, the session is cut without a
// word of ours.
func TestTerminateWithoutABoundary(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		for name, stream := range map[string][]byte{
			"a row that does not end": slices.Concat(ready, said('D', "abcd")[:7]),
			"no framing":              slices.Concat(ready, []byte{'D', 0, 0, 0, 1}),
		} {
			r := relayedRig(t, with)
			r.says(stream...)
			r.hears(stream)
			r.handle.Terminate(Termination{Reason: revoked, Message: fatal, Deadline: time.Now().Add(20 * time.Millisecond)})
			if rest, _ := io.ReadAll(r.client); len(rest) > 0 {
				t.Errorf("%s: the client got %q", name, rest)
			}
			r.endedBy(revoked, 0, int64(len(stream)))
		}
	})
}

// An idle ending waits for the end of the query and of the transaction.
func TestTerminateWhenIdle(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		idle := Termination{Reason: drainTimeout, Message: fatal, WhenIdle: true}
		r.handle.Terminate(idle)
		r.silent("before its login")
		r.asks() // which is no client's way; it is answered after the login
		r.says(ready[:len(ready)-6]...)
		r.hears(ready[:len(ready)-6])
		r.silent("in its login")
		r.says(said('Z', "T")...)
		r.hears(said('Z', "T"))
		r.silent("in a transaction")
		r.says(said('Z', "T")...)
		r.hears(said('Z', "T"))
		r.silent("in a transaction, its query answered")
		r.asks()
		r.says(slices.Concat(said('C', "SELECT 1\x00"), said('Z', "E"))...)
		r.hears(slices.Concat(said('C', "SELECT 1\x00"), said('Z', "E")))
		r.silent("in a failed transaction")
		r.asks()
		r.says(said('C', "ROLLBACK\x00")...)
		r.hears(said('C', "ROLLBACK\x00"))
		r.silent("before the query is done")
		r.says(said('Z', "I")...)
		r.hears(slices.Concat(said('Z', "I"), fatal))
		r.leaves()
		<-r.done
		if r.result.Termination != drainTimeout {
			t.Errorf("cause %s, reason %d", r.result.Cause, r.result.Termination)
		}
	})
}

// A query that was under way when the ending came is answered first; one that
// idles is ended at once.
func TestTerminateWhenIdleAtOnce(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		for _, busy := range []bool{true, false} {
			r := relayedRig(t, with)
			r.says(ready...)
			r.hears(ready)
			if busy {
				r.asks()
			}
			r.handle.Terminate(Termination{Reason: drainTimeout, Message: fatal, WhenIdle: true})
			if busy {
				r.silent("while a query runs")
				r.says(said('Z', "I")...)
				r.hears(said('Z', "I"))
			}
			r.hears(fatal)
			r.leaves()
			<-r.done
		}
	})
}

// Of a pipeline every query is answered first.
func TestTerminateWhenIdleAfterAPipeline(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		r.says(ready...)
		r.hears(ready)
		r.asks()
		r.asks()
		r.handle.Terminate(Termination{Reason: drainTimeout, Message: fatal, WhenIdle: true})
		r.says(said('Z', "I")...)
		r.hears(said('Z', "I"))
		r.silent("while the second query runs")
		r.says(said('Z', "I")...)
		r.hears(slices.Concat(said('Z', "I"), fatal))
		r.leaves()
		<-r.done
	})
}

// A session is ended for what it waits for, if it still waits: a query may have come
// meanwhile, or be under way without a byte.
func TestTerminateIf(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		quiet := Termination{Reason: idle, Message: fatal}
		try := func(s State, off int64) {
			up, down := r.handle.Moved()
			r.handle.TerminateIf(s, quiet, up+down-off)
		}
		never := func(why string, states ...State) {
			for _, s := range states {
				try(s, 0)
			}
			r.silent(why)
		}
		never("before its login", Idle, IdleInTransaction, Unfinished)
		r.says(ready...)
		r.hears(ready)
		try(Idle, 1)
		r.silent("something has moved")
		never("idle outside of a transaction", IdleInTransaction, Unfinished)
		r.asks()
		never("a query is under way", Idle, IdleInTransaction, Unfinished)
		r.says(said('Z', "T")...)
		r.hears(said('Z', "T"))
		never("in a transaction", Idle, Unfinished)
		try(IdleInTransaction, 0)
		r.hears(fatal)
		r.leaves()
		<-r.done
		if r.result.Termination != idle || r.result.Busy {
			t.Errorf("cause %s, busy %v", r.result.Cause, r.result.Busy)
		}
	})
}

// A client that owes the rest of a request is told so, but not while what it has sent
// waits for a backend that does not read.
func TestTerminateIfUnfinished(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		try := func(s State) {
			up, down := r.handle.Moved()
			r.handle.TerminateIf(s, Termination{Reason: idle, Message: fatal}, up+down)
		}
		r.says(ready...)
		r.hears(ready)
		r.asks()
		r.says(said('G', "\x00\x00\x00")...)
		r.hears(said('G', "\x00\x00\x00"))
		data := said('d', strings.Repeat("x", 4<<20)) // more than the sockets hold
		sent := make(chan error, 1)
		go func() {
			_, err := r.client.Write(data)
			sent <- err
		}()
		last := int64(-1)
		wait(t, "nothing more fits", func() bool {
			up, _ := r.handle.Moved()
			still := up == last
			last = up
			time.Sleep(50 * time.Millisecond)
			return still && up > 0
		})
		try(Unfinished)
		r.silent("the backend does not read")
		if _, err := io.ReadFull(r.backend, make([]byte, len(data))); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		try(Idle)
		r.silent("a COPY is not idle")
		try(Unfinished)
		r.hears(fatal)
		r.leaves()
		<-r.done
	})
}

// The deadline of an ending goes with it: whoever is spared stays, and a later
// ending has its own.
func TestCancelledBeforeItsDeadline(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		r.says(said('Z', "T")...)
		r.hears(said('Z', "T"))
		soon := func() time.Time { return time.Now().Add(100 * time.Millisecond) }
		r.handle.Terminate(Termination{Reason: lifetime, Message: fatal, WhenIdle: true, Deadline: soon()})
		r.handle.CancelTermination()
		time.Sleep(200 * time.Millisecond)
		r.handle.Terminate(Termination{Reason: lifetime, Message: fatal, WhenIdle: true, Deadline: soon()})
		r.handle.Terminate(Termination{Reason: drained, Message: fatal, WhenIdle: true})
		time.Sleep(200 * time.Millisecond)
		r.silent("in a transaction")
		r.handle.Terminate(Termination{Reason: lifetime, Message: fatal, WhenIdle: true, Deadline: soon()})
		if rest, _ := io.ReadAll(r.client); len(rest) > 0 {
			t.Errorf("the client got %q", rest)
		}
		r.endedBy(lifetime, 0, 6)
	})
}

// A promise to end is overtaken by an order to.
func TestTerminateThenCut(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		r.says(said('Z', "T")...)
		r.hears(said('Z', "T"))
		r.handle.Terminate(Termination{Reason: revoked, Message: fatal, WhenIdle: true})
		r.silent("in a transaction")
		r.handle.Terminate(Termination{Reason: drainTimeout})
		if rest, _ := io.ReadAll(r.client); len(rest) > 0 {
			t.Errorf("the client got %q", rest)
		}
		r.endedBy(drainTimeout, 0, 6)
		r.handle.Terminate(Termination{Reason: revoked, Message: fatal}) // and nothing happens
	})
}

// What a client had not read yet when its session was ended comes first, and
// whole; one that reads nothing is not waited for.
func TestTerminateWithFullBuffers(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		for _, reads := range []bool{true, false} {
			r := relayedRig(t, with)
			row := said('D', strings.Repeat("x", 1000))
			sent := make(chan int64)
			go func() {
				n := int64(0)
				for {
					m, err := r.backend.Write(row)
					if err != nil {
						sent <- n
						return
					}
					n += int64(m)
				}
			}()
			for full := int64(-1); ; { // until the backend waits for the client
				_, down := r.handle.Moved()
				if down == full && down > 0 {
					break
				}
				full = down
				time.Sleep(50 * time.Millisecond)
			}
			r.handle.Terminate(Termination{Reason: revoked, Message: fatal, Deadline: time.Now().Add(time.Second)})
			if reads {
				all, err := io.ReadAll(r.client)
				for len(all) >= len(row) && bytes.HasPrefix(all, row) {
					all = all[len(row):]
				}
				if err != nil || !bytes.Equal(all, fatal) {
					t.Errorf("the client got %d bytes (%v) at the end: %.80q", len(all), err, all)
				}
				_ = r.client.Close()
			}
			<-r.done
			if r.result.Termination != revoked {
				t.Errorf("cause %s, reason %d", r.result.Cause, r.result.Termination)
			}
			_ = r.backend.Close()
			<-sent
		}
	})
}

// From a termination on that does not wait, no byte of the client reaches the
// backend, whose connection is closed as soon as the message is sent, however
// long the client keeps its own.
func TestTerminateMutesTheClient(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		r.says(ready...)
		r.hears(ready)
		r.asks()
		row := said('D', strings.Repeat("x", 300))
		r.says(row[:10]...)
		r.hears(row[:10])
		r.handle.Terminate(Termination{Reason: revoked, Message: fatal, Deadline: time.Now().Add(testTimeout)})
		r.silent("in the middle of a row")
		for range 3 {
			_, _ = r.client.Write(said('Q', "delete from t\x00"))
		}
		r.silent("in the middle of a row")
		r.says(row[10:]...)
		r.hears(slices.Concat(row[10:], fatal))
		wait(t, "the backend's end", r.handle.BackendClosed)
		got, _ := io.ReadAll(r.backend)
		if bytes.Contains(got, []byte("delete")) {
			t.Errorf("the backend got %q after the termination", got)
		}
		r.client.Close()
		<-r.done
	})
}

// What Ready returns ends the session in place of its ReadyForQuery, wherever the
// stream is cut.
func TestRefusedAtReady(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		for _, cut := range []int{0, 3, len(ready) - 6, len(ready) - 5, len(ready) - 2, len(ready) - 1} {
			r := relayedRig(t, with.but(func(s Session, o Observer) Handle {
				s.Ready = func(pgwire.Login) *Termination { return &Termination{Reason: revoked, Message: fatal} }
				return with.start(s, o)
			}))
			r.says(ready[:cut]...)
			r.hears(ready[:cut])
			r.says(ready[cut:]...)
			rest := ready[cut:] // a message that has begun is completed
			if whole := len(ready) - 6; cut <= whole {
				rest = ready[cut:whole]
			}
			r.hears(slices.Concat(rest, fatal))
			r.leaves()
			<-r.done
			if r.result.Cause != Terminated || r.result.Termination != revoked {
				t.Errorf("cause %s, reason %d", r.result.Cause, r.result.Termination)
			}
		}
	})
}

// A client that leaves while its termination waits for a boundary is terminated all
// the same: it must not choose its own outcome.
func TestTerminatedClientLeaves(t *testing.T) {
	eachRelay(t, func(t *testing.T, with starter) {
		for _, leave := range []func(*rig){
			func(r *rig) { _ = r.client.Close() },
			func(r *rig) {
				_ = r.tcp.SetLinger(0)
				_ = r.tcp.Close()
			},
		} {
			r := relayedRig(t, with)
			r.says(ready...)
			r.hears(ready)
			row := said('D', strings.Repeat("x", 300))
			r.says(row[:10]...)
			r.hears(row[:10])
			r.handle.Terminate(Termination{Reason: revoked, Message: fatal, Deadline: time.Now().Add(testTimeout)})
			r.silent("in the middle of a row")
			leave(r)
			<-r.done
			if r.result.Cause != Terminated || r.result.Termination != revoked {
				t.Errorf("cause %s, reason %d", r.result.Cause, r.result.Termination)
			}
		}
	})
}

// A walsender that streams is never idle. It is ended between two messages, when what
// its client has sent is with the backend: a standby's last report of what it has
// written must not be lost.
func TestTerminateAWalsender(t *testing.T) {
	report := said('d', "r"+strings.Repeat("x", 33))
	wal := said('d', "w"+strings.Repeat("x", 300))
	both := said('W', "\x00\x00\x00")
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		r.says(ready...)
		r.hears(ready)
		r.asks()
		r.says(slices.Concat(both, wal[:100])...)
		r.hears(slices.Concat(both, wal[:100]))
		if _, err := r.client.Write(report); err != nil {
			t.Fatal(err)
		}
		wait(t, "the report is relayed", func() bool {
			up, _ := r.handle.Moved()
			return up == int64(14+len(report))
		})
		r.handle.Terminate(Termination{Reason: drained, Message: fatal, WhenIdle: true})
		r.silent("in the middle of a message")
		r.says(wal[100:]...)
		r.hears(slices.Concat(wal[100:], fatal))
		if got, err := io.ReadAll(r.backend); err != nil || !bytes.Equal(got, report) {
			t.Errorf("the backend got %q (%v)", got, err)
		}
		r.leaves()
		r.endedBy(drained, int64(14+len(report)), int64(len(ready)+len(both)+len(wal)))
	})
}

// The deadline holds also while what the client has sent waits for a backend that reads
// nothing.
func TestTerminateAWalsenderOfAStalledBackend(t *testing.T) {
	both := said('W', "\x00\x00\x00")
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		r.says(ready...)
		r.hears(ready)
		r.asks()
		r.says(both...)
		r.hears(both)
		reports := bytes.Repeat(said('d', strings.Repeat("x", 60)), 256<<10)
		sent := make(chan error, 1)
		go func() {
			_, err := r.client.Write(reports)
			sent <- err
		}()
		last := int64(-1)
		wait(t, "the backend's buffers are full", func() bool {
			before := last
			last = r.counted[0].Load()
			time.Sleep(50 * time.Millisecond)
			return before == last && last > 1<<16
		})
		r.handle.Terminate(Termination{Reason: drained, Message: fatal, WhenIdle: true, Deadline: time.Now().Add(200 * time.Millisecond)})
		select {
		case <-r.done:
		case <-time.After(testTimeout):
			t.Fatal("the session outlives the deadline")
		}
		_ = r.client.Close()
		<-sent
		if r.result.Termination != drained {
			t.Errorf("cause %v", r.result.Cause)
		}
	})
}

// What a walsender's client has sent may have to wait for the backend.
func TestTerminateAWalsenderThatDoesNotRead(t *testing.T) {
	both := said('W', "\x00\x00\x00")
	eachRelay(t, func(t *testing.T, with starter) {
		r := relayedRig(t, with)
		r.says(ready...)
		r.hears(ready)
		r.asks()
		r.says(both...)
		r.hears(both)
		reports := bytes.Repeat(said('d', strings.Repeat("x", 60)), 64<<10)
		sent := make(chan error, 1)
		go func() {
			_, err := r.client.Write(reports)
			sent <- err
		}()
		wait(t, "some is relayed", func() bool { return r.counted[0].Load() > 1<<16 })
		r.handle.Terminate(Termination{Reason: drained, Message: fatal, WhenIdle: true})
		got, err := io.ReadAll(r.backend)
		if up, _ := r.handle.Moved(); err != nil || int64(len(got)) != up-14 || !bytes.HasPrefix(reports, got) {
			t.Errorf("the backend got %d bytes (%v) of %d that were relayed", len(got), err, up-14)
		}
		_, _ = io.Copy(io.Discard, r.client)
		_ = r.client.Close()
		<-sent
		<-r.done
		if r.result.Termination != drained {
			t.Errorf("cause %v", r.result.Cause)
		}
	})
}

// What the backend says because of a termination, like the ERROR of a statement that is cancelled, the
// client does not hear, wherever the termination finds the stream.
func TestTakenTerminationComesFirst(t *testing.T) {
	row := said('D', strings.Repeat("x", 300))
	cancelled := said('E', "SERROR\x00C57014\x00\x00")
	eachRelay(t, func(t *testing.T, with starter) {
		for _, cut := range []int{0, 10} {
			r := relayedRig(t, with)
			r.says(ready...)
			r.hears(ready)
			r.asks()
			r.says(row[:cut]...)
			r.hears(row[:cut])
			var rest []byte // of a message that has begun
			if cut > 0 {
				rest = slices.Clone(row[cut:])
			}
			r.handle.Terminate(Termination{Reason: revoked, Message: fatal, Deadline: time.Now().Add(testTimeout), Taken: func() {
				_, _ = r.backend.Write(slices.Concat(rest, cancelled)) // it may be closed
			}})
			r.hears(slices.Concat(rest, fatal))
			_ = r.client.Close()
			<-r.done
		}
	})
}
