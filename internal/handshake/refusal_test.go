package handshake

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pgwicket/internal/outcome"
	"pgwicket/internal/tlstest"
)

var handshakeCA = sync.OnceValue(func() *tlstest.CA { return tlstest.NewCA("handshake CA") })

var handshakePair = sync.OnceValue(func() tls.Certificate { return handshakeCA().Server("localhost").TLS() })

// failHandshake lets a client loose on a tls.Server over a real socket and
// returns what Handshake returned.
func failHandshake(t *testing.T, configure func(*tls.Config), client func(*net.TCPConn)) error {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return // and Accept fails too
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		client(conn.(*net.TCPConn))
	})
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	config := &tls.Config{
		Certificates:           []tls.Certificate{handshakePair()},
		MinVersion:             tls.VersionTLS12,
		ClientAuth:             tls.RequestClientCert,
		NextProtos:             []string{"postgresql"},
		SessionTicketsDisabled: true,
	}
	if configure != nil {
		configure(config)
	}
	if config.Time != nil { // how a case asks for a deadline; see below
		_ = conn.SetDeadline(config.Time())
	}
	if err = tls.Server(conn, config).Handshake(); err == nil {
		t.Fatal("the handshake worked")
	}
	return err
}

// goClient shakes hands as crypto/tls does, then waits for the server to close.
func goClient(edit func(*tls.Config)) func(*net.TCPConn) {
	return func(conn *net.TCPConn) { goClientOver(conn, conn, edit) }
}

func goClientOver(conn net.Conn, raw *net.TCPConn, edit func(*tls.Config)) {
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	config.RootCAs.AddCert(handshakeCA().Cert)
	if edit != nil {
		edit(config)
	}
	_ = tls.Client(conn, config).Handshake()
	_, _ = io.Copy(io.Discard, raw)
}

// rawClient sends bytes and waits for the server to close.
func rawClient(b []byte) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		_, _ = conn.Write(b)
		_, _ = io.Copy(io.Discard, conn)
	}
}

// forged is a client whose first write, the ClientHello, is changed.
type forged struct {
	net.Conn
	change func(record []byte) []byte
	once   sync.Once
}

func (f *forged) Write(b []byte) (int, error) {
	out := b
	f.once.Do(func() { out = f.change(bytes.Clone(b)) })
	if _, err := f.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

func forgedClient(change func([]byte) []byte, edit func(*tls.Config)) func(*net.TCPConn) {
	return func(conn *net.TCPConn) { goClientOver(&forged{Conn: conn, change: change}, conn, edit) }
}

// lastSuite puts a suite in place of the last that a ClientHello offers.
func lastSuite(suite uint16) func([]byte) []byte {
	return func(record []byte) []byte {
		at := 5 + 4 + 2 + 32 // record header, message header, version, random
		at += 1 + int(record[at])
		n := int(binary.BigEndian.Uint16(record[at:]))
		binary.BigEndian.PutUint16(record[at+n:], suite)
		return record
	}
}

// hello is a record that holds a ClientHello message of this body.
func hello(body ...byte) []byte {
	n := len(body)
	return append([]byte{0x16, 3, 1, byte((n + 4) >> 8), byte(n + 4), 1, 0, byte(n >> 8), byte(n)}, body...)
}

// hugeRSA is a certificate with a modulus of n bits, and a key that pretends to
// belong to it: the server must look at the size before it computes.
func hugeRSA(n uint) tls.Certificate {
	public := &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), n-1), 0, 1), E: 65537}
	ca := handshakeCA()
	template := ca.Client("huge").Leaf()
	der, err := x509.CreateCertificate(nil, template, ca.Cert, public, ca.Key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: pretender{public}}
}

type pretender struct{ public *rsa.PublicKey }

func (p pretender) Public() crypto.PublicKey { return p.public }

func (p pretender) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, p.public.Size()), nil
}

func maxVersion(v uint16) func(*tls.Config) {
	return func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, v }
}

