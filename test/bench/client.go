package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"pgwicket/internal/tlstest"
	"pgwicket/test/gate"
	"pgwicket/test/wire"
)

// credentials are a client's certificate.
type credentials struct {
	ca                *tlstest.CA
	pair              *tlstest.Pair
	certFile, keyFile string
}

// target is what a client needs to know to connect.
type target struct {
	address string
	dialect dialect
	user    string
	tls     *tls.Config
	pair    func() *tlstest.Pair // a certificate for each session; nil: they have that of tls
}

func (g *endpoint) target() target {
	t := target{address: g.address, dialect: g.contender.dialect, user: benchUser, tls: &tls.Config{
		InsecureSkipVerify: true, // as libpq does with sslmode=require; the contenders' work is the same
		MinVersion:         tls.VersionTLS13,
		CurvePreferences:   []tls.CurveID{tls.X25519}, // what OpenSSL 3.0 does; a hybrid would be Go's privilege
		NextProtos:         []string{"postgresql"},
		// As libpq, whose records are as long as its writes.
		DynamicRecordSizingDisabled: true,
	}}
	if g.cert != nil {
		t.user = certUser
		t.tls.Certificates = []tls.Certificate{g.cert.pair.TLS()}
	}
	if t.dialect != directTLS {
		t.tls.NextProtos = nil
	}
	if g.process == nil {
		t.tls.CurvePreferences[0] = tls.CurveP256 // PostgreSQL before 18 can do one group only
	}
	return t
}

// session is a client that is logged in. Not safe for concurrent use.
type session struct {
	*wire.Conn
	unhook func() bool
}

// dial opens a session. When ctx ends, what it is in the middle of fails.
func dial(ctx context.Context, t target) (*session, error) {
	if t.pair != nil {
		t.tls = t.tls.Clone()
		t.tls.Certificates = []tls.Certificate{t.pair().TLS()}
	}
	c, err := dialTLS(ctx, t)
	if err != nil {
		return nil, err
	}
	s := newSession(ctx, c)
	if err := s.Exchange(startupPacket(t.user)); err != nil {
		s.drop()
		return nil, fmt.Errorf("startup: %w", err)
	}
	return s, nil
}

func newSession(ctx context.Context, c *wire.Conn) *session {
	s := &session{Conn: c}
	s.unhook = context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	return s
}

func startupPacket(user string) string {
	return wire.Startup(wire.Protocol30, "user", user, "database", "postgres")
}

// dialTLS connects, and handshakes unless the dialect is plain text.
func dialTLS(ctx context.Context, t target) (*wire.Conn, error) {
	c, err := wire.Dial(ctx, t.address, gate.Timeout)
	if err != nil {
		return nil, err
	}
	if t.dialect == plainText {
		return c, nil
	}
	if t.dialect == sslRequest {
		err = c.RequestTLS()
	}
	if err == nil {
		err = c.Handshake(ctx, t.tls)
	}
	if err == nil {
		err = sameForAll(c.TLS.ConnectionState(), t.tls.CurvePreferences[0])
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// sameForAll refuses to measure a session whose cryptography is not the others'.
func sameForAll(s tls.ConnectionState, group tls.CurveID) error {
	key := s.PeerCertificates[0].PublicKeyAlgorithm.String()
	if s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || s.CurveID != group || s.DidResume || key != "ECDSA" {
		return fmt.Errorf("negotiated %s, %v, a certificate of %s, resumed: %v", tls.CipherSuiteName(s.CipherSuite), s.CurveID, key, s.DidResume)
	}
	return nil
}

// close ends the session in order, as libpq does.
func (s *session) close() {
	_ = s.Send(wire.Terminate)
	s.drop()
}

func (s *session) drop() {
	s.unhook()
	_ = s.Close()
}

// extend gives the session another deadline.
func (s *session) extend(d time.Duration) { _ = s.SetDeadline(time.Now().Add(d)) }

func (s *session) query(sql string) error { return s.Exchange(wire.Query(sql)) }

// prepare makes a statement with one parameter; bound is then one execution of it.
func prepare(sql string) func(*session) error {
	return func(s *session) error {
		return s.Exchange(wire.Message('P', "s\x00"+sql+"\x00\x00\x00") + wire.Message('S', ""))
	}
}

func bound(value int) string {
	v := fmt.Sprint(value)
	return wire.Message('B', "\x00s\x00\x00\x00\x00\x01\x00\x00\x00"+string(rune(len(v)))+v+"\x00\x00") +
		wire.Message('E', "\x00\x00\x00\x00\x00") + wire.Message('S', "")
}
