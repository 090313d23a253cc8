package tlsrecord

import (
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	_ "unsafe" // for linkname

	"pgwicket/internal/tlstest"
)

// The suites of TLS 1.3 cannot be chosen by a configuration. crypto/tls lets quic-go
// reach its lists, and so us.
//
//go:linkname suites13 crypto/tls.defaultCipherSuitesTLS13
var suites13 []uint16

//go:linkname suites13NoAES crypto/tls.defaultCipherSuitesTLS13NoAES
var suites13NoAES []uint16

var choosing sync.Mutex

// kind is a version and a suite.
type kind struct{ version, suite uint16 }

func (k kind) String() string { return tls.VersionName(k.version) + " " + tls.CipherSuiteName(k.suite) }

var kinds = []kind{
	{tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256},
	{tls.VersionTLS13, tls.TLS_AES_256_GCM_SHA384},
	{tls.VersionTLS13, tls.TLS_CHACHA20_POLY1305_SHA256},
	{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
	{tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
	{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
	{tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256},
	{tls.VersionTLS12, tls.TLS_RSA_WITH_AES_256_GCM_SHA384},
}

var pairs = sync.OnceValue(func() [2]tls.Certificate {
	ca := tlstest.NewCA("record root")
	return [2]tls.Certificate{ca.Server("localhost").TLS(), ca.WithKey(tlstest.RSA).Server("localhost").TLS()}
})

func (k kind) configs() (server, client *tls.Config) {
	cert := pairs()[0]
	if slices.Contains([]uint16{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	}, k.suite) {
		cert = pairs()[1]
	}
	only := []uint16{k.suite}
	server = &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: k.version, MaxVersion: k.version, CipherSuites: only,
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true, CurvePreferences: []tls.CurveID{tls.X25519},
	}
	client = &tls.Config{
		InsecureSkipVerify: true, MinVersion: k.version, MaxVersion: k.version, CipherSuites: only,
		DynamicRecordSizingDisabled: true, CurvePreferences: []tls.CurveID{tls.X25519},
	}
	return server, client
}

// choose has handshakes of TLS 1.3 take the suite until the function that it returns is
// called.
func (k kind) choose() (restore func()) {
	choosing.Lock()
	if k.version != tls.VersionTLS13 {
		return choosing.Unlock
	}
	all, noAES := suites13, suites13NoAES
	suites13, suites13NoAES = []uint16{k.suite}, []uint16{k.suite}
	return func() {
		suites13, suites13NoAES = all, noAES
		choosing.Unlock()
	}
}

// wire is a net.Conn with Unread.
type wire struct {
	net.Conn
	pending []byte
}

func (w *wire) Unread(p []byte) { w.pending = append(slices.Clone(p), w.pending...) }

func (w *wire) Read(p []byte) (int, error) {
	if len(w.pending) > 0 {
		n := copy(p, w.pending)
		w.pending = w.pending[n:]
		return n, nil
	}
	return w.Conn.Read(p)
}

// shake makes a handshake between two ends.
func shake(t testing.TB, server, client *Handshake) {
	t.Helper()
	failed := make(chan error, 1)
	go func() { failed <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal("client:", err)
	}
	if err := <-failed; err != nil {
		t.Fatal("server:", err)
	}
}

// ends returns both ends of a connection after a handshake.
func (k kind) ends(t testing.TB) (server, client *Handshake) {
	t.Helper()
	defer k.choose()()
	a, b := net.Pipe()
	forServer, forClient := k.configs()
	server, client = Server(&wire{Conn: a}, forServer), Client(&wire{Conn: b}, forClient)
	shake(t, server, client)
	if s := server.ConnectionState(); s.Version != k.version || s.CipherSuite != k.suite {
		t.Fatalf("the suite is %s", kind{s.Version, s.CipherSuite})
	}
	return server, client
}

// fed is a net.Conn that hands out what it was given, a piece at a time, and then that
// there is no more yet, or its end.
type fed struct {
	net.Conn
	pieces  [][]byte
	written []byte
	end     error
}

type noMore struct{}

func (noMore) Error() string   { return "no more yet" }
func (noMore) Timeout() bool   { return false }
func (noMore) Temporary() bool { return true }

func (f *fed) Read(p []byte) (int, error) {
	if len(f.pieces) == 0 {
		if f.end != nil {
			return 0, f.end
		}
		return 0, noMore{}
	}
	n := copy(p, f.pieces[0])
	if f.pieces[0] = f.pieces[0][n:]; len(f.pieces[0]) == 0 {
		f.pieces = f.pieces[1:]
	}
	return n, nil
}

func (f *fed) Write(p []byte) (int, error) {
	f.written = append(f.written, p...)
	return len(p), nil
}

func (f *fed) Close() error { return nil }

// oracle is the crypto/tls end of a handshake, fed with pieces from here on.
func oracle(h *Handshake) (*tls.Conn, *fed) {
	f := &fed{Conn: h.under}
	h.tap.Conn, h.tap.over = f, true
	return h.tls, f
}

// layerOf takes the layer of an end, which the test cannot do without.
func layerOf(t testing.TB, h *Handshake) *Layer {
	t.Helper()
	l := h.layer()
	if l == nil {
		t.Fatal("the connection cannot be taken over")
	}
	return l
}

// Both ends go on after the handshake, whether the other one is ours or crypto/tls.
func TestExchange(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.String(), func(t *testing.T) {
			for _, ours := range []string{"server", "client", "both"} {
				server, client := k.ends(t)
				s, c := Secure(server.tls), Secure(client.tls)
				if ours != "client" {
					s = server.Conn()
				}
				if ours != "server" {
					c = client.Conn()
				}
				if _, ok := s.(*Conn); ok != (ours != "client") {
					t.Fatalf("the server's connection is a %T", s)
				}
				if _, ok := c.(*Conn); ok != (ours != "server") {
					t.Fatalf("the client's connection is a %T", c)
				}
				echo(t, s, c)
			}
		})
	}
}

// echo has the client send texts that the server sends back, and then both close.
func echo(t *testing.T, s, c Secure) {
	t.Helper()
	failed := make(chan error, 1)
	go func() {
		_, err := io.Copy(s, s)
		_ = s.CloseWrite()
		failed <- err
	}()
	for _, n := range []int{1, 100, 8 << 10, maxPlaintext, maxPlaintext + 1, 100 << 10} {
		sent, got := make([]byte, n), make([]byte, n)
		for i := range sent {
			sent[i] = byte(i * n)
		}
		go func() { _, _ = c.Write(sent) }()
		if _, err := io.ReadFull(c, got); err != nil || !slices.Equal(got, sent) {
			t.Fatalf("%d bytes came back as others (%v)", n, err)
		}
	}
	go func() { _ = c.CloseWrite() }()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
	if err := <-failed; err != nil {
		t.Error("server:", err)
	}
}
