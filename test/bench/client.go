package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"pgwicket/internal/tlstest"
)

// credentials are a client's certificate.
type credentials struct {
	pair              *tlstest.Pair
	certFile, keyFile string
}

// target is what a client needs to know to get in.
type target struct {
	address string
	dialect dialect
	user    string
	tls     *tls.Config
}

// patience is how long anything may take that takes milliseconds.
const patience = 60 * time.Second

func (g *gate) target() target {
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

// session is a client that has got in. Not safe for concurrent use.
type session struct {
	conn   net.Conn
	r      *bufio.Reader
	unhook func() bool
}

// dial opens a session. When ctx ends, whatever it is in the middle of fails.
func dial(ctx context.Context, t target) (*session, error) {
	conn, err := dialTLS(ctx, t)
	if err != nil {
		return nil, err
	}
	s := newSession(ctx, conn)
	if err := s.exchange(startupPacket(t.user)); err != nil {
		s.drop()
		return nil, fmt.Errorf("start-up: %w", err)
	}
	return s, nil
}

func newSession(ctx context.Context, conn net.Conn) *session {
	s := &session{conn: conn, r: bufio.NewReader(conn)}
	s.unhook = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	return s
}

func startupPacket(user string) string {
	return message(0, "\x00\x03\x00\x00user\x00"+user+"\x00database\x00postgres\x00\x00")[1:]
}

// dialTLS connects, and handshakes unless the dialect is plain text.
func dialTLS(ctx context.Context, t target) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if t.dialect == plainText {
		return c, nil
	}
	tc := tls.Client(c, t.tls)
	if t.dialect == sslRequest {
		err = askForTLS(c)
	}
	if err == nil {
		err = tc.HandshakeContext(ctx)
	}
	if err == nil {
		err = sameForAll(tc.ConnectionState(), t.tls.CurvePreferences[0])
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return tc, nil
}

func askForTLS(c net.Conn) error {
	if _, err := io.WriteString(c, "\x00\x00\x00\x08\x04\xd2\x16\x2f"); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return fmt.Errorf("the answer to SSLRequest is %q", answer)
	}
	return nil
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
	_, _ = io.WriteString(s.conn, message('X', ""))
	s.drop()
}

func (s *session) drop() {
	s.unhook()
	_ = s.conn.Close()
}

// renew gives the session its patience again.
func (s *session) renew(d time.Duration) { _ = s.conn.SetDeadline(time.Now().Add(d)) }

func (s *session) query(sql string) error { return s.exchange(message('Q', sql+"\x00")) }

// prepare makes a statement with one parameter; bound is then one execution of it.
func prepare(sql string) func(*session) error {
	return func(s *session) error {
		return s.exchange(message('P', "s\x00"+sql+"\x00\x00\x00") + message('S', ""))
	}
}

func bound(value int) string {
	v := fmt.Sprint(value)
	return message('B', "\x00s\x00\x00\x00\x00\x01\x00\x00\x00"+string(rune(len(v)))+v+"\x00\x00") + message('E', "\x00\x00\x00\x00\x00") + message('S', "")
}

// exchange sends and reads up to ReadyForQuery.
func (s *session) exchange(request string) error {
	if _, err := io.WriteString(s.conn, request); err != nil {
		return err
	}
	_, err := s.await('Z')
	return err
}

// await reads up to a message of this type and counts what it skips.
func (s *session) await(kind byte) (n int64, err error) {
	for {
		head, err := s.r.Peek(5)
		if err != nil {
			return n, err
		}
		got, size := head[0], 1+int(binary.BigEndian.Uint32(head[1:]))
		if got == 'E' {
			return n, s.refusal(size)
		}
		if _, err := s.r.Discard(size); err != nil {
			return n, err
		}
		n += int64(size)
		if got == kind {
			return n, nil
		}
	}
}

func (s *session) refusal(size int) error {
	b := make([]byte, min(size, 4096))
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err
	}
	for field := range strings.SplitSeq(string(b[5:]), "\x00") {
		if text, ok := strings.CutPrefix(field, "M"); ok {
			return errors.New(text)
		}
	}
	return errors.New("an error without a message")
}

// message encodes one message; a startup packet is one without its type.
func message(kind byte, body string) string {
	b := append([]byte{kind}, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)+4))
	return string(b) + body
}

// discard skips the body of a message whose length, itself included, is given.
func discard(r io.Reader, length []byte) error {
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(length))-4)
	return err
}
