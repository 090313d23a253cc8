package tlsconfig

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
)

// shownServer accepts TLS with a certificate from every client, and then sends FATAL: a client that receives it has accepted
// the certificate.
func shownServer(t *testing.T, pair *tlstest.Pair) (port string) {
	t.Helper()
	f, err := pgtest.StartFakeTCP(func(raw net.Conn) { refuseInTLS(raw, pair.TLS()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	_, port, _ = net.SplitHostPort(f.Address)
	return port
}

const heard = "believed"

func refuseInTLS(raw net.Conn, certificate tls.Certificate) {
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	var request [8]byte
	if _, err := io.ReadFull(raw, request[:]); err != nil {
		return
	}
	_, _ = raw.Write([]byte{'S'})
	conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{certificate}})
	if _, err := conn.Read(make([]byte, 1024)); err != nil { // the startup packet
		return
	}
	fields := "SFATAL\x00C57P03\x00M" + heard + "\x00\x00"
	_, _ = conn.Write(append([]byte{'E', 0, 0, 0, byte(4 + len(fields))}, fields...))
	_ = conn.CloseWrite()
	_, _ = io.Copy(io.Discard, conn)
}

// acceptedByLibpq reports whether psql accepts the server, with more connection parameters.
func acceptedByLibpq(t *testing.T, psql, host, port string, words ...string) bool {
	t.Helper()
	words = append(words, "host="+host, "hostaddr=127.0.0.1", "port="+port, "user=a", "dbname=a", "gssencmode=disable", "sslcert=none", "sslkey=none", "connect_timeout=60")
	cmd := exec.Command(psql, "-X", "-c", "select 1", strings.Join(words, " "))
	cmd.Env = []string{"HOME=" + t.TempDir(), "LC_ALL=C"}
	out, _ := cmd.CombinedOutput()
	believed := strings.Contains(string(out), heard)
	if !believed && !strings.Contains(string(out), "certificate") {
		t.Fatalf("psql %q: %s", words, out)
	}
	return believed
}

// accepted reports the same of a Client.
func accepted(t *testing.T, c *Client, host, port string) error {
	t.Helper()
	raw, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	if _, err := raw.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return tls.Client(raw, c.For(host)).Handshake()
}

func needPsql(t *testing.T) string {
	t.Helper()
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Skip(err)
	}
	return psql
}

// A name matches if it does for libpq (pgbouncer/pgbouncer#1303: verify-full uses the host of the connection).
func TestServerNamesAsLibpq(t *testing.T) {
	t.Parallel()
	psql := needPsql(t)
	ca := tlstest.NewCA("server root")
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, ca.CertPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	client, problems := LoadClient(ClientOptions{Mode: SSLVerifyFull, RootCert: root}, nil, time.Now())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	named := func(cn string, sans ...string) *tlstest.Pair {
		return ca.Client(cn, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			for _, san := range sans {
				if ip := net.ParseIP(san); ip != nil {
					c.IPAddresses = append(c.IPAddresses, ip)
				} else {
					c.DNSNames = append(c.DNSNames, san)
				}
			}
		})
	}
	twice := ca.Client("", func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		cn := func(s string) pkix.AttributeTypeAndValue {
			return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: s}
		}
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{cn("db.example"), cn("other.example")}}
	})
	constrained := ca.Intermediate("constrained", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"inside.example"}, true
	}).Client("db.example", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	for _, c := range []struct {
		name   string
		pair   *tlstest.Pair
		host   string
		want   bool
		unlike string // why libpq says otherwise
	}{
		{"alternative name", named("other", "db.example"), "db.example", true, ""},
		{"alternative name, another host", named("db.example", "other.example"), "db.example", false, ""},
		{"common name", named("db.example"), "db.example", true, ""},
		{"common name, another host", named("other.example"), "db.example", false, ""},
		{"common name in capitals", named("DB.Example"), "db.example", true, ""},
		{"common name with *", named("*.example"), "db.example", true, ""},
		{"common name with *, two labels", named("*.example"), "a.db.example", false, ""},
		{"common name, and an address", named("db.example", "127.0.0.1"), "db.example", true, ""},
		{"address as common name", named("127.0.0.1"), "127.0.0.1", true, ""},
		{"address as common name, and a name", named("127.0.0.1", "db.example"), "127.0.0.1", true, ""},
		{"address as common name, another one", named("127.0.0.1", "127.0.0.2"), "127.0.0.1", false, ""},
		{"alternative address", named("other", "127.0.0.1"), "127.0.0.1", true, ""},
		{"no name", named(""), "db.example", false, ""},
		{"two common names", twice, "db.example", false, "libpq takes the first"},
		{"common name outside of constraints", constrained, "db.example", false, ""},
	} {
		port := shownServer(t, c.pair)
		err := accepted(t, client, c.host, port)
		if (err == nil) != c.want {
			t.Errorf("%s: %v, want believed: %v", c.name, err, c.want)
		}
		if got := acceptedByLibpq(t, psql, c.host, port, "sslmode=verify-full", "sslrootcert="+root); got != c.want != (c.unlike != "") {
			t.Errorf("%s: libpq believes: %v", c.name, got)
		}
	}
}

