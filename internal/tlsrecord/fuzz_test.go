package tlsrecord

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"slices"
	"testing"
)

// script is a fuzzer's bytes, read as what a peer does. It ends in zeros.
type script struct{ rest []byte }

func (s *script) next() byte {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return b
}

func (s *script) size() int { return int(s.next())<<8 | int(s.next()) }

// body is n bytes that say where they stand.
func body(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8 ^ i)
	}
	return b
}

// forger seals the records of a peer that may do anything.
type forger struct {
	suite *suite
	half
	script *script
	whole  bool // no message that is refused comes in parts: crypto/tls waits for its end, a Layer does not
}

func (f *forger) sealed(kind byte, p []byte, padding int) []byte {
	if f.cipher == nil {
		f.cipher = &sealer{aead: f.suite.aead(f.key[:f.suite.keyLen])}
	}
	if f.suite.tls13 && padding > 0 {
		// The type is part of what is sealed: it goes before the padding, whose last byte
		// then stands where seal puts the type.
		return f.seal(f.suite, nil, 0, append(append(slices.Clone(p), kind), make([]byte, padding-1)...))
	}
	return f.seal(f.suite, nil, kind, p)
}

func (f *forger) update(request byte) []byte {
	r := f.sealed(typeHandshake, []byte{keyUpdate, 0, 0, 1, request}, 0)
	f.half.update(f.suite)
	return r
}

// anyBody is the types of records whose bodies may be anything.
var anyBody = []byte{typeChangeCipherSpec, typeAlert, 24, 0xff, 1}

// do returns the records of the script's next action.
func (f *forger) do() (records []byte) {
	s := f.script
	switch action := s.next() % 16; action {
	case 0, 1, 2:
		return f.sealed(typeData, body(s.size()%(maxPlaintext+8)), int(s.next()%3)*int(s.next()))
	case 3:
		return f.sealed(typeData, body(int(s.next())+1), 0)
	case 4, 5:
		if f.suite.tls13 {
			return f.update(action & 1)
		}
		return f.sealed(typeHandshake, []byte{helloRequest, 0, 0, 0}, 0)
	case 6: // in two records
		if !f.suite.tls13 {
			return f.sealed(typeData, nil, 0)
		}
		m, n := []byte{keyUpdate, 0, 0, 1, s.next() & 1}, 1+int(s.next()%4)
		records = f.sealed(typeHandshake, m[:n], 0)
		if s.next()%4 == 0 {
			records = append(records, f.sealed(typeData, body(3), 0)...)
		}
		records = append(records, f.sealed(typeHandshake, m[n:], 0)...)
		f.half.update(f.suite)
		return records
	case 7:
		return f.sealed(typeData, nil, int(s.next()))
	case 8:
		return f.sealed(typeAlert, []byte{s.next() % 4, s.next()}, 0)
	case 9:
		return f.sealed(anyBody[int(s.next())%len(anyBody)], body(int(s.next()%4)), int(s.next()%4))
	case 10: // a bit that is not what it was
		r := f.sealed(typeData, body(20), 0)
		r[s.size()%len(r)] ^= 1 << (s.next() % 8)
		return r
	case 11: // not sealed
		b := body(s.size() % 100)
		return append([]byte{s.next(), 3, 3, 0, byte(len(b))}, b...)
	case 12:
		return []byte{20, 3, 3, 0, 1, 1}
	case 13:
		if f.suite.tls13 { // a ticket, or one of another kind
			m := []byte{newSessionTicket, 0, 0, 20, 0, 0, 0, 0, 1, 2, 3, 4, 1, 9, 0, 7, 1, 2, 3, 4, 5, 6, 7, 0, 0}
			m[3] = byte(len(m) - 4)
			if s.next()%4 == 0 {
				m[0] = 99
				return f.sealed(typeHandshake, m, 0)
			}
			n := int(s.next()) % len(m)
			if n == 0 || f.whole {
				return f.sealed(typeHandshake, m, 0)
			}
			return append(f.sealed(typeHandshake, m[:n], 0), f.sealed(typeHandshake, m[n:], 0)...)
		}
		return f.sealed(typeHandshake, nil, 0)
	case 14: // several messages in one record
		if f.suite.tls13 {
			return f.sealed(typeHandshake, append([]byte{keyUpdate, 0, 0, 1, 0}, body(int(s.next()%3))...), 0)
		}
	}
	return f.sealed(typeData, body(s.size()), 0)
}

// ended is how a connection stands after what came.
type ended struct {
	plain   []byte
	answers []string
	err     error
}

