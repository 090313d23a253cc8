package tlsconfig

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/certs"
)

var tls13Names = map[string]uint16{
	"TLS_AES_128_GCM_SHA256":       tls.TLS_AES_128_GCM_SHA256,
	"TLS_AES_256_GCM_SHA384":       tls.TLS_AES_256_GCM_SHA384,
	"TLS_CHACHA20_POLY1305_SHA256": tls.TLS_CHACHA20_POLY1305_SHA256,
}

const (
	aes128 = "TLS_AES_128_GCM_SHA256"
	aes256 = "TLS_AES_256_GCM_SHA384"
	chacha = "TLS_CHACHA20_POLY1305_SHA256"

	tls13Env = "PGWICKET_TEST_TLS13"
	quick    = "GORACE=atexit_sleep_ms=0" // the race detector sleeps for a second at exit
)

// TestTLS13Server is the server of other tests. The suites are those of the whole process, so it runs in a separate one. It
// gets the directory of a site and the suites, and serves until its standard input ends.
func TestTLS13Server(t *testing.T) {
	args := strings.Fields(os.Getenv(tls13Env))
	if len(args) == 0 {
		t.Skip("is run by TestTLS13")
	}
	s := &site{dir: args[0]}
	o := s.options()
	o.ClientCert, o.CAFile, o.CRLFile = ClientCertNone, "", ""
	o.MinProtocolVersion, o.Ciphers = "TLSv1.3", args[1:]
	server := load(t, o)
	if err := FixTLS13(server.TLS13); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening on", l.Addr())
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		_ = l.Close()
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		tlsConn := tls.Server(conn, server.Config)
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if tlsConn.Handshake() == nil {
			if _, err := server.Verify(tlsConn.ConnectionState(), nil, time.Now()); err != nil {
				t.Error(err)
			}
			_, _ = tlsConn.Write([]byte("hello\n"))
		}
		_ = conn.Close()
	}
}

// serve13 starts the server above and returns its address.
func serve13(t *testing.T, s *site, suites ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTLS13Server$", "-test.v")
	cmd.Env = append(os.Environ(), quick, tls13Env+"="+s.dir+" "+strings.Join(suites, " "))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	t.Cleanup(func() {
		_ = stdin.Close()
		for lines.Scan() {
			if strings.Contains(lines.Text(), "tls13_test.go") {
				t.Errorf("server with %q: %s", suites, lines.Text())
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("server with %q: %v", suites, err)
		}
	})
	for lines.Scan() {
		if _, address, ok := strings.Cut(lines.Text(), "listening on "); ok {
			return address
		}
	}
	t.Fatalf("server with %q does not listen", suites)
	return ""
}

var negotiated = regexp.MustCompile(`(?m)^New, TLSv1\.3, Cipher is (\S+)$`)

// offer connects with OpenSSL and these suites, and returns the one that was negotiated; empty: none.
func offer(t *testing.T, address string, suites ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl")
	}
	out, _ := exec.Command(path, "s_client", "-connect", address, "-tls1_3", "-alpn", "postgresql", "-ciphersuites", strings.Join(suites, ":")).Output()
	if m := negotiated.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return ""
}

func TestTLS13(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, list := range [][]string{
		{aes128},
		{aes256},
		{chacha},
		{aes128, aes256},
		{aes128, chacha},
		{aes256, chacha},
		{aes128, aes256, chacha},
		{aes256, aes128},
		{chacha, aes256, aes128},
		{aes256, chacha, aes128},
	} {
		t.Run(strings.Join(list, ","), func(t *testing.T) {
			t.Parallel()
			address := serve13(t, s, list...)
			allowed := map[string]bool{}
			for _, name := range list {
				allowed[name] = true
			}
			for name := range tls13Names {
				want := ""
				if allowed[name] {
					want = name
				}
				if got := offer(t, address, name); got != want {
					t.Errorf("a client with %s got %q", name, got)
				}
			}
			// The order of the list decides, not the client's: without FixTLS13 the last one would get ChaCha20.
			for _, all := range [][]string{{aes128, aes256, chacha}, {aes256, chacha, aes128}, {chacha, aes128, aes256}} {
				if got := offer(t, address, all...); got != list[0] {
					t.Errorf("a client with %q got %q", all, got)
				}
			}
		})
	}
}

// again runs one test in another process, where it returns the argument; it returns empty in the parent.
func again(t *testing.T, arg string) string {
	t.Helper()
	if here := os.Getenv(tls13Env); here != "" {
		return here
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), quick, tls13Env+"="+arg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return ""
}

func TestFixTLS13Empty(t *testing.T) {
	if again(t, "empty") == "" {
		return
	}
	for _, c := range []struct {
		suites []uint16
		want   error
	}{{nil, nil}, {[]uint16{}, nil}, {[]uint16{tls.TLS_AES_256_GCM_SHA384}, ErrTLS13Fixed}} {
		if err := FixTLS13(c.suites); !errors.Is(err, c.want) {
			t.Errorf("FixTLS13(%#x) = %v, want %v", c.suites, err, c.want)
		}
	}
	if len(defaultCipherSuitesTLS13) != 3 {
		t.Errorf("the suites of crypto/tls are %#x", defaultCipherSuitesTLS13)
	}
}

func TestFixTLS13(t *testing.T) {
	if again(t, "list") == "" {
		return
	}
	s := newSite(t)
	server := load(t, s.options())
	state := tls.ConnectionState{HandshakeComplete: true, Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
	server.verifier.mode = ClientCertNone
	if _, err := server.Verify(state, certs.DER(state.PeerCertificates), time.Now()); err != nil {
		t.Error("before the list is fixed:", err)
	}
	for _, c := range []struct {
		suites []uint16
		want   error
	}{
		{[]uint16{tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}, nil},
		{[]uint16{tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}, nil},
		{[]uint16{tls.TLS_CHACHA20_POLY1305_SHA256, tls.TLS_AES_256_GCM_SHA384}, ErrTLS13Fixed},
		{[]uint16{tls.TLS_AES_256_GCM_SHA384}, ErrTLS13Fixed},
		{nil, ErrTLS13Fixed},
	} {
		if err := FixTLS13(c.suites); !errors.Is(err, c.want) {
			t.Errorf("FixTLS13(%#x) = %v, want %v", c.suites, err, c.want)
		}
	}
	if err := FixTLS13([]uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}); err == nil || errors.Is(err, ErrTLS13Fixed) {
		t.Error("FixTLS13 takes a suite of TLS 1.2:", err)
	}
	// What was configured is not enough: Verify uses the fixed list.
	var refused *VerifyError
	if _, err := server.Verify(state, certs.DER(state.PeerCertificates), time.Now()); !errors.As(err, &refused) || refused.Reason != ReasonCipher || !strings.Contains(err.Error(), aes128) {
		t.Error("a suite outside of the fixed list:", err)
	}
	state, _, err := connect(t, server.Config, s.client(func(*tls.Config) {}))
	if err != nil || state.CipherSuite != tls.TLS_AES_256_GCM_SHA384 {
		t.Errorf("negotiated %#x, %v", state.CipherSuite, err)
	}
}
