package tlsconfig

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/youmark/pkcs8"

	"pgwicket/internal/certs"
	"pgwicket/internal/privkey"
	"pgwicket/internal/tlstest"
)

// site is a CA with the files of a gate in a directory.
type site struct {
	ca  *tlstest.CA
	dir string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{tlstest.NewCA("root"), t.TempDir()}
	s.pair(t, "server", s.ca.Server("db.example"))
	s.pair(t, "rsa", s.ca.WithKey(tlstest.RSA).Server("db.example"))
	s.pair(t, "ed25519", s.ca.WithKey(tlstest.Ed25519).Server("db.example"))
	s.write(t, "ca.crt", s.ca.CertPEM())
	s.write(t, "ca.crl", s.ca.CRL(nil))
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(s.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.path(name)
}

func (s *site) pair(t *testing.T, name string, p *tlstest.Pair) Pair {
	t.Helper()
	if err := p.WriteFiles(s.path(name+".crt"), s.path(name+".key")); err != nil {
		t.Fatal(err)
	}
	return Pair{CertFile: s.path(name + ".crt"), KeyFile: s.path(name + ".key")}
}

// options are good ones that give no warning.
func (s *site) options() Options {
	return Options{
		CertFile: s.path("server.crt"), KeyFile: s.path("server.key"),
		CAFile: s.path("ca.crt"), CRLFile: s.path("ca.crl"),
	}
}

func (s *site) named(names ...string) []Pair {
	var pairs []Pair
	for _, n := range names {
		pairs = append(pairs, Pair{CertFile: s.path(n + ".crt"), KeyFile: s.path(n + ".key")})
	}
	return pairs
}

// load fails the test if the options have an error.
func load(t *testing.T, o Options) *Server {
	t.Helper()
	s, problems := Load(o, nil, nil, time.Now())
	if s == nil {
		t.Fatalf("Load: %v", problems)
	}
	return s
}

const noCRL = "W crl_file: is missing: a stolen client certificate cannot be revoked"

func TestLoadProblems(t *testing.T) { // not parallel: rsaPair sets GODEBUG
	s := newSite(t)
	other := s.pair(t, "other", tlstest.NewCA("other").Server("db.example"))
	reversed := s.write(t, "reversed.crt", append(s.ca.CertPEM(), must(os.ReadFile(s.path("server.crt")))...))
	encrypted := s.write(t, "encrypted.key", encryptedKey())
	weak := s.rsaPair(t, 1536)
	tiny := s.rsaPair(t, 512)
	expired := s.write(t, "expired.crt", tlstest.NewCA("old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).CertPEM())
	issuing := s.write(t, "issuing.crt", s.ca.Intermediate("issuing").CertPEM())
	pinned := s.write(t, "pinned.crt", slices.Concat(s.ca.CertPEM(), s.ca.Client("alice").CertPEM()))
	foreign := tlstest.NewCA("foreign")
	unrevocable := s.write(t, "unrevocable.crt", slices.Concat(s.ca.CertPEM(), foreign.Client("bob").CertPEM(), foreign.Client("carol").CertPEM()))
	half := s.write(t, "half.crt", append(s.ca.CertPEM(), s.ca.CertPEM()[:200]...))
	glued := s.write(t, "glued.crt", append(bytes.TrimSpace(s.ca.CertPEM()), s.ca.CertPEM()...))
	marked := s.write(t, "marked.crt", append([]byte("\uFEFF"), append(s.ca.CertPEM(), s.ca.CertPEM()...)...))
	trusted := s.write(t, "trusted.crt", []byte("-----BEGIN TRUSTED CERTIFICATE-----\n"))
	garbled := s.write(t, "garbled.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hello")}))
	large := s.write(t, "large.crt", s.largeCAFile())

	for _, c := range []struct {
		edit func(o *Options)
		want []string // E or W, the key, and a part of the text
	}{
		{func(*Options) {}, nil},
		{func(o *Options) { o.MinProtocolVersion = "tlsv1.3" }, nil},
		{func(o *Options) { o.MaxProtocolVersion = "TLSv1.2" }, nil},
		{func(o *Options) { o.CertFile, o.KeyFile, o.Certificates = "", "", s.named("server", "rsa", "ed25519") }, nil},
		{func(o *Options) { o.CertFile, o.KeyFile = s.path("ed25519.crt"), s.path("ed25519.key") }, nil},
		{func(o *Options) { o.ClientCert, o.CAFile, o.CRLFile = ClientCertNone, "", "" }, nil},
		{func(o *Options) { o.ClientCert = ClientCertOptional }, nil},
		{func(o *Options) { o.ClientCert = "Require" }, []string{`E client_cert: "Require" is not known: write require, optional or none`}},

		// Files.
		{func(o *Options) { o.CertFile, o.KeyFile = "", "" }, []string{"E cert_file: is missing"}},
		{func(o *Options) { o.CertFile = "" }, []string{"E cert_file: is missing"}},
		{func(o *Options) { o.KeyFile = "" }, []string{"E key_file: is missing"}},
		{func(o *Options) { o.Certificates = s.named("rsa") }, []string{"E certificates: cannot be set together with"}},
		{func(o *Options) {
			o.CertFile, o.KeyFile, o.Certificates = "", "", []Pair{{CertFile: "x"}, {KeyFile: "x"}}
		}, []string{"E certificates[0].key_file: is missing", "E certificates[1].cert_file: is missing"}},
		{func(o *Options) { o.CertFile = s.path("none") }, []string{"E cert_file: cannot read"}},
		{func(o *Options) { o.CertFile, o.KeyFile = s.path("none"), s.path("none") }, []string{"E cert_file: cannot read", "E key_file: cannot read"}},
		{func(o *Options) { o.CertFile = s.path("server.key") }, []string{"E cert_file: \"" + s.path("server.key") + "\" holds no certificate"}},
		{func(o *Options) { o.CertFile = garbled }, []string{"E cert_file: certificate 1 of"}},
		{func(o *Options) { o.KeyFile = other.KeyFile }, []string{"E key_file: \"" + other.KeyFile + "\" is not the key of the certificate in \"" + s.path("server.crt")}},
		{func(o *Options) { o.CertFile = reversed }, []string{"E cert_file: \"" + reversed + "\" has the gate's own certificate in position 2: put it first"}},
		{func(o *Options) { o.CertFile, o.KeyFile = weak.CertFile, weak.KeyFile }, []string{"W key_file: \"" + weak.KeyFile + "\" has 1536 bits"}},
		{func(o *Options) { o.CertFile, o.KeyFile = tiny.CertFile, tiny.KeyFile }, []string{"E key_file: \"" + tiny.KeyFile + "\" has 512 bits"}},
		{func(o *Options) { o.KeyFile = encrypted }, []string{"E key_file: \"" + encrypted + "\" is encrypted and there is no terminal to ask"}},
		{func(o *Options) { o.KeyFile, o.PassphraseCommand = encrypted, "exit 1" }, []string{"E passphrase_command: the command failed: exit status 1"}},
		{func(o *Options) { o.KeyFile, o.PassphraseCommand = encrypted, "echo wrong" }, []string{"E key_file: \"" + encrypted + "\": the passphrase is wrong"}},

		// Client certificates.
		{func(o *Options) { o.CRLFile = "" }, []string{noCRL}},
		{func(o *Options) { o.CRLFile = s.path("none") }, []string{"E crl_file: cannot read"}},
		{func(o *Options) { o.CAFile = "" }, []string{"E crl_file: has no effect without ca_file", "E ca_file: is missing: client certificates"}},
		{func(o *Options) { o.CAFile, o.CRLFile = s.path("none"), s.path("nor") }, []string{"E ca_file: cannot read", "E crl_file: cannot read"}},
		{func(o *Options) { o.CAFile = s.path("none") }, []string{"E ca_file: cannot read"}},
		{func(o *Options) { o.CAFile, o.CRLFile = "", "" }, []string{"E ca_file: is missing", noCRL}},
		{func(o *Options) { o.ClientCert = ClientCertNone }, []string{"E crl_file: has no effect with client_cert: none", "W ca_file: has no effect with client_cert: none"}},
		{func(o *Options) {
			o.CRLCheck, o.CRLMissing, o.CRLStale = CRLCheckChain, CRLMissingReject, CRLStaleReject
		}, nil},
		{func(o *Options) {
			o.CRLCheck, o.CRLMissing, o.CRLStale, o.CRLGrace = CRLCheckLeaf, CRLMissingAllow, CRLStaleEnd, time.Hour
		}, nil},
		{func(o *Options) { o.CRLCheck, o.CRLMissing, o.CRLStale = "Chain", "deny", "ok" }, []string{
			`E crl_check: "Chain" is not known: write chain or leaf`, `E crl_missing: "deny" is not known: write reject or allow`,
			`E crl_stale: "ok" is not known: write reject, allow or end`,
		}},
		{func(o *Options) {
			o.CRLFile, o.CRLCheck, o.CRLMissing, o.CRLStale, o.CRLGrace = "", CRLCheckChain, CRLMissingReject, CRLStaleReject, time.Hour
		}, []string{
			"E crl_check: has no effect without revocation lists: remove it, or set crl_file or crl_dir", "E crl_missing: has no effect without",
			"E crl_stale: has no effect without", "E crl_grace: has no effect without", noCRL,
		}},
		{func(o *Options) {
			o.ClientCert, o.CAFile, o.CRLFile, o.CRLCheck = ClientCertNone, "", "", CRLCheckLeaf
		}, []string{"E crl_check: has no effect with client_cert: none"}},
		{func(o *Options) { o.CRLStale, o.CRLGrace = CRLStaleAllow, time.Hour }, []string{"E crl_grace: has no effect with crl_stale: allow"}},
		{func(o *Options) { o.CRLGrace = -1 }, []string{"E crl_grace: is negative"}},
		{func(o *Options) { o.CAFile = s.path("server.key") }, []string{"E ca_file: \"" + s.path("server.key") + "\" holds no certificate"}},
		{func(o *Options) { o.CAFile = half }, []string{"E ca_file: only 1 of the 2 certificates in"}},
		{func(o *Options) { o.CAFile = glued }, []string{"E ca_file: "}},
		{func(o *Options) { o.CAFile = marked }, nil},
		{func(o *Options) { o.CAFile = trusted }, []string{"E ca_file: only 0 of the 1 certificates in"}},
		{func(o *Options) { o.CAFile, o.CRLFile = issuing, "" }, []string{"E ca_file: \"" + issuing + "\" has no self-signed certificate", noCRL}},
		{func(o *Options) { o.CAFile, o.CRLFile, o.PartialChain = issuing, "", true }, []string{noCRL}},
		{func(o *Options) { o.CAFile, o.PartialChain = pinned, true }, nil},
		{func(o *Options) { o.CAFile = unrevocable }, nil},
		{func(o *Options) { o.CAFile, o.PartialChain = unrevocable, true }, []string{"W ca_file: certificate 2 of \"" + unrevocable + "\" (serial "}},
		{func(o *Options) { o.CAFile, o.CRLFile = expired, "" }, []string{"W ca_file: certificate 1 of \"" + expired + "\" (serial", noCRL}},
		{func(o *Options) { o.CAFile, o.CRLFile = large, "" }, []string{noCRL, "W ca_file: the names of the 40 certificates"}},

		// Versions.
		{func(o *Options) { o.MinProtocolVersion = "1.3" }, []string{`E min_protocol_version: "1.3" is not a protocol version that Go has: did you mean TLSv1.3?`}},
		{func(o *Options) { o.MaxProtocolVersion = "TLSv1.4" }, []string{"E max_protocol_version: "}},
		{func(o *Options) { o.MinProtocolVersion, o.MaxProtocolVersion = "TLSv1.3", "TLSv1.2" }, []string{"E min_protocol_version: TLSv1.3 is above max_protocol_version, TLSv1.2"}},
		{func(o *Options) { o.MaxProtocolVersion = "TLSv1.1" }, []string{"E max_protocol_version: TLSv1.1 is below the default"}},
		{func(o *Options) { o.MinProtocolVersion = "TLSv1" }, []string{"W min_protocol_version: TLSv1 is deprecated", "W min_protocol_version: TLSv1 has no effect"}},
		{func(o *Options) { o.MinProtocolVersion, o.MaxProtocolVersion = "TLSv1", "TLSv1.1" }, []string{"W min_protocol_version: TLSv1 is deprecated", "E ciphers: has no suite that works with TLSv1 to TLSv1.1: add"}},

		// Suites.
		{func(o *Options) { o.Ciphers = []string{"ECDHE-ECDSA-AES256-GCM-SHA384", "tls_aes_256_gcm_sha384"} }, nil},
		{func(o *Options) { o.Ciphers = []string{"ECDHE-ECDSA-AES256-GCM-SHA384"} }, []string{"E ciphers: has no suite of TLSv1.3: add TLS_AES_256_GCM_SHA384, or set max_protocol_version: TLSv1.2"}},
		{func(o *Options) { o.Ciphers = []string{"TLS_AES_256_GCM_SHA384"} }, []string{"E ciphers: has no suite of TLSv1.2: add ECDHE-RSA-AES256-GCM-SHA384 and ECDHE-ECDSA-AES256-GCM-SHA384, or set min_protocol_version: TLSv1.3"}},
		{func(o *Options) { o.Ciphers, o.MinProtocolVersion = []string{"TLS_AES_256_GCM_SHA384"}, "TLSv1.3" }, nil},
		{func(o *Options) {
			o.Ciphers, o.MaxProtocolVersion = []string{"ECDHE-ECDSA-AES256-GCM-SHA384"}, "TLSv1.2"
		}, nil},
		{func(o *Options) {
			o.Ciphers, o.MinProtocolVersion = []string{"TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"}, "TLSv1.3"
		}, []string{"E ciphers[1]: ECDHE-ECDSA-AES256-GCM-SHA384 works with TLSv1.2 only, and the gate offers TLSv1.3"}},
		{func(o *Options) { o.Ciphers = []string{"TLS_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"} }, []string{"E ciphers: no suite below TLSv1.3 works with the ECDSA P-256 key of"}},
		{func(o *Options) {
			o.CertFile, o.KeyFile, o.Certificates = "", "", s.named("rsa", "ed25519")
			o.Ciphers = []string{"TLS_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"}
		}, []string{"W ciphers: no suite below TLSv1.3 works with the Ed25519 key of"}},
		{func(o *Options) {
			o.CertFile, o.KeyFile, o.MaxProtocolVersion = s.path("rsa.crt"), s.path("rsa.key"), "TLSv1.2"
			o.Ciphers = []string{"AES128-SHA", "RC4-SHA", "ECDHE-RSA-DES-CBC3-SHA", "AES128-SHA256", "ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA", "AES128-SHA"}
		}, []string{
			"W ciphers[0]: AES128-SHA is weak: it has no forward secrecy", "W ciphers[1]: RC4-SHA is weak: RC4", "W ciphers[2]: ECDHE-RSA-DES-CBC3-SHA is weak: 3DES",
			"W ciphers[3]: AES128-SHA256 is weak: it has no forward", "W ciphers[4]: ECDHE-RSA-AES128-SHA256 is weak: Go's CBC", "W ciphers[5]: ECDHE-RSA-AES128-SHA is weak: CBC",
			"W ciphers[6]: AES128-SHA is in the list twice",
		}},
		{func(o *Options) { o.Ciphers = []string{"HIGH", "TLS_AES_256_GCM_SHA385"} }, []string{"E ciphers[0]: ", "E ciphers[1]: "}},

		// Groups.
		{func(o *Options) { o.Groups = []string{"X25519", "prime256v1", "P-384", "x25519"} }, []string{"W groups[3]: X25519 is in the list twice"}},
		{func(o *Options) { o.Groups = []string{"X25519", "ffdhe2048"} }, []string{"E groups[1]: "}},
		{func(o *Options) { o.Groups = []string{"X25519MLKEM768"} }, []string{"E groups: has only groups with ML-KEM"}},
		{func(o *Options) { o.Groups, o.MinProtocolVersion = []string{"X25519MLKEM768"}, "TLSv1.3" }, nil},

		// Everything at once.
		{func(o *Options) {
			*o = Options{CertFile: s.path("none"), KeyFile: s.path("server.key"), MinProtocolVersion: "x", Ciphers: []string{"x"}, Groups: []string{"x"}, CAFile: s.path("none")}
		}, []string{"E cert_file", "E min_protocol_version", "E ciphers[0]", "E groups[0]", "E ca_file", noCRL}},
	} {
		o := s.options()
		c.edit(&o)
		server, problems := Load(o, nil, nil, time.Now())
		var got []string
		failed := false
		for _, p := range problems {
			level := "E"
			if p.Warning {
				level = "W"
			}
			failed = failed || !p.Warning
			got = append(got, level+" "+p.String())
		}
		matches := slices.EqualFunc(got, c.want, strings.Contains)
		if !matches || failed != (server == nil) || strings.ContainsAny(strings.Join(got, ""), "\r\n") {
			t.Errorf("%+v\nserver %v, problems %q\nwant %q", o, server != nil, got, c.want)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func encryptedKey() []byte {
	der := must(pkcs8.MarshalPrivateKey(tlstest.NewCA("x").Key, []byte("s3cret"), nil))
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
}

// rsaPair is self-signed: only its key matters. crypto/rsa makes small keys, which old files may have, only with that GODEBUG.
func (s *site) rsaPair(t *testing.T, bits int) Pair {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key := must(rsa.GenerateKey(rand.Reader, bits))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	name := fmt.Sprint("rsa", bits)
	return Pair{
		CertFile: s.write(t, name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		KeyFile:  s.write(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
	}
}

// largeCAFile is a CA file whose names do not fit into a handshake.
func (s *site) largeCAFile() []byte {
	file := s.ca.CertPEM()
	for i := range 39 {
		file = append(file, s.ca.Intermediate(fmt.Sprint("a", i), func(c *x509.Certificate) {
			c.Subject = pkix.Name{Organization: []string{strings.Repeat("x", 2000)}}
		}).CertPEM()...)
	}
	return file
}

func TestCertificateDates(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct {
		at   time.Duration
		want string
	}{
		{0, ""},
		{-2 * time.Hour, "is not valid before"},
		{2 * 365 * 24 * time.Hour, "expired on"},
	} {
		o := s.options()
		o.ClientCert, o.CAFile, o.CRLFile = ClientCertNone, "", ""
		server, problems := Load(o, nil, nil, time.Now().Add(c.at))
		if server == nil || len(problems) != min(1, len(c.want)) {
			t.Errorf("%v: %v", c.at, problems)
		} else if c.want != "" && (problems[0].Key != "cert_file" || !strings.Contains(problems[0].Text, c.want)) {
			t.Errorf("%v: %v, want %s", c.at, problems, c.want)
		}
	}
}

func TestEncryptedKey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := openssl(t, must(os.ReadFile(s.path("server.key"))), fields("pkcs8 -topk8 -passout pass:s3cret")...)
	o := s.options()
	o.KeyFile = s.write(t, "encrypted.key", key)
	o.PassphraseCommand = "case '%p' in *" + o.KeyFile + ":) echo s3cret;; esac"
	load(t, o)

	o.PassphraseCommand = ""
	var asked string
	ask := func(text string) ([]byte, error) { asked = text; return []byte("s3cret"), nil }
	if server, problems := Load(o, nil, ask, time.Now()); server == nil || asked != "Enter PEM pass phrase for "+o.KeyFile+":" {
		t.Errorf("asked %q: %v", asked, problems)
	}
}

// connect does a handshake over TCP and returns the state of both ends; the error is the client's, or else the server's.
func connect(t *testing.T, server, client *tls.Config) (s, c tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	failed := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			failed <- err
			return
		}
		defer conn.Close()
		tlsConn := tls.Server(conn, server)
		err = tlsConn.Handshake()
		s = tlsConn.ConnectionState()
		failed <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tlsConn := tls.Client(conn, client)
	err = tlsConn.Handshake()
	if serverErr := <-failed; err == nil {
		err = serverErr
	}
	return s, tlsConn.ConnectionState(), err
}

// client trusts the site's CA, unless the test changes that.
func (s *site) client(edit func(*tls.Config)) *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "db.example", NextProtos: []string{"postgresql"}}
	c.RootCAs.AddCert(s.ca.Cert)
	edit(c)
	return c
}

func TestServe(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	both := func(o *Options) { o.CertFile, o.KeyFile, o.Certificates = "", "", s.named("server", "rsa") }
	suite12 := func(version uint16, ids ...uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MinVersion, c.MaxVersion, c.CipherSuites = version, version, ids }
	}
	const ecdsaAES256, ecdsaChaCha = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
	const cbc = tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
	const rsaAES256 = tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
	for _, c := range []struct {
		what   string
		edit   func(*Options)
		client func(*tls.Config)
		want   string // version, suite, group, key; empty is a failure
	}{
		{"the defaults", func(*Options) {}, func(*tls.Config) {}, "TLSv1.3 TLS_AES_128_GCM_SHA256 X25519MLKEM768 ECDSA P-256"},
		{"TLS 1.2", func(*Options) {}, suite12(tls.VersionTLS12, ecdsaAES256), "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384 X25519 ECDSA P-256"},
		{"TLS 1.1 is below the default", func(*Options) {}, suite12(tls.VersionTLS11, cbc), ""},
		{"CBC is not in the default", func(*Options) {}, suite12(tls.VersionTLS12, cbc), ""},
		{"TLS 1.1 when asked for", func(o *Options) {
			o.MinProtocolVersion, o.Ciphers = "TLSv1.1", []string{"ECDHE-ECDSA-AES128-SHA", "TLS_AES_128_GCM_SHA256"}
		}, suite12(tls.VersionTLS11, cbc), "TLSv1.1 ECDHE-ECDSA-AES128-SHA X25519 ECDSA P-256"},
		{"TLS 1.3 only", func(o *Options) { o.MinProtocolVersion = "TLSv1.3" }, suite12(tls.VersionTLS12, ecdsaAES256), ""},
		{"no TLS 1.3", func(o *Options) { o.MaxProtocolVersion = "TLSv1.2" }, func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, ""},
		{"a suite in the list", func(o *Options) {
			o.Ciphers, o.MaxProtocolVersion = []string{"ECDHE-ECDSA-CHACHA20-POLY1305"}, "TLSv1.2"
		}, suite12(tls.VersionTLS12, ecdsaAES256, ecdsaChaCha), "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305 X25519 ECDSA P-256"},
		{"a suite outside the list", func(o *Options) {
			o.Ciphers, o.MaxProtocolVersion = []string{"ECDHE-ECDSA-CHACHA20-POLY1305"}, "TLSv1.2"
		}, suite12(tls.VersionTLS12, ecdsaAES256), ""},
		{"a group of the list", func(o *Options) { o.Groups = []string{"P-521", "secp384r1"} }, func(*tls.Config) {}, "TLSv1.3 TLS_AES_128_GCM_SHA256 CurveP384 ECDSA P-256"},
		{"a group outside the list", func(o *Options) { o.Groups = []string{"X25519"} }, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, ""},
		{"no ALPN in common", func(*Options) {}, func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, ""},
		{"no ALPN at all", func(*Options) {}, func(c *tls.Config) { c.NextProtos = nil }, "TLSv1.3 TLS_AES_128_GCM_SHA256 X25519MLKEM768 ECDSA P-256"},
		{"the first key that fits", both, func(*tls.Config) {}, "TLSv1.3 TLS_AES_128_GCM_SHA256 X25519MLKEM768 ECDSA P-256"},
		{"the key that fits", both, suite12(tls.VersionTLS12, rsaAES256), "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384 X25519 RSA 2048"},
		{"the key that fits, whatever the name", both, func(c *tls.Config) {
			suite12(tls.VersionTLS12, rsaAES256)(c)
			c.ServerName, c.InsecureSkipVerify = "10.0.0.1.example", true
		}, "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384 X25519 RSA 2048"},
		{"the key that fits, without a name", both, func(c *tls.Config) {
			suite12(tls.VersionTLS12, rsaAES256)(c)
			c.ServerName, c.InsecureSkipVerify = "", true
		}, "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384 X25519 RSA 2048"},
	} {
		t.Run(c.what, func(t *testing.T) {
			o := s.options()
			o.ClientCert, o.CAFile, o.CRLFile = ClientCertNone, "", ""
			c.edit(&o)
			server := load(t, o)
			state, seen, err := connect(t, server.Config, s.client(c.client))
			got := ""
			if err == nil {
				got = fmt.Sprint(versionName(state.Version), " ", suiteName(state.CipherSuite), " ", state.CurveID, " ", privkey.Name(seen.PeerCertificates[0].PublicKey))
				if _, err := server.Verify(state, certs.DER(state.PeerCertificates), time.Now()); err != nil {
					t.Error(err)
				}
			}
			if got != c.want {
				t.Errorf("negotiated %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

func TestServeWholeChain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pair := s.pair(t, "deep", s.ca.Intermediate("one").Intermediate("two").Server("db.example"))
	o := s.options()
	o.CertFile, o.KeyFile = pair.CertFile, pair.KeyFile
	server := load(t, o)
	_, seen, err := connect(t, server.Config, s.client(func(*tls.Config) {}))
	if err != nil || len(seen.PeerCertificates) != 3 {
		t.Errorf("the client got %d certificates: %v", len(seen.PeerCertificates), err)
	}
	info := server.Certificates[0]
	leaf := seen.PeerCertificates[0]
	want := CertificateInfo{
		File: pair.CertFile, KeyFile: pair.KeyFile, Subject: "CN=db.example", NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Key: "ECDSA P-256", Chain: info.Chain,
	}
	sameCertificate := func(a, b *x509.Certificate) bool { return a.Equal(b) }
	if !reflect.DeepEqual(info, want) || !slices.EqualFunc(info.Chain, seen.PeerCertificates, sameCertificate) {
		t.Errorf("described as %+v", info)
	}
	if len(server.CRLs) != 1 || server.CRLs[0].File != o.CRLFile {
		t.Errorf("CRLs %+v", server.CRLs)
	}
}

func TestNoResumption(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, version := range []string{"TLSv1.2", "TLSv1.3"} {
		o := s.options()
		o.MinProtocolVersion, o.MaxProtocolVersion = version, version
		server := load(t, o)
		client := s.client(func(c *tls.Config) { c.ClientSessionCache = tls.NewLRUClientSessionCache(8) })
		for range 2 {
			if _, seen, err := connect(t, server.Config, client); err != nil || seen.DidResume {
				t.Errorf("%s: resumed %v, %v", version, seen.DidResume, err)
			}
		}
	}
}

// Every client gets a request that names the CA, and any certificate passes the handshake, so that the client can be told
// why it is refused.
func TestCertificateRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	good, bad := s.ca.Client("alice").TLS(), tlstest.NewCA("other").Client("mallory").TLS()
	for _, c := range []struct {
		mode  ClientCert
		cert  *tls.Certificate
		asked bool
		want  string // of Verify
	}{
		{ClientCertRequire, &good, true, ""},
		{ClientCertRequire, &bad, true, "is of a CA whose certificate is neither in ca_file nor was sent"},
		{ClientCertRequire, nil, true, "no certificate"},
		{"", nil, true, "no certificate"},
		{ClientCertOptional, &good, true, ""},
		{ClientCertOptional, &bad, true, "is of a CA whose certificate is neither in ca_file nor was sent"},
		{ClientCertOptional, nil, true, ""},
		{ClientCertNone, &bad, false, ""},
	} {
		o := s.options()
		o.ClientCert = c.mode
		if !c.asked {
			o.CAFile, o.CRLFile = "", ""
		}
		server := load(t, o)
		asked := false
		state, _, err := connect(t, server.Config, s.client(func(config *tls.Config) {
			config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = len(info.AcceptableCAs) == 1 && string(info.AcceptableCAs[0]) == string(s.ca.Cert.RawSubject)
				if c.cert == nil {
					return &tls.Certificate{}, nil
				}
				return c.cert, nil
			}
		}))
		if err != nil || asked != c.asked {
			t.Errorf("%q: asked %v, want %v: %v", c.mode, asked, c.asked, err)
			continue
		}
		_, err = server.Verify(state, certs.DER(state.PeerCertificates), time.Now())
		var refused *VerifyError
		if (err == nil) != (c.want == "") || err != nil && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v, want %q", c.mode, err, c.want)
		}
	}
}

func TestVerifyPolicy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.options()
	o.ClientCert, o.CAFile, o.CRLFile = ClientCertNone, "", ""
	o.Ciphers = []string{"ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_AES_256_GCM_SHA384"}
	o.Groups = []string{"X25519", "prime256v1"}
	server := load(t, o)
	state := func(version, id uint16) tls.ConnectionState {
		return tls.ConnectionState{HandshakeComplete: true, Version: version, CipherSuite: id}
	}
	for _, c := range []struct {
		state tls.ConnectionState
		want  string
		why   Reason
	}{
		{state(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384), "", ""},
		{state(tls.VersionTLS13, tls.TLS_AES_256_GCM_SHA384), "", ""},
		{state(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256), "cipher suite TLS_AES_128_GCM_SHA256 is not configured", ReasonCipher},
		{state(tls.VersionTLS13, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384), "cipher suite ECDHE-ECDSA-AES256-GCM-SHA384 is not configured", ReasonCipher},
		{state(tls.VersionTLS12, tls.TLS_AES_256_GCM_SHA384), "is not configured", ReasonCipher},
		{state(tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384), "is not configured", ReasonCipher},
		{state(tls.VersionTLS13, 0x1399), "cipher suite 0x1399 is not configured", ReasonCipher},
		{state(tls.VersionTLS11, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384), "TLSv1.1 is outside of TLSv1.2 to TLSv1.3", ReasonVersion},
		{state(0x0305, tls.TLS_AES_256_GCM_SHA384), "0x0305 is outside of", ReasonVersion},
		{tls.ConnectionState{}, "not complete", ReasonCipher},
		{inGroup(state(tls.VersionTLS13, tls.TLS_AES_256_GCM_SHA384), tls.X25519), "", ""},
		{inGroup(state(tls.VersionTLS13, tls.TLS_AES_256_GCM_SHA384), tls.CurveP521), "key exchange group secp521r1 is not configured", ReasonGroup},
	} {
		_, err := server.Verify(c.state, certs.DER(c.state.PeerCertificates), time.Now())
		var refused *VerifyError
		if (err == nil) != (c.want == "") || err != nil && (!errors.As(err, &refused) || refused.Reason != c.why || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%#x %#x: %v, want %q", c.state.Version, c.state.CipherSuite, err, c.want)
		}
	}
}

func inGroup(state tls.ConnectionState, group tls.CurveID) tls.ConnectionState {
	state.CurveID = group
	return state
}
