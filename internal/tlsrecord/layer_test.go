package tlsrecord

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// between is a Layer and its peer.
type between struct {
	*Layer
	peer *Layer
}

func (k kind) layers(t testing.TB, client bool) between {
	t.Helper()
	server, other := k.ends(t)
	if client {
		server, other = other, server
	}
	return between{layerOf(t, server), layerOf(t, other)}
}

func (b between) forger() *forger { return &forger{suite: b.peer.suite, half: b.peer.out} }

var (
	aes13 = kinds[0]
	aes12 = kinds[3]
)

// What crypto/tls has no test for, or judges in another way, is refused with the alert of
// the RFC.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   kind
		client bool
		sent   func(f *forger) []byte
		alert  tls.AlertError
		text   string
	}{
		{"no type inside (RFC 8446, section 5.4)", aes13, false, func(f *forger) []byte {
			r := []byte{typeData, 3, 3, 0, tagLen}
			f.sealed(0, nil, 0) // for the cipher
			return f.cipher.aead.Seal(r, f.prepareAt(0), nil, r)
		}, unexpectedMessage, "unexpected message"},
		{"only padding inside", aes13, false, func(f *forger) []byte { return f.sealed(0, make([]byte, 5), 0) }, unexpectedMessage, "unexpected message"},
		{"a KeyUpdate of no kind (section 4.6.3)", aes13, false, func(f *forger) []byte { return f.update(2) }, illegalParameter, "illegal parameter"},
		{"a KeyUpdate that is too long", aes13, false, func(f *forger) []byte {
			return f.sealed(typeHandshake, []byte{keyUpdate, 0, 0, 2, 0, 0}, 0)
		}, decodeError, "error decoding message"},
		{"a message behind a KeyUpdate (section 5.1)", aes13, false, func(f *forger) []byte {
			return f.sealed(typeHandshake, []byte{keyUpdate, 0, 0, 1, 0, keyUpdate}, 0)
		}, unexpectedMessage, "unexpected message"},
		{"data within a message (section 5.1)", aes13, false, func(f *forger) []byte {
			return append(f.sealed(typeHandshake, []byte{keyUpdate}, 0), f.sealed(typeData, []byte{1}, 0)...)
		}, unexpectedMessage, "unexpected message"},
		{"a ticket from a client", aes13, false, func(f *forger) []byte {
			return f.sealed(typeHandshake, []byte{newSessionTicket, 0, 0, 1, 0}, 0)
		}, unexpectedMessage, "session ticket"},
		{"a ticket without end", aes13, true, func(f *forger) []byte {
			return f.sealed(typeHandshake, []byte{newSessionTicket, 2, 0, 0}, 0)
		}, internalError, "exceeds maximum"},
		{"a request for a certificate", aes13, true, func(f *forger) []byte {
			return f.sealed(typeHandshake, []byte{13, 0, 0, 0}, 0)
		}, unexpectedMessage, "type 13"},
		{"a new handshake in TLS 1.2", aes12, false, func(f *forger) []byte {
			return f.sealed(typeHandshake, []byte{1, 0, 0, 40}, 0)
		}, unexpectedMessage, "unexpected message"},
		{"a request for one", aes12, true, func(f *forger) []byte {
			return f.sealed(typeHandshake, []byte{helloRequest, 0, 0, 0}, 0)
		}, noRenegotiation, "no renegotiation"},
		{"a record too long for TLS 1.3 (section 5.2)", aes13, false, func(*forger) []byte { return []byte{typeData, 3, 3, 0x41, 1} }, recordOverflow, "oversized record"},
		{"one that is not for TLS 1.2", aes12, false, func(*forger) []byte { return []byte{typeData, 3, 3, 0x48, 1} }, recordOverflow, "oversized record"},
		{"data too long in a record that is not (section 5.4)", aes13, false, func(f *forger) []byte {
			return f.sealed(typeData, body(maxPlaintext+1), 0)
		}, recordOverflow, "record overflow"},
		{"another version", aes13, false, func(*forger) []byte { return []byte{typeData, 3, 1, 0, 50} }, protocolVersion, "version 301"},
		{"a record shorter than its tag", aes13, false, func(*forger) []byte { return []byte{typeData, 3, 3, 0, 3, 1, 2, 3} }, badRecordMAC, "bad record MAC"},
		{"one of TLS 1.2", aes12, false, func(*forger) []byte { return append([]byte{typeData, 3, 3, 0, 20}, make([]byte, 20)...) }, badRecordMAC, "bad record MAC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := c.kind.layers(t, c.client)
			f := l.forger()
			came := c.sent(f)
			plain, out, err := l.Open(nil, came, nil)
			if len(plain) > 0 || err == nil || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("%d bytes, error %v", len(plain), err)
			}
			level := byte(levelFatal)
			if c.alert == noRenegotiation {
				level = levelWarning
			}
			want := string([]byte{typeAlert, level, byte(c.alert)})
			if got := answered(t, l.peer.suite, l.peer.in, out); !slices.Equal(got, []string{want}) {
				t.Errorf("answers %q, want %q", got, want)
			}
			// Nothing more is opened, sealed or kept.
			plain, out, again := l.Open(nil, f.sealed(typeData, []byte("more"), 0), nil)
			if len(plain)+len(out) > 0 || !errors.Is(again, err) {
				t.Errorf("after the end: %q, answer %q, %v", plain, out, again)
			}
			if _, err := l.Seal(nil, []byte{1}); err == nil {
				t.Error("data is sealed behind an alert")
			}
			if out := l.CloseNotify(nil); len(out) > 0 {
				t.Error("close_notify is sealed behind an alert")
			}
			if _, err := l.Export(); err == nil {
				t.Error("the state of a connection that has failed is exported")
			}
		})
	}
}