// Lists count as they do for libpq. OpenSSL has made them.
func TestServerCRLsAsLibpq(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	psql := needPsql(t)
	root := tlstest.NewCA("server root")
	inter := root.Intermediate("server CA")
	server := inter.Server("db.example")
	byRoot, byInter := newOpenSSLCA(t, root), newOpenSSLCA(t, inter)
	const past = "-crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z"
	rootList, interList := byRoot.write(t, opensslCRL{}), byInter.write(t, opensslCRL{})
	rootRevokes := byRoot.write(t, opensslCRL{revoke: []*x509.Certificate{inter.Cert}})
	interRevokes := byInter.write(t, opensslCRL{revoke: []*x509.Certificate{server.Leaf()}})
	port := shownServer(t, server)
	for _, c := range []struct {
		name  string
		mode  SSLMode
		lists [][]byte
		want  bool
		why   string
	}{
		{"none", SSLVerifyFull, nil, true, ""},
		{"both", SSLVerifyFull, list(rootList, interList), true, ""},
		{"the server is revoked", SSLVerifyFull, list(rootList, interRevokes), false, "was revoked on"},
		{"the server is revoked, and require", SSLRequire, list(rootList, interRevokes), false, "was revoked on"},
		{"its CA is revoked", SSLVerifyCA, list(rootRevokes, interList), false, "was revoked on"},
		{"the root has none", SSLVerifyFull, list(interList), false, "is not covered by any CRL"},
		{"its CA has none", SSLVerifyFull, list(rootList), false, "is not covered by any CRL"},
		{"out of date", SSLVerifyFull, list(rootList, byInter.write(t, opensslCRL{args: past})), false, "is out of date"},
	} {
		for _, inDir := range []bool{false, true} {
			dir := t.TempDir()
			o := ClientOptions{Mode: c.mode, RootCert: filepath.Join(dir, "root.crt")}
			if err := os.WriteFile(o.RootCert, root.CertPEM(), 0o644); err != nil {
				t.Fatal(err)
			}
			words := []string{"sslmode=" + string(c.mode), "sslrootcert=" + o.RootCert}
			switch {
			case c.lists == nil:
			case inDir:
				o.CRLDir = filepath.Join(dir, "lists")
				words = append(words, "sslcrldir="+o.CRLDir)
				if err := os.Mkdir(o.CRLDir, 0o755); err != nil {
					t.Fatal(err)
				}
				for i, l := range c.lists {
					if err := os.WriteFile(filepath.Join(o.CRLDir, string(rune('a'+i))+".pem"), l, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				openssl(t, nil, "rehash", o.CRLDir)
			default:
				o.CRL = filepath.Join(dir, "lists.crl")
				words = append(words, "sslcrl="+o.CRL)
				if err := os.WriteFile(o.CRL, bytes.Join(c.lists, nil), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			client, problems := LoadClient(o, nil, time.Now())
			if client == nil {
				t.Fatalf("%s: %v", c.name, problems)
			}
			err := accepted(t, client, "db.example", port)
			if (err == nil) != c.want || err != nil && !strings.Contains(err.Error(), c.why) {
				t.Errorf("%s, in a directory %v: %v, want believed %v %s", c.name, inDir, err, c.want, c.why)
			}
			if got := acceptedByLibpq(t, psql, "db.example", port, words...); got != c.want {
				t.Errorf("%s, in a directory %v: libpq believes %v", c.name, inDir, got)
			}
		}
	}
}