// answered opens what was sent to the peer.
func answered(t *testing.T, s *suite, h half, b []byte) (all []string) {
	t.Helper()
	for len(b) > 0 {
		n := headerLen + (int(b[3])<<8 | int(b[4]))
		h.cipher = &sealer{aead: s.aead(h.key[:s.keyLen])}
		p, ok := h.open(s, nil, b[:n])
		if !ok {
			t.Fatal("an answer does not authenticate")
		}
		kind := b[0]
		if s.tls13 {
			kind, p = p[len(p)-1], p[:len(p)-1]
		}
		all = append(all, string(append([]byte{kind}, p...)))
		if kind == typeHandshake {
			h.update(s)
		}
		b = b[n:]
	}
	return all
}

// FuzzOpen has a peer do what it may and what it may not, and compares what a Layer makes
// of it with what crypto/tls does: what is delivered, what is answered, and the end.
func FuzzOpen(f *testing.F) {
	for i := range kinds[:6] {
		for _, seed := range [][]byte{
			{0, 1, 0, 0, 3, 9, 4, 3, 1, 5, 3, 2, 8, 1, 0},
			{5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5},
			{7, 0, 7, 1, 7, 2, 12, 12, 3, 0, 12, 8, 2, 40},
			{6, 1, 2, 1, 3, 5, 6, 0, 3, 0, 3, 5},
			{13, 1, 7, 13, 1, 0, 13, 0, 0},
			{14, 1},
			{14, 0, 3, 1},
			{10, 0, 9, 1},
			{10, 0, 0, 1},
			{11, 0, 20, 23},
			{0, 0x40, 0, 0, 0, 0x40, 1, 0, 0},
			{0, 0x3f, 0xff, 2, 200},
			{9, 0, 1, 0},
			{9, 2, 3, 1},
			{8, 1, 90, 8, 1, 1, 8, 2, 20},
			{15, 0xff, 0xff},
		} {
			f.Add(uint8(i), false, false, uint16(i*37+1), seed)
			f.Add(uint8(i), true, true, uint16(0), seed)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, client, cut bool, split uint16, actions []byte) {
		if len(actions) > 200 {
			t.Skip()
		}
		k := kinds[int(which)%6]
		server, other := k.ends(t)
		if client {
			server, other = other, server
		}
		ours, peer := layerOf(t, server), layerOf(t, other)
		ours.budget = maxBudget // which crypto/tls has not; no script uses it up
		s := &script{actions}
		forger := &forger{suite: peer.suite, half: peer.out, script: s, whole: !client}
		var came []byte
		for len(s.rest) > 0 && len(came) < 1<<20 {
			came = append(came, forger.do()...)
		}
		if cut && len(came) > 0 {
			came = came[:len(came)-int(split)%min(len(came), 50)]
		}
		pieces := [][]byte{came}
		if split > 0 {
			pieces = slices.Collect(slices.Chunk(came, int(split)))
		}
		want := byCryptoTLS(t, server, peer, pieces, cut)
		got := byLayer(t, ours, peer, pieces, cut)
		if isRefusal(got.err) && !peer.suite.tls13 && !isNoRenegotiation(want.err) {
			// A Layer refuses a handshake message of TLS 1.2 by its first byte. crypto/tls waits for all of it, and
			// may meet the end or another mistake before.
			got.err, got.answers = want.err, want.answers
		}
		compare(t, got, want)
	})
}

func isRefusal(err error) bool {
	return isNoRenegotiation(err) || err != nil && err.Error() == localError(unexpectedMessage).Error()
}

func isNoRenegotiation(err error) bool {
	return err != nil && err.Error() == localError(noRenegotiation).Error()
}

func byLayer(t *testing.T, l, peer *Layer, pieces [][]byte, cut bool) (e ended) {
	t.Helper()
	var out []byte
	for _, p := range pieces {
		if e.plain, out, e.err = l.Open(e.plain, p, out); e.err != nil {
			break
		}
	}
	if e.err == nil && cut {
		e.err = l.End()
	}
	e.answers = answered(t, peer.suite, peer.in, out)
	if l.lent != nil && (e.err != nil || len(l.partial) <= keepSmall) {
		t.Error("room is held for nothing")
	}
	return e
}

func byCryptoTLS(t *testing.T, h *Handshake, peer *Layer, pieces [][]byte, cut bool) (e ended) {
	t.Helper()
	conn, fed := oracle(h)
	for _, p := range pieces {
		fed.pieces = append(fed.pieces, slices.Clone(p))
	}
	if cut {
		fed.end = io.EOF
	}
	buf := make([]byte, 64<<10)
	for e.err == nil {
		var n int
		n, e.err = conn.Read(buf)
		e.plain = append(e.plain, buf[:n]...)
	}
	if errors.Is(e.err, noMore{}) {
		e.err = nil
	}
	e.answers = answered(t, peer.suite, peer.in, fed.written)
	return e
}

