package tlsrecord

import (
	"bytes"
	"crypto/fips140"
	"crypto/tls"
	"encoding/hex"
	"net"
	"runtime"
)

// Transport is what a handshake runs over.
type Transport interface {
	net.Conn
	// Unread puts p before everything that is still to be read.
	Unread(p []byte)
}

// Secure is an established TLS connection: a *Conn, or a *tls.Conn.
type Secure interface {
	net.Conn
	// CloseWrite sends close_notify and leaves the transport open.
	CloseWrite() error
}

// Handshake is a TLS handshake of crypto/tls after which its connection can be taken
// over. Its goroutine alone may use it.
//
// The keys come by a KeyLogWriter in a copy of the configuration, which the handshake
// has for itself: no other one can see them, and they are gone with it.
type Handshake struct {
	under Transport
	tls   *tls.Conn
	tap   tap
	keys  keyLog
	// refused says that the configuration rules taking over out.
	refused bool
}

// Server prepares a handshake as server.
func Server(under Transport, config *tls.Config) *Handshake {
	h := prepare(under, config)
	// A ticket is sealed with the keys of the data, at a time that nobody sees.
	h.refused = h.refused || !config.SessionTicketsDisabled
	h.tls = tls.Server(&h.tap, h.config(config))
	return h
}

// Client prepares a handshake as client.
func Client(under Transport, config *tls.Config) *Handshake {
	h := prepare(under, config)
	h.keys.client = true
	h.tls = tls.Client(&h.tap, h.config(config))
	return h
}

// config returns the configuration of the handshake: a copy that logs its keys, if they
// are of use.
func (h *Handshake) config(of *tls.Config) *tls.Config {
	if h.refused {
		return of
	}
	if w := of.KeyLogWriter; w != nil {
		h.keys.also = func(line []byte) { _, _ = w.Write(line) }
	}
	of = of.Clone()
	of.KeyLogWriter = &h.keys
	return of
}

func prepare(under Transport, config *tls.Config) *Handshake {
	return &Handshake{
		under: under, tap: tap{Conn: under},
		// Only Linux has a relay that works with a Layer. FIPS 140-3 has no use of AES-GCM with
		// nonces of the caller's.
		refused: runtime.GOOS != "linux" || fips140.Enabled() || config.GetConfigForClient != nil,
	}
}

// Handshake is that of tls.Conn.
func (h *Handshake) Handshake() error {
	err := h.tls.Handshake()
	if err != nil {
		h.keys.wipe()
	}
	return err
}

// ConnectionState is that of tls.Conn.
func (h *Handshake) ConnectionState() tls.ConnectionState { return h.tls.ConnectionState() }

// Conn returns the connection once the handshake has succeeded, and what was read too
// much for it is unread: a *Conn, with which the tls.Conn is of no use any more, or the
// tls.Conn itself, if
//
//   - its version or cipher suite is none that a Layer speaks;
//   - FIPS 140-3 mode is on, the system is not Linux, or a server's configuration has
//     session tickets, or another configuration for some clients;
//   - the handshake was not as crypto/tls makes it today.
//
// It is called once.
func (h *Handshake) Conn() Secure {
	defer h.keys.wipe()
	layer := h.layer()
	h.under.Unread(h.tap.pending)
	h.tap.pending, h.tap.over = nil, true
	if layer == nil {
		return h.tls
	}
	h.tap.Conn = dead{h.under} // two must not seal with one key
	return &Conn{Conn: h.under, layer: layer}
}

// layer returns the Layer that goes on from the end of the handshake; nil: there can be
// none.
func (h *Handshake) layer() *Layer {
	state := h.tls.ConnectionState()
	s := suiteOf(state.Version, state.CipherSuite)
	if h.refused || s == nil || h.tap.in.rest+h.tap.in.have+h.tap.out.rest+h.tap.out.have > 0 {
		return nil
	}
	l := &Layer{suite: s, version: state.Version, id: state.CipherSuite, client: h.keys.client, budget: firstBudget}
	ours, theirs := &l.out, &l.in
	if !l.client {
		ours, theirs = theirs, ours
	}
	// Now ours is the client's direction.
	if s.tls13 {
		if h.keys.secrets[clientSecret].n != s.hashLen || h.keys.secrets[serverSecret].n != s.hashLen {
			return nil
		}
		ours.setSecret(s, h.keys.secrets[clientSecret].bytes())
		theirs.setSecret(s, h.keys.secrets[serverSecret].bytes())
		return l
	}
	hello := h.tap.out.random
	if l.client {
		hello = h.tap.in.random
	}
	if h.keys.secrets[masterSecret].n != masterLen || len(hello) != randomLen || !h.tap.in.finished(s) || !h.tap.out.finished(s) {
		return nil
	}
	block := s.keyBlock(h.keys.secrets[masterSecret].bytes(), h.keys.random[:], hello)
	ivs := block[2*s.keyLen:]
	ours.setKey(block[:s.keyLen], ivs[:s.ivLen])
	theirs.setKey(block[s.keyLen:2*s.keyLen], ivs[s.ivLen:])
	clear(block)
	ours.seq, theirs.seq = 1, 1 // the Finished messages
	return l
}

// dead is a connection that can only be closed.
type dead struct{ net.Conn }

func (dead) Read([]byte) (int, error)  { return 0, net.ErrClosed }
func (dead) Write([]byte) (int, error) { return 0, net.ErrClosed }

// The secrets that crypto/tls logs and a Layer needs.
const (
	clientSecret = iota
	serverSecret
	masterSecret

	randomLen = 32
	masterLen = 48
)

var labels = [...]string{
	clientSecret: "CLIENT_TRAFFIC_SECRET_0",
	serverSecret: "SERVER_TRAFFIC_SECRET_0",
	masterSecret: "CLIENT_RANDOM",
}

// keyLog is the KeyLogWriter of one handshake.
type keyLog struct {
	client  bool
	random  [randomLen]byte // the client's
	secrets [len(labels)]secret
	also    func(line []byte) // the configuration's own; nil: it has none
}

type secret struct {
	b [maxHash]byte
	n int
}

func (s *secret) bytes() []byte { return s.b[:s.n] }

// Write takes a line: label, client random and secret (the NSS key log format). It
// overwrites the line, which crypto/tls does not use again.
func (k *keyLog) Write(line []byte) (int, error) {
	if k.also != nil {
		k.also(line)
	}
	label, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{' '})
	random, value, _ := bytes.Cut(rest, []byte{' '})
	for i := range labels {
		s := &k.secrets[i]
		if string(label) != labels[i] || len(random) != 2*randomLen || len(value) > 2*maxHash {
			continue
		}
		_, err := hex.Decode(k.random[:], random)
		if n, e := hex.Decode(s.b[:], value); err == nil && e == nil {
			s.n = n
		}
	}
	n := len(line)
	clear(line)
	return n, nil
}

func (k *keyLog) wipe() { k.secrets = [len(labels)]secret{} }