// Every way in which a handshake can fail, with a real client or its bytes. The
// text is crypto/tls's own: where a new release words it differently, this test
// says which line of messageOutcomes to change. pgbouncer#104: the true reason is
// in the log and the metric, for the client can show only an alert.
func TestHandshakeRefusal(t *testing.T) {
	provoked := make(map[string]bool)
	for _, c := range []struct {
		name    string
		server  func(*tls.Config)
		client  func(*net.TCPConn)
		outcome outcome.Outcome
		text    string // the error begins with it; empty: it is not from crypto/tls
	}{
		{"TLS 1.1", nil, goClient(maxVersion(tls.VersionTLS11)), outcome.TLSVersion, "tls: client offered only unsupported versions"},
		{"TLS 1.0", nil, goClient(maxVersion(tls.VersionTLS10)), outcome.TLSVersion, "tls: client offered only unsupported versions"},
		{"1.2 to a server of 1.3", onlyTLS13, goClient(maxVersion(tls.VersionTLS12)), outcome.TLSVersion, "tls: client offered only unsupported versions"},
		{"SSL 3.0", nil, rawClient(hello(append([]byte{3, 0}, make([]byte, 38)...)...)), outcome.TLSVersion, "tls: client offered only unsupported versions"},
		{"fallback from 1.3", nil, forgedClient(lastSuite(tls.TLS_FALLBACK_SCSV), maxVersion(tls.VersionTLS12)), outcome.TLSVersion, "tls: client using inappropriate protocol fallback"},

		{"no common suite, 1.2", suites(tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384), goClient(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		}), outcome.TLSCipher, "tls: no cipher suite supported by both client and server"},
		{"suites for another key, 1.2", nil, goClient(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		}), outcome.TLSCipher, "tls: no cipher suite supported by both client and server"},
		{"no common suite, 1.3", nil, forgedClient(onlySuite(0x1304), nil), outcome.TLSCipher, "tls: no cipher suite supported by both client and server"},

		{"no common group, 1.3", groups(tls.CurveP384), goClient(groups(tls.X25519)), outcome.TLSGroup, "tls: no key exchanges supported by both client and server"},
		// Of which crypto/tls makes: no suite with ECDHE can be used.
		{"no common group, 1.2", groups(tls.CurveP384), goClient(func(c *tls.Config) {
			c.MaxVersion, c.CurvePreferences = tls.VersionTLS12, []tls.CurveID{tls.X25519}
		}), outcome.TLSCipher, "tls: no cipher suite supported by both client and server"},

		// PostgreSQL sends alert 120, in both ways to begin TLS.
		{"other ALPN, 1.2", nil, goClient(func(c *tls.Config) {
			c.MaxVersion, c.NextProtos = tls.VersionTLS12, []string{"h2", "http/1.1"}
		}), outcome.TLSALPN, "tls: client requested unsupported application protocols"},
		{"other ALPN, 1.3", nil, goClient(protos("postgresql2")), outcome.TLSALPN, "tls: client requested unsupported application protocols"},

		{"startup packet", nil, rawClient([]byte("\x00\x00\x00\x13\x00\x03\x00\x00user\x00alice\x00\x00")), outcome.NotTLS, "tls: first record does not look like a TLS handshake"},
		{"HTTP", nil, rawClient([]byte("GET / HTTP/1.1\r\n\r\n")), outcome.NotTLS, "tls: first record does not look like a TLS handshake"},
		{"SSL 2.0", nil, rawClient([]byte{0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10}), outcome.TLSVersion, "tls: unsupported SSLv2 handshake received"},
		{"oversized record", nil, rawClient([]byte{0x16, 3, 1, 0xff, 0xff}), outcome.TLSFailed, "tls: oversized record received"},
		{"other record version", nil, forgedSecond(func(r []byte) []byte { r[1] = 2; return r }), outcome.TLSVersion, "tls: received record with version"},

		{"distrusts us, 1.2", nil, goClient(func(c *tls.Config) { c.RootCAs, c.MaxVersion = x509.NewCertPool(), tls.VersionTLS12 }), outcome.TLSRejectedByClient, "remote error: tls: bad certificate"},
		{"distrusts us, 1.3", nil, goClient(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }), outcome.TLSRejectedByClient, "remote error: tls: bad certificate"},
		{"wants another name", nil, goClient(func(c *tls.Config) { c.ServerName = "db.example" }), outcome.TLSRejectedByClient, "remote error: tls: bad certificate"},
		{"alert instead of a hello", nil, rawClient([]byte{0x15, 3, 1, 0, 2, 2, 48}), outcome.TLSRejectedByClient, "remote error: tls: unknown certificate authority"},

		{"silence", deadlineNow, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }, outcome.TLSTimeout, ""},
		{"half a record", deadlineSoon, rawClient([]byte{0x16, 3, 1, 2, 0, 1, 0}), outcome.TLSTimeout, ""},

		{"closed", nil, func(*net.TCPConn) {}, outcome.ClientGone, ""},
		{"closed in a record", nil, func(conn *net.TCPConn) { _, _ = conn.Write([]byte{0x16, 3, 1, 2, 0, 1, 0}) }, outcome.ClientGone, ""},
		{"close_notify", nil, rawClient([]byte{0x15, 3, 1, 0, 2, 1, 0}), outcome.ClientGone, ""},
		{"reset", nil, func(conn *net.TCPConn) { _ = conn.SetLinger(0) }, outcome.ClientGone, ""},

		{"empty hello", nil, rawClient(hello()), outcome.TLSFailed, "local error: tls: error decoding message"},
		{"rubbish in a hello", nil, rawClient(hello(bytes.Repeat([]byte{0xff}, 200)...)), outcome.TLSFailed, "local error: tls: error decoding message"},
		{"another message first", nil, rawClient([]byte{0x16, 3, 1, 0, 4, 20, 0, 0, 0}), outcome.TLSFailed, "tls: received unexpected handshake message"},
		{"a message of 16 MB", nil, rawClient([]byte{0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff}), outcome.TLSFailed, "tls: handshake message of length 16777215"},
		{"no null compression", nil, rawClient(hello(append([]byte{3, 3}, append(make([]byte, 32), 0, 0, 2, 0xc0, 0x2b, 1, 1)...)...)), outcome.TLSFailed, "tls: client does not support uncompressed connections"},
		{"application data in clear", nil, forgedSecond(func(r []byte) []byte { return append([]byte{23, 3, 3, 0, 1, 'Q'}, r...) }), outcome.TLSFailed, "local error: tls: "},
		{"endless empty records", nil, rawClient(bytes.Repeat([]byte{0x16, 3, 1, 0, 0}, 100)), outcome.TLSFailed, "local error: tls: unexpected message"},

		// CVE-2023-29409: the cost of a huge key is the server's.
		{"RSA of 8,200 bits, 1.2", nil, goClient(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12; showing(hugeRSA(8200))(c) }), outcome.TLSFailed, "tls: client sent certificate containing RSA key larger than 8192 bits"},
		{"RSA of 16,384 bits, 1.3", nil, goClient(showing(hugeRSA(16_384))), outcome.TLSFailed, "tls: client sent certificate containing RSA key larger than 8192 bits"},
		// Possession of the key is crypto/tls's to prove.
		{"a key of its own, 1.2", nil, goClient(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12; showing(stolen())(c) }), outcome.TLSFailed, "tls: invalid signature by the client certificate"},
		{"a key of its own, 1.3", nil, goClient(showing(stolen())), outcome.TLSFailed, "tls: invalid signature by the client certificate"},
		{"a certificate of rubbish", nil, goClient(showing(tls.Certificate{Certificate: [][]byte{[]byte("rubbish")}, PrivateKey: handshakePair().PrivateKey})), outcome.TLSFailed, "tls: failed to parse client certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := failHandshake(t, c.server, c.client)
			if !strings.HasPrefix(err.Error(), c.text) {
				t.Errorf("crypto/tls says %q, want %q", err, c.text)
			}
			for _, m := range messageOutcomes {
				if strings.HasPrefix(err.Error(), m.prefix) {
					provoked[m.prefix] = true
				}
			}
			if got, _ := reasonOf(err); got != c.outcome {
				t.Errorf("%q became %v, want %v", err, got, c.outcome)
			}
		})
	}
	for _, m := range messageOutcomes {
		if !provoked[m.prefix] {
			t.Errorf("nothing provokes %q", m.prefix)
		}
	}
}