func compare(t *testing.T, got, want ended) {
	t.Helper()
	if !bytes.Equal(got.plain, want.plain) {
		t.Errorf("%d bytes were delivered, and %d by crypto/tls", len(got.plain), len(want.plain))
	}
	if !slices.Equal(got.answers, want.answers) {
		t.Errorf("answers %q, and %q of crypto/tls", got.answers, want.answers)
	}
	if (got.err == nil) != (want.err == nil) || got.err != nil && got.err.Error() != want.err.Error() && !reworded(got.err, want.err) {
		t.Errorf("error %v, and %v of crypto/tls", got.err, want.err)
	}
}

// reworded reports whether crypto/tls has said the same in other words.
func reworded(got, want error) bool {
	for _, words := range [][2]string{
		{"tls: received unexpected handshake message of type 99", "local error: tls: unexpected message"},
		{"local error: tls: unexpected message", "tls: handshake buffer not empty before setting read traffic secret"},
		{"local error: tls: unexpected message", "tls: too many non-advancing records"}, // with the same alert
		{"tls: received unexpected handshake message of type 99", "tls: too many non-advancing records"},
		{"tls: received new session ticket from a client", "tls: too many non-advancing records"},
	} {
		if got.Error() == words[0] && want.Error() == words[1] {
			return true
		}
	}
	return false
}

// FuzzSeal has both ends send, split and change keys at random, and crypto/tls read what a
// Layer has sealed.
func FuzzSeal(f *testing.F) {
	for i := range kinds[:6] {
		f.Add(uint8(i), false, []byte{0, 1, 2, 0, 0, 1, 2, 0, 9, 3, 0, 50, 1, 200, 0, 2, 3, 1, 1})
		f.Add(uint8(i), true, []byte{0, 0x40, 0, 1, 0x40, 1, 2, 0, 0xff, 0xff, 2, 1, 3, 3, 4})
	}
	f.Fuzz(func(t *testing.T, which uint8, client bool, actions []byte) {
		if len(actions) > 100 {
			t.Skip()
		}
		k := kinds[int(which)%6]
		server, other := k.ends(t)
		if client {
			server, other = other, server
		}
		ours := layerOf(t, server)
		if cache := NewCache(1); len(actions)%2 == 0 {
			ours.Use(cache)
			defer func() { ours.Use(nil) }()
		}
		theirs, fed := oracle(other)
		x := &exchange{t: t, ours: ours, theirs: theirs, fed: fed}
		for s := (&script{actions}); len(s.rest) > 0; {
			x.do(s)
		}
		x.out = x.ours.CloseNotify(x.out)
		x.toTheirs()
		if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after close_notify: %v", err)
		}
		if _, err := x.ours.Seal(nil, []byte{1}); err == nil {
			t.Error("data is sealed after close_notify")
		}
	})
}

// exchange is a connection between a Layer and a tls.Conn.
type exchange struct {
	t      *testing.T
	ours   *Layer
	theirs *tls.Conn
	fed    *fed
	out    []byte // of ours, not delivered yet
	want   []byte // that theirs must read
	keys   int    // of ours, one after another without data: crypto/tls takes 16
}

func (x *exchange) do(s *script) {
	t := x.t
	t.Helper()
	switch s.next() % 5 {
	case 0:
		p := body(s.size())
		x.out, _ = x.ours.Seal(x.out, p)
		x.want = append(x.want, p...)
		if len(p) > 0 {
			x.keys = 0
		}
	case 1:
		p := body(s.size())
		if _, err := x.theirs.Write(p); err != nil {
			t.Fatal(err)
		}
		var got []byte
		var err error
		split := 1 + s.size()
		for piece := range slices.Chunk(x.fed.written, split) {
			if got, x.out, err = x.ours.Open(got, piece, x.out); err != nil {
				t.Fatal(err)
			}
		}
		x.fed.written = nil
		if !bytes.Equal(got, p) {
			t.Fatalf("%d bytes came as %d others", len(p), len(got))
		}
	case 2:
		if x.ours.suite.tls13 && x.keys < maxUseless { // ours at its limit
			x.out = x.ours.updateOut(x.out)
			x.keys++
		}
	case 3: // and then another process
		state, err := x.ours.Export()
		if err != nil {
			t.Fatal(err)
		}
		x.ours.Wipe()
		if x.ours, err = Import(state); err != nil {
			t.Fatal(err)
		}
		state.Wipe()
	case 4:
		x.toTheirs()
	}
}

// toTheirs has the tls.Conn read all that was sealed.
func (x *exchange) toTheirs() {
	x.t.Helper()
	x.fed.pieces = append(x.fed.pieces, x.out)
	x.out = nil
	got := make([]byte, len(x.want))
	if _, err := io.ReadFull(x.theirs, got); err != nil || !bytes.Equal(got, x.want) {
		x.t.Fatalf("%d bytes came as others (%v)", len(got), err)
	}
	x.want = nil
	if _, err := x.theirs.Read(make([]byte, 1)); !errors.Is(err, noMore{}) && err != io.EOF {
		x.t.Fatalf("behind it: %v", err)
	}
}