// prepareAt returns the nonce of a record before the next one.
func (f *forger) prepareAt(seq uint64) []byte {
	f.seq = seq
	return f.prepare(f.suite).nonce[:]
}

// A JDK asks for a KeyUpdate at every record that it gets until it has the answer, so as
// many as were sent are answered, all that come together at once (golang/go#80528). One
// that has got nothing may ask as often as crypto/tls lets it.
func TestKeyUpdatesOfAReader(t *testing.T) {
	const records = 100
	l := aes13.layers(t, false)
	f := l.forger()
	for range records {
		if _, err := l.Seal(nil, []byte("row")); err != nil {
			t.Fatal(err)
		}
	}
	l.peer.in.seq = records
	var came []byte
	for range records {
		came = append(came, f.update(1)...)
	}
	_, out, err := l.Open(nil, came, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := answered(t, l.peer.suite, l.peer.in, out); len(got) != 1 || got[0] != string([]byte{typeHandshake, keyUpdate, 0, 0, 1, 0}) {
		t.Errorf("%d answers, %q", len(got), got)
	}
	for i := range maxUseless {
		if _, _, err := l.Open(nil, f.update(1), nil); err != nil {
			t.Fatalf("number %d: %v", i, err)
		}
	}
	if _, _, err := l.Open(nil, f.update(1), nil); err == nil || !strings.Contains(err.Error(), "non-advancing") {
		t.Errorf("a flood of KeyUpdates: %v", err)
	}
}

// The time that a KeyUpdate costs must be paid for: with data, or with what the peer was sent.
// One that changes its key for each KiB, or for each answer, may go on.
func TestKeyUpdatesForData(t *testing.T) {
	data := func(n int) func(l between, f *forger) []byte {
		return func(_ between, f *forger) []byte { return f.sealed(typeData, body(n), 0) }
	}
	for _, tt := range []struct {
		name     string
		between  func(l between, f *forger) []byte // two KeyUpdates
		endsSoon bool
	}{
		{"a byte", data(1), true},
		{"a small message", data(updateData / 8), true},
		{"a KiB", data(updateData), false},
		{"the longest record", data(maxPlaintext), false},
		{"an answer", func(l between, f *forger) []byte {
			if _, err := l.Seal(nil, []byte("row")); err != nil {
				t.Fatal(err)
			}
			return f.sealed(typeData, body(1), 0)
		}, false},
	} {
		for request := range byte(2) {
			l := aes13.layers(t, false)
			f := l.forger()
			var err error
			n := 0
			for ; n < 4*maxGrant && err == nil; n++ {
				if _, _, err = l.Open(nil, tt.between(l, f), nil); err == nil {
					_, _, err = l.Open(nil, f.update(request), nil)
				}
			}
			if tt.endsSoon && (!errors.Is(err, ErrKeyUpdates) || n > 2*firstBudget) || !tt.endsSoon && err != nil {
				t.Errorf("%s between two KeyUpdates (%d): %v after %d", tt.name, request, err, n)
			}
		}
	}
}

// A key is changed before it has sealed more than AES-GCM bears (RFC 8446, section 5.5).
func TestKeyLimit(t *testing.T) {
	l := aes13.layers(t, false)
	l.out.seq, l.peer.in.seq = keyLimit-1, keyLimit-1
	out, err := l.Seal(nil, []byte("last"))
	if err != nil || l.out.seq != keyLimit {
		t.Fatal(l.out.seq, err)
	}
	key := l.out.key
	if out, err = l.Seal(out, []byte(" first")); err != nil || l.out.key == key || l.out.seq != 1 {
		t.Errorf("record %d with the same key: %t (%v)", l.out.seq, l.out.key == key, err)
	}
	got, answer, err := l.peer.Open(nil, out, nil)
	if string(got) != "last first" || len(answer) > 0 || err != nil {
		t.Errorf("the peer has %q, answers %q, %v", got, answer, err)
	}
	// TLS 1.2 has one key, and no record after the last number.
	l = aes12.layers(t, false)
	if l.out.seq = 1<<64 - 1; len(l.CloseNotify(nil)) > 0 {
		t.Error("a number is used again")
	}
	if _, err := l.Seal(nil, []byte{1}); err == nil {
		t.Error("a record after the last one")
	}
}

// A state is complete at every byte of what comes: the connection goes on as if nothing had
// happened.
func TestStateAtEveryByte(t *testing.T) {
	for _, k := range []kind{aes13, kinds[1], kinds[2], aes12, kinds[5]} {
		for _, client := range []bool{false, true} {
			l := k.layers(t, client)
			f := l.forger()
			came := f.sealed(typeData, []byte("one "), 3)
			if f.suite.tls13 {
				came = append(came, f.sealed(typeHandshake, []byte{keyUpdate, 0, 0}, 0)...)
				came = append(came, f.sealed(typeHandshake, []byte{1, 1}, 0)...)
				f.half.update(f.suite)
				if client {
					came = append(came, f.sealed(typeHandshake, []byte{newSessionTicket, 0, 0, 9, 1, 2, 3}, 0)...)
					came = append(came, f.sealed(typeHandshake, []byte{4, 5, 6, 7, 8, 9}, 0)...)
				}
			}
			came = append(came, f.sealed(typeData, []byte("two"), 0)...)
			begin, err := l.Export()
			if err != nil {
				t.Fatal(err)
			}
			for at := range came {
				one, err := Import(begin)
				if err != nil {
					t.Fatal(err)
				}
				plain, out, err := one.Open(nil, came[:at], nil)
				if err != nil {
					t.Fatal(err)
				}
				state, err := one.Export()
				if err != nil {
					t.Fatal(err)
				}
				one.Wipe()
				two, err := Import(state)
				if err != nil {
					t.Fatalf("%s at %d: %v", k, at, err)
				}
				state.Wipe()
				plain, out, err = two.Open(plain, came[at:], out)
				if string(plain) != "one two" || err != nil {
					t.Errorf("%s at %d: %q, %v", k, at, plain, err)
				}
				if out, err = two.Seal(out, []byte("three")); err != nil {
					t.Fatal(err)
				}
				peer := *l.peer
				if got, _, err := peer.Open(nil, out, nil); string(got) != "three" || err != nil {
					t.Errorf("%s at %d: the peer has %q, %v", k, at, got, err)
				}
			}
		}
	}
}

// What another process sends is checked: a state that no Layer has had is none.
func TestStateIsChecked(t *testing.T) {
	l := aes13.layers(t, false)
	for name, spoil := range map[string]func(*State){
		"no suite":           func(s *State) { s.CipherSuite = tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA },
		"another version":    func(s *State) { s.Version = tls.VersionTLS12 },
		"a short secret":     func(s *State) { s.In.Secret = s.In.Secret[:31] },
		"a long key":         func(s *State) { s.Out.Key = append(s.Out.Key, 1) },
		"no IV":              func(s *State) { s.Out.IV = nil },
		"a whole record":     func(s *State) { s.Partial = []byte{typeData, 3, 3, 0, 1, 9} },
		"half a bad one":     func(s *State) { s.Partial = []byte{typeData, 3, 3, 0xff, 0xff, 9} },
		"more than a record": func(s *State) { s.Partial = make([]byte, maxRecord) },
		"a long message":     func(s *State) { s.Message = make([]byte, 5) },
		"a long ticket":      func(s *State) { s.Skip = 1 << 24 },
		"many useless":       func(s *State) { s.Useless = 100 },
		"a large grant":      func(s *State) { s.Grant = maxGrant + 1 },
	} {
		s, err := l.Export()
		if err != nil {
			t.Fatal(err)
		}
		if spoil(s); true {
			if _, err := Import(s); err == nil {
				t.Error(name, "is taken")
			}
		}
	}
	// One that was closed in order on either side is taken so.
	l.CloseNotify(nil)
	_, _, _ = l.Open(nil, l.forger().sealed(typeAlert, []byte{1, 0}, 0), nil)
	s, err := l.Export()
	if err != nil || !s.InClosed || !s.OutClosed {
		t.Fatal(s, err)
	}
	again, err := Import(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Seal(nil, []byte{1}); err == nil {
		t.Error("data is sealed after close_notify")
	}
	if _, _, err := again.Open(nil, nil, nil); err != io.EOF {
		t.Error("the end of the peer is lost:", err)
	}
}

// Keys stay nowhere: not in the line of the key log, the handshake, a wiped state or a
// wiped Layer.
func TestSecretsAreWiped(t *testing.T) {
	for _, k := range []kind{aes13, aes12} {
		server, client := k.ends(t)
		logged := server.keys.secrets
		conn, ok := server.Conn().(*Conn)
		if !ok {
			t.Fatal("not taken over")
		}
		if server.keys.secrets != [len(labels)]secret{} || logged == server.keys.secrets {
			t.Error("the handshake keeps the secrets")
		}
		l, _ := conn.Detach()
		s, err := l.Export()
		if err != nil {
			t.Fatal(err)
		}
		s.Wipe()
		l.Wipe()
		for _, b := range [][]byte{s.In.Secret, s.Out.Secret, s.In.Key, s.Out.Key, s.In.IV, s.Out.IV, l.in.secret[:], l.out.secret[:], l.in.key[:], l.out.key[:], l.in.iv[:], l.out.iv[:]} {
			if !bytes.Equal(b, make([]byte, len(b))) {
				t.Errorf("%s: a key is left", k)
			}
		}
		if l.in.cipher != nil || l.out.cipher != nil {
			t.Error("a cipher is left")
		}
		if _, err := l.Seal(nil, []byte{1}); err == nil {
			t.Error("data is sealed with no key")
		}
		if _, err := server.tls.Write([]byte{1}); err == nil {
			t.Error("crypto/tls still sends with the keys")
		}
		_ = client.under.Close()
	}
	line := fmt.Appendf(nil, "CLIENT_TRAFFIC_SECRET_0 %064x %064x\n", 1, 2)
	log := new(keyLog)
	if n, err := log.Write(line); n != len(line) || err != nil || log.secrets[clientSecret].n != 32 {
		t.Fatal(n, err, log.secrets[clientSecret].n)
	}
	if !bytes.Equal(line, make([]byte, len(line))) {
		t.Error("crypto/tls's line is left")
	}
}

// The ciphers of a few Layers are kept, those that are in use first, and every Layer works
// without.
func TestCache(t *testing.T) {
	c := NewCache(2)
	var all []between
	for range 4 {
		l := aes13.layers(t, false)
		l.Use(c)
		all = append(all, l)
	}
	use := func(i int) {
		t.Helper()
		out, err := all[i].Seal(nil, []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := all[i].peer.Open(nil, out, nil); string(got) != "data" || err != nil {
			t.Fatalf("layer %d: %q, %v", i, got, err)
		}
	}
	for _, i := range []int{0, 1, 2, 3, 0, 0, 1, 0, 2, 0, 3, 0} {
		use(i)
		ready := 0
		for _, l := range all {
			if l.out.cipher != nil || l.in.cipher != nil {
				ready++
			}
		}
		if ready > 2 || all[i].out.cipher == nil {
			t.Errorf("%d layers have ciphers", ready)
		}
	}
	for _, l := range all {
		l.Wipe()
	}
	if c.slots[0] != nil || c.slots[1] != nil {
		t.Error("the cache holds a layer that is over")
	}
}

// A Layer keeps the ciphers that it has when it comes into a cache, which counts them.
func TestCacheKeepsCiphers(t *testing.T) {
	c, l := NewCache(1), aes13.layers(t, false)
	out, err := l.peer.Seal(nil, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := l.Open(nil, out, nil); string(got) != "data" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	before := l.in.cipher
	l.Use(c)
	if before == nil || l.in.cipher != before || c.slots[0] != l.Layer {
		t.Error("the cipher was dropped, or is not counted")
	}
}

// The byte behind what is sealed is the caller's again.
func TestSealBorrowsAByte(t *testing.T) {
	for _, k := range []kind{aes13, aes12} {
		l := k.layers(t, false)
		text := []byte("data and more")
		out, err := l.Seal(nil, text[:4])
		if err != nil || string(text) != "data and more" {
			t.Fatalf("%q, %v", text, err)
		}
		if out, err = l.Seal(out, text[4:8:8]); err != nil {
			t.Fatal(err)
		}
		if got, _, err := l.peer.Open(nil, out, nil); string(got) != "data and" || err != nil {
			t.Errorf("the peer has %q, %v", got, err)
		}
	}
}