// CVE-2025-58189: the names that a client asks for by ALPN come back in the
// error, which goes to the log.
func TestHandshakeRefusalQuotesALPN(t *testing.T) {
	_, text := reasonOf(failHandshake(t, nil, goClient(protos("x\n\x1b[2Jy"))))
	if strings.ContainsAny(text, "\n\x1b") || !strings.Contains(text, `x\n\x1b[2Jy`) {
		t.Errorf("%q", text)
	}
}

// An error with the texts of a deadline and of a reset inside others, as the
// net package wraps them.
func TestHandshakeRefusalUnwraps(t *testing.T) {
	for err, want := range map[error]outcome.Outcome{
		&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}: outcome.TLSTimeout,
		&net.OpError{Op: "read", Err: net.ErrClosed}:          outcome.ClientGone,
		io.ErrUnexpectedEOF:              outcome.ClientGone,
		errors.New("tls: something new"): outcome.TLSFailed,
	} {
		if o, _ := reasonOf(err); o != want {
			t.Errorf("%v became %v, want %v", err, o, want)
		}
	}
}

func onlyTLS13(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }

func suites(ids ...uint16) func(*tls.Config) { return func(c *tls.Config) { c.CipherSuites = ids } }

func groups(ids ...tls.CurveID) func(*tls.Config) {
	return func(c *tls.Config) { c.CurvePreferences = ids }
}

