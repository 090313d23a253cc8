package tlsconfig

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// Each sslmode accepts the servers that libpq accepts, and no other.
func TestLoadClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, stranger := tlstest.NewCA("server root"), tlstest.NewCA("stranger")
	root := filepath.Join(dir, "root.crt")
	if err := os.WriteFile(root, ca.CertPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	right, other, unknown := ca.Server("db.example"), ca.Server("other.example"), stranger.Server("db.example")
	misused := ca.Client("client only")
	for _, c := range []struct {
		mode                           SSLMode
		root                           string
		right, other, unknown, misused bool
	}{
		{SSLPrefer, "", true, true, true, true},
		{SSLRequire, "", true, true, true, true},
		{SSLRequire, root, true, true, false, false}, // as libpq: a root that is there is used
		{SSLVerifyCA, root, true, true, false, false},
		{SSLVerifyFull, root, true, false, false, false},
		{SSLVerifyFull, SystemRoots, false, false, false, false},
	} {
		client, problems := LoadClient(ClientOptions{Mode: c.mode, RootCert: c.root}, nil, time.Now())
		if client == nil || len(problems) > 0 {
			t.Fatalf("%s %s: %v", c.mode, c.root, problems)
		}
		config := client.For("db.example")
		for _, s := range []struct {
			name string
			pair *tlstest.Pair
			want bool
		}{{"the right one", right, c.right}, {"another host", other, c.other}, {"a stranger", unknown, c.unknown}, {"a client's", misused, c.misused}} {
			if err := shakeWith(t, config, s.pair); (err == nil) != s.want {
				t.Errorf("%s with root %q: the certificate of %s: %v", c.mode, c.root, s.name, err)
			}
		}
	}
	if config, problems := LoadClient(ClientOptions{Mode: SSLDisable}, nil, time.Now()); config != nil || len(problems) > 0 {
		t.Errorf("disable: %v %v", config, problems)
	}
}

// pgbouncer/pgbouncer#1584: every sslmode sends the name of the host (SNI), for a proxy in front of several servers. An
// address is not sent (RFC 6066, section 3).
func TestClientNamesTheHost(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA("server root")
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, ca.CertPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	pair := ca.Server("db.example", "127.0.0.1").TLS()
	for _, mode := range []SSLMode{SSLPrefer, SSLRequire, SSLVerifyCA, SSLVerifyFull} {
		o := ClientOptions{Mode: mode}
		if mode != SSLPrefer {
			o.RootCert = root
		}
		client, problems := LoadClient(o, nil, time.Now())
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for host, want := range map[string]string{"db.example": "db.example", "127.0.0.1": ""} {
			left, right := net.Pipe()
			said := make(chan string, 1)
			server := tls.Server(right, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				said <- hello.ServerName
				return &pair, nil
			}})
			go func() { _ = server.Handshake() }()
			if err := tls.Client(left, client.For(host)).Handshake(); err != nil {
				t.Errorf("%s, %s: %v", mode, host, err)
			} else if got := <-said; got != want {
				t.Errorf("%s, %s: the server is asked for %q", mode, host, got)
			}
			_, _ = left.Close(), right.Close()
		}
	}
}

// shakeWith does a handshake with a server that has a certificate. It needs the buffers of a socket: over a pipe both sides
// would wait for a reader.
func shakeWith(t *testing.T, config *tls.Config, pair *tlstest.Pair) error {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair.TLS()}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if conn, err := ln.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	conn, err := net.DialTimeout("tcp", ln.Addr().String(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return tls.Client(conn, config).Handshake()
}

func TestLoadClientMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := tlstest.NewCA("server root")
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("root.crt"), ca.CertPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"between.crt":  ca.Intermediate("between").CertPEM(),
		"stranger.crl": tlstest.NewCA("server root").CRL(nil),
	} {
		if err := os.WriteFile(at(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old := tlstest.NewCA("old root", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	})
	if err := os.WriteFile(at("old.crt"), old.CertPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ca.Client("gate").WriteFiles(at("gate.crt"), at("gate.key")); err != nil {
		t.Fatal(err)
	}
	if err := ca.Client("late", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }).WriteFiles(at("late.crt"), at("late.key")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    ClientOptions
		want string // a part of the one problem; with a W in front it is a warning
	}{
		{ClientOptions{Mode: "allow"}, "sslmode: allow would use"},
		{ClientOptions{Mode: "verify_full"}, `sslmode: "verify_full" is not known`},
		{ClientOptions{Mode: SSLVerifyFull}, "sslrootcert: is missing: sslmode verify-full"},
		{ClientOptions{Mode: SSLVerifyCA}, "sslrootcert: is missing: sslmode verify-ca"},
		{ClientOptions{Mode: SSLVerifyCA, RootCert: SystemRoots}, "sslrootcert: system needs sslmode verify-full"},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: at("none.crt")}, "sslrootcert: cannot read"},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: at("gate.key")}, "sslrootcert: "},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: at("between.crt")}, "sslrootcert: " + strconv.Quote(at("between.crt")) + " has no self-signed certificate"},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: SystemRoots, CRL: at("none.crl")}, "sslcrl: has no effect here"},
		{ClientOptions{Mode: SSLRequire, CRLDir: at("lists")}, "sslcrldir: has no effect here"},
		{ClientOptions{Mode: SSLVerifyCA, RootCert: at("root.crt"), CRL: at("none.crl")}, "sslcrl: cannot read"},
		{ClientOptions{Mode: SSLVerifyCA, RootCert: at("root.crt"), CRL: at("stranger.crl")}, "W sslcrl: " + strconv.Quote(at("stranger.crl")) + ` (block 1, from "CN=server root") is not signed by the CA of that name in sslrootcert`},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: at("old.crt")}, "W sslrootcert: certificate 1 of"},
		{ClientOptions{Mode: SSLPrefer, RootCert: at("root.crt")}, "W sslrootcert: has no effect"},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: at("root.crt"), Cert: at("gate.crt")}, "sslkey: is missing"},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: at("root.crt"), Key: at("gate.key")}, "sslcert: is missing"},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: at("root.crt"), Cert: at("gate.crt"), Key: at("late.key")}, "sslkey: "},
		{ClientOptions{Mode: SSLVerifyFull, RootCert: at("root.crt"), Cert: at("late.crt"), Key: at("late.key")}, "W sslcert: certificate 1 of"},
	} {
		config, problems := LoadClient(c.o, nil, time.Now())
		want, warning := strings.CutPrefix(c.want, "W ")
		if len(problems) != 1 || problems[0].Warning != warning || !strings.Contains(problems[0].String(), want) || (config != nil) != warning {
			t.Errorf("%+v: %v, want %s", c.o, problems, c.want)
		}
	}
	client, problems := LoadClient(ClientOptions{Mode: SSLVerifyFull, RootCert: at("root.crt"), Cert: at("gate.crt"), Key: at("gate.key")}, nil, time.Now())
	if len(problems) > 0 || len(client.For("db.example").Certificates) != 1 {
		t.Errorf("with a certificate: %v", problems)
	}
}
