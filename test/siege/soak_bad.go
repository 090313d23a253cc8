//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"pgwicket/internal/tlstest"
	"pgwicket/test/wire"
)

// badInput is something that must open no session.
type badInput struct {
	name string
	do   func(*soak, *rand.Rand) error
}

func badInputs() []badInput {
	return []badInput{
		{"random bytes", inClear("", func(rnd *rand.Rand) []byte { return noise(rnd, size(rnd, 20000)) })},
		{"impossible length", inClear("", func(rnd *rand.Rand) []byte {
			n := []uint32{0, 1, 3, 4, 7, 10001, 1 << 20, 1 << 31, 1<<32 - 1}[rnd.IntN(9)]
			return append(binary.BigEndian.AppendUint32(nil, n), noise(rnd, size(rnd, 200))...)
		})},
		{"HTTP request", inClear("", func(*rand.Rand) []byte { return []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") })},
		{"startup packet in clear", inClear("28000", func(*rand.Rand) []byte { return []byte(startupPacket()) })},
		{"query in clear", inClear("", func(*rand.Rand) []byte { return []byte(wire.Query("select 1")) })},
		{"PROXY header of a stranger", inClear("", func(*rand.Rand) []byte { return []byte("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + startupPacket()) })},
		{"cut packet", inClear("", func(rnd *rand.Rand) []byte { return []byte(startupPacket()[:rnd.IntN(len(startupPacket())-1)]) })},
		{"garbage for a handshake", inClear("", func(rnd *rand.Rand) []byte { return append([]byte(sslRequest), noise(rnd, size(rnd, 5000))...) })},
		{"flipped ClientHello", inClear("", func(rnd *rand.Rand) []byte {
			hello := clientHello(rnd)
			hello[rnd.IntN(len(hello))] ^= 1 << rnd.IntN(8)
			return append([]byte(sslRequest), hello...)
		})},
		{"direct TLS of another protocol", inClear("", clientHello)},
		{"probe", inClear("", func(*rand.Rand) []byte { return nil })},

		{"no certificate", insideTLS("28000", func(_ *soak, c *tls.Config) { c.Certificates = nil }, startupPacket)},
		{"certificate of another CA", insideTLS("28000", func(_ *soak, c *tls.Config) {
			pair := tlstest.NewCA("pgwicket siege CA").Client(appUser)
			// Sent even if the gate asks for certificates of another CA.
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { p := pair.TLS(); return &p, nil }
		}, startupPacket)},
		{"server certificate as a client's", insideTLS("28000", func(s *soak, c *tls.Config) {
			c.Certificates = []tls.Certificate{s.lab.ca.Server("localhost").TLS()}
		}, startupPacket)},
		{"expired certificate", insideTLS("28000", func(s *soak, c *tls.Config) {
			c.Certificates = []tls.Certificate{s.lab.ca.Client(appUser, func(t *x509.Certificate) { t.NotAfter = time.Now().Add(-time.Minute) }).TLS()}
		}, startupPacket)},
		{"wrong database", insideTLS("28000", asIs, func() string { return startup("user", appUser, "database", "template1") })},
		{"role of somebody else", insideTLS("28000", asIs, func() string { return startup("user", "group0", "database", "postgres") })},
		{"superuser", insideTLS("28000", asIs, func() string { return startup("user", "postgres", "database", "postgres") })},
		{"no user", insideTLS("28000", asIs, func() string { return startup("database", "postgres") })},
		{"repeated name", insideTLS("08P01", asIs, func() string { return startup("user", appUser, "database", "template1", "database", "postgres") })},
		{"name that is too long", insideTLS("08P01", asIs, func() string { return startup("user", strings.Repeat("a", 64), "database", "postgres") })},
		{"protocol of another version", insideTLS("0A000", asIs, func() string { return strings.Replace(startupPacket(), "\x00\x03\x00\x00", "\x00\x04\x00\x00", 1) })},
		{"TLS inside TLS", insideTLS("0A000", asIs, func() string { return sslRequest })},

		{"TLS 1.1", (*soak).oldTLS},
		{"revoked certificate", (*soak).useRevoked},
	}
}

func asIs(*soak, *tls.Config) {}

// startup is a startup packet with these parameters.
func startup(parameters ...string) string {
	return wire.Startup(wire.Protocol30, parameters...)
}

// floodWithBad tries n of the bad inputs.
func (s *soak) floodWithBad(rnd *rand.Rand, n int) error {
	all := badInputs()
	return s.concurrently(rnd, n, func(i int, rnd *rand.Rand) error {
		b := all[rnd.IntN(len(all))]
		if err := b.do(s, rnd); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		if b.name != "revoked certificate" { // which counts itself
			s.bad.add(b.name, 1)
		}
		return nil
	})
}

// admitted is how PostgreSQL's answer to an admitted session begins.
const admitted = "R\x00\x00\x00"

// inClear sends bytes on a new connection and ends its half. The answer must not
// be PostgreSQL's, and must have this SQLSTATE in it if there is one.
func inClear(sqlstate string, bytesOf func(*rand.Rand) []byte) func(*soak, *rand.Rand) error {
	return func(s *soak, rnd *rand.Rand) error {
		r, err := s.newest().connect(context.Background())
		if err != nil {
			return err
		}
		defer r.CloseTCP()
		input := bytesOf(rnd)
		_, err = r.TCP.Write(input)
		if err == nil {
			err = r.TCP.CloseWrite()
		}
		answer, err2 := io.ReadAll(r.TCP)
		if err = errors.Join(err, err2); err != nil && !cut(err) && !ended(err) {
			return err
		}
		if bytes.HasPrefix(bytes.TrimLeft(answer, "SN"), []byte(admitted)) {
			return &mismatch{fmt.Sprintf("%q is answered by PostgreSQL: %q", shorten(string(input)), answer)}
		}
		if sqlstate != "" && !strings.Contains(string(answer), "C"+sqlstate+"\x00") {
			return errors.Join(err, &mismatch{fmt.Sprintf("the answer is %q and not %s", answer, sqlstate)})
		}
		return nil
	}
}

// insideTLS sends a packet inside TLS, which must be refused with a message.
func insideTLS(sqlstate string, edit func(*soak, *tls.Config), packet func() string) func(*soak, *rand.Rand) error {
	return func(s *soak, _ *rand.Rand) error {
		config := s.lab.tlsConfig(s.lab.client)
		edit(s, config)
		r, err := s.newest().connect(context.Background())
		if err != nil {
			return err
		}
		defer r.CloseTCP()
		if err := r.RequestTLS(); err != nil {
			return err
		}
		if err := r.Handshake(context.Background(), config); err != nil {
			return err
		}
		if err := r.Send(packet()); err != nil {
			return err
		}
		_, err = r.Await('R')
		if err == nil {
			return &mismatch{"it is admitted"}
		}
		if state(err) != sqlstate {
			var told *wire.Error
			if errors.As(err, &told) && told.Code != "57P03" && told.Code != "57P01" {
				return &mismatch{fmt.Sprintf("the answer is %v and not %s", told, sqlstate)}
			}
			return fmt.Errorf("no answer of %s: %w", sqlstate, err)
		}
		return nil
	}
}

// oldTLS offers nothing that is allowed.
func (s *soak) oldTLS(*rand.Rand) error {
	config := s.lab.tlsConfig(s.lab.client)
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	r, err := s.newest().connect(context.Background())
	if err != nil {
		return err
	}
	defer r.CloseTCP()
	if err := r.RequestTLS(); err != nil {
		return err
	}
	if r.Handshake(context.Background(), config) == nil {
		return &mismatch{"a handshake of TLS 1.1 is finished"}
	}
	return nil
}

// useRevoked connects with a certificate that has been revoked.
func (s *soak) useRevoked(rnd *rand.Rand) error {
	past := s.revokedCerts()
	if len(past) == 0 {
		return nil
	}
	return s.expectRefused(past[rnd.IntN(len(past))])
}

// clientHello is the first flight of a handshake, as crypto/tls writes it.
func clientHello(rnd *rand.Rand) []byte {
	protocols := [][]string{nil, {"http/1.1"}, {"h2"}}[rnd.IntN(3)]
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "localhost", NextProtos: protocols, MinVersion: tls.VersionTLS12}).Handshake()
	}()
	hello := make([]byte, 1<<14)
	n, _ := ours.Read(hello) // it is one write
	return hello[:n]
}