func protos(names ...string) func(*tls.Config) { return func(c *tls.Config) { c.NextProtos = names } }

func showing(cert tls.Certificate) func(*tls.Config) {
	return func(c *tls.Config) {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
}

// stolen is somebody's certificate with somebody else's key.
func stolen() tls.Certificate {
	cert := handshakeCA().Client("alice").TLS()
	cert.PrivateKey = handshakeCA().Client("mallory").Key
	cert.Leaf = nil
	return cert
}

// tls.Config.Time is of no use to a server that verifies nothing, so it carries
// the deadline of a case.
func deadlineNow(c *tls.Config) { c.Time = func() time.Time { return time.Now().Add(-time.Second) } }

func deadlineSoon(c *tls.Config) {
	c.Time = func() time.Time { return time.Now().Add(50 * time.Millisecond) }
}

// onlySuite puts a suite in place of all that a ClientHello offers.
func onlySuite(suite uint16) func([]byte) []byte {
	return func(record []byte) []byte {
		at := 5 + 4 + 2 + 32
		at += 1 + int(record[at])
		n := int(binary.BigEndian.Uint16(record[at:]))
		for i := at + 2; i < at+2+n; i += 2 {
			binary.BigEndian.PutUint16(record[i:], suite)
		}
		return record
	}
}

// forgedSecond is a client of TLS 1.2 whose second flight is changed.
func forgedSecond(change func([]byte) []byte) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		second := &forged{Conn: conn, change: change}
		second.once.Do(func() {}) // not the first write
		goClientOver(&secondFlight{forged: second}, conn, maxVersion(tls.VersionTLS12))
	}
}

type secondFlight struct {
	*forged
	writes int
}

func (s *secondFlight) Write(b []byte) (int, error) {
	s.writes++
	if s.writes == 2 {
		if _, err := s.Conn.Write(s.change(bytes.Clone(b))); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return s.Conn.Write(b)
}
