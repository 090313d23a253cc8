package tlsconfig

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"pgwicket/internal/tlstest"
)

// ocspSite is a gate whose certificate comes from an intermediate, with an OCSP responder.
type ocspSite struct {
	*site
	inter     *tlstest.CA
	server    *tlstest.Pair
	responder *tlstest.Pair // that the intermediate has named
}

var mustStapleExt = tlstest.Extension(oidTLSFeature, false, []int{5})

func newOCSPSite(t *testing.T, edit ...func(*x509.Certificate)) *ocspSite {
	t.Helper()
	s := &ocspSite{site: newSite(t)}
	s.inter = s.ca.Intermediate("intermediate")
	s.server = s.inter.Client("db.example", slices.Concat([]func(*x509.Certificate){forServers}, edit)...)
	s.responder = s.inter.Client("responder", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })
	s.pair(t, "server", s.server)
	return s
}

func forServers(c *x509.Certificate) {
	c.DNSNames = []string{"db.example"}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

// withStaple are good options with that response.
func (s *ocspSite) withStaple(t *testing.T, der []byte) Options {
	t.Helper()
	o := s.options()
	o.OCSPFile = s.write(t, "server.ocsp", der)
	return o
}

// response signs a response for a certificate. signer is nil for the issuer, whose certificate is not in the response then.
func response(t *testing.T, leaf *x509.Certificate, issuer *tlstest.CA, signer *tlstest.Pair, edit func(*ocsp.Response)) []byte {
	t.Helper()
	now := time.Now()
	r := ocsp.Response{Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour)}
	key, cert := issuer.Key, issuer.Cert
	if signer != nil {
		key, cert = signer.Key, signer.Leaf()
		r.Certificate = cert
	}
	if edit != nil {
		edit(&r)
	}
	return must(ocsp.CreateResponse(issuer.Cert, cert, r, key))
}

func TestStapleProblems(t *testing.T) {
	t.Parallel()
	s := newOCSPSite(t)
	other := s.inter.Client("db.example", forServers)
	status := func(n int) func(*ocsp.Response) {
		return func(r *ocsp.Response) {
			r.Status, r.RevokedAt, r.RevocationReason = n, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), ocsp.KeyCompromise
		}
	}
	of := func(edit func(*ocsp.Response)) []byte { return response(t, s.server.Leaf(), s.inter, nil, edit) }
	by := func(p *tlstest.Pair) []byte { return response(t, s.server.Leaf(), s.inter, p, nil) }
	named := func(edit func(*x509.Certificate)) *tlstest.Pair {
		return s.inter.Client("responder", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
			edit(c)
		})
	}
	self := &tlstest.Pair{Chain: []*x509.Certificate{s.inter.Cert}, Key: s.inter.Key}
	changed := bytes.Clone(of(nil))
	changed[len(changed)-1] ^= 1
	const fetch = ": fetch it again"
	for _, c := range []struct {
		name string
		der  []byte
		want []string // E or W, the key, and a part of the text, FILE for the response
	}{
		{"good", of(nil), nil},
		{"by the responder", by(s.responder), nil},
		// With the CA's own certificate, as openssl ocsp writes it. x/crypto/ocsp refuses that if it has the issuer.
		{"by the CA, with its certificate", by(self), nil},
		{"PEM", pem.EncodeToMemory(&pem.Block{Type: "OCSP RESPONSE", Bytes: of(nil)}), []string{`E ocsp_file: "FILE" is PEM: give the response in DER`}},
		{"empty", nil, []string{`E ocsp_file: "FILE" is not an OCSP response for the certificate in cert_file (`}},
		{"something after it", append(of(nil), 0), []string{`E ocsp_file: "FILE" is not an OCSP response`}},
		{"cut short", of(nil)[:100], []string{`E ocsp_file: "FILE" is not an OCSP response`}},
		{"an error of the responder", ocsp.TryLaterErrorResponse, []string{`E ocsp_file: "FILE" holds an error of the responder (try later)` + fetch}},
		{"for another certificate", response(t, other.Leaf(), s.inter, nil, nil), []string{`E ocsp_file: "FILE" is not an OCSP response for the certificate in cert_file ("no response matching the supplied certificate")` + fetch}},
		{"by another CA of that name", response(t, s.server.Leaf(), s.ca.Intermediate("intermediate"), nil, nil), []string{`E ocsp_file: "FILE" is not signed by the CA whose certificate is second in cert_file (`}},
		{"changed by a bit", changed, []string{`E ocsp_file: "FILE" is not signed by the CA whose certificate is second`}},
		// x/crypto/ocsp accepts any certificate of the CA.
		{"by a client of the CA", by(s.inter.Client("alice")), []string{`E ocsp_file: "FILE" is signed by "CN=alice", which is not a responder of the CA whose certificate is second in cert_file`}},
		{"by another CA's responder", by(s.ca.Client("responder", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })), []string{`E ocsp_file: "FILE" is signed by "CN=responder", which`}},
		{"revoked", of(status(ocsp.Revoked)), []string{`E ocsp_file: "FILE" says that the gate's own certificate was revoked on 2026-03-01 (keyCompromise): get a new one`}},
		{"unknown", of(status(ocsp.Unknown)), []string{`E ocsp_file: "FILE" says that the CA does not know the gate's own certificate`}},
		{"out of date", of(func(r *ocsp.Response) { r.NextUpdate = time.Now().Add(-time.Minute) }), []string{`W ocsp_file: "FILE" is out of date since 20`}},
		{"not yet valid", of(func(r *ocsp.Response) { r.ThisUpdate = time.Now().Add(time.Minute) }), []string{`W ocsp_file: "FILE" is not valid before 20`}},
		{"without an end", of(func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), []string{`W ocsp_file: "FILE" has no next update`}},
		{"by a responder that has expired", by(named(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), []string{`W ocsp_file: "FILE" is out of date since 20`}},
		{"by a responder to come", by(named(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })), []string{`W ocsp_file: "FILE" is not valid before 20`}},
	} {
		o := s.withStaple(t, c.der)
		server, problems := Load(o, nil, nil, time.Now())
		expectProblems(t, c.name, server, problems, o.OCSPFile, c.want)
	}

	// Without its issuer a response cannot be checked.
	o := s.withStaple(t, of(nil))
	o.CertFile = s.write(t, "alone.crt", tlstest.PEM(s.server.Leaf()))
	server, problems := Load(o, nil, nil, time.Now())
	expectProblems(t, "no chain", server, problems, o.OCSPFile, []string{`E ocsp_file: "FILE" cannot be checked, since cert_file has no chain: add the certificate of the CA behind`})
	o = s.options()
	o.OCSPFile = s.path("gone.ocsp")
	server, problems = Load(o, nil, nil, time.Now())
	expectProblems(t, "no file", server, problems, o.OCSPFile, []string{`E ocsp_file: cannot read "FILE": no such file`})

	// Each pair of the list has its own response.
	o = s.withStaple(t, of(nil))
	o.Certificates = []Pair{{o.CertFile, o.KeyFile, o.OCSPFile}, {s.path("rsa.crt"), s.path("rsa.key"), o.OCSPFile}}
	o.CertFile, o.KeyFile = "", ""
	server, problems = Load(o, nil, nil, time.Now())
	expectProblems(t, "pairs", server, problems, o.OCSPFile, []string{
		"E ocsp_file: cannot be set together with certificates: move it into the entry of its certificate", `E certificates[1].ocsp_file: "FILE" cannot be checked`,
	})
	o.OCSPFile, o.Certificates[1].OCSPFile = "", ""
	if server = load(t, o); server.Certificates[0].StapledUntil.IsZero() || !server.Certificates[1].StapledUntil.IsZero() {
		t.Errorf("%+v", server.Certificates)
	}
}

func expectProblems(t *testing.T, name string, server *Server, problems []Problem, file string, want []string) {
	t.Helper()
	var got []string
	failed := false
	for _, p := range problems {
		level := "E "
		if p.Warning {
			level = "W "
		}
		failed = failed || !p.Warning
		got = append(got, level+strings.ReplaceAll(p.String(), file, "FILE"))
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) || failed != (server == nil) || strings.ContainsAny(strings.Join(got, ""), "\r\n") {
		t.Errorf("%s: got\n\t%s\nwant\n\t%s", name, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Clients that check Must-Staple refuse a certificate without a response in date, and Load warns of that.
func TestMustStaple(t *testing.T) {
	t.Parallel()
	with := func(x pkix.Extension) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, x) }
	}
	const demand = `W cert_file: the certificate in "`
	const lapsed = `W ocsp_file: "FILE" is out of date since`
	for _, c := range []struct {
		name string
		ext  pkix.Extension
		none []string // problems without a response
		old  []string // with one that is out of date
	}{
		{"status_request", mustStapleExt, []string{demand}, []string{lapsed, demand}},
		{"among others", tlstest.Extension(oidTLSFeature, true, []int{17, 5}), []string{demand}, []string{lapsed, demand}},
		{"status_request_v2", tlstest.Extension(oidTLSFeature, false, []int{17}), nil, []string{lapsed}},
		{"not what it should be", pkix.Extension{Id: oidTLSFeature, Value: []byte{5}}, nil, []string{lapsed}},
	} {
		s := newOCSPSite(t, with(c.ext))
		server, problems := Load(s.options(), nil, nil, time.Now())
		expectProblems(t, c.name+", none", server, problems, "-", c.none)
		o := s.withStaple(t, response(t, s.server.Leaf(), s.inter, nil, nil))
		server, problems = Load(o, nil, nil, time.Now())
		expectProblems(t, c.name+", one", server, problems, o.OCSPFile, nil)
		o = s.withStaple(t, response(t, s.server.Leaf(), s.inter, nil, func(r *ocsp.Response) { r.NextUpdate = time.Now().Add(-time.Minute) }))
		server, problems = Load(o, nil, nil, time.Now())
		expectProblems(t, c.name+", an old one", server, problems, o.OCSPFile, c.old)
	}
}

// Clients with and without SNI get the response of the right pair, with both versions.
func TestServeStaple(t *testing.T) {
	t.Parallel()
	s := newOCSPSite(t)
	der := response(t, s.server.Leaf(), s.inter, s.responder, nil)
	rsa := s.ca.WithKey(tlstest.RSA).Server("db.example")
	s.pair(t, "rsa", rsa)
	single := s.withStaple(t, der)
	pairs := single
	pairs.Certificates = []Pair{{s.path("rsa.crt"), s.path("rsa.key"), ""}, {single.CertFile, single.KeyFile, single.OCSPFile}}
	pairs.CertFile, pairs.KeyFile, pairs.OCSPFile = "", "", ""
	lapsed := single
	lapsed.OCSPFile = s.write(t, "old.ocsp", response(t, s.server.Leaf(), s.inter, nil, func(r *ocsp.Response) { r.NextUpdate = time.Now().Add(-time.Minute) }))
	old := func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }
	onlyECDSA := func(c *tls.Config) {
		old(c)
		c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	}
	nameless := func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "", true }
	for _, c := range []struct {
		name   string
		o      Options
		client func(*tls.Config)
		want   []byte
	}{
		{"TLS 1.3", single, func(*tls.Config) {}, der},
		{"TLS 1.2", single, old, der},
		{"no name", single, nameless, der},
		{"the pair without one", pairs, func(*tls.Config) {}, nil},
		{"the pair with one", pairs, onlyECDSA, der},
		{"out of date", lapsed, func(*tls.Config) {}, nil},
	} {
		_, seen, err := connect(t, load(t, c.o).Config, s.client(c.client))
		if err != nil || !bytes.Equal(seen.OCSPResponse, c.want) {
			t.Errorf("%s: %d bytes of %d, %v", c.name, len(seen.OCSPResponse), len(c.want), err)
		}
		if len(seen.PeerCertificates) == 0 || c.want != nil && len(seen.PeerCertificates) != 2 { // pgdogdev/pgdog#834: the chain is sent with it
			t.Errorf("%s: %d certificates", c.name, len(seen.PeerCertificates))
		}
	}
}

// A response is sent from its first second to its last, without a reload.
func TestStapleAsTimePasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newOCSPSite(t)
		from, until := time.Now().Add(time.Hour), time.Now().Add(25*time.Hour)
		server := load(t, s.withStaple(t, response(t, s.server.Leaf(), s.inter, nil, func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = from, until
		})))
		if !server.Certificates[0].StapledUntil.Equal(until) {
			t.Errorf("until %v, want %v", server.Certificates[0].StapledUntil, until)
		}
		stapled := func() bool {
			c := must(server.Config.GetCertificate(&tls.ClientHelloInfo{}))
			if c.Leaf == nil || c.PrivateKey == nil || len(c.Certificate) != 2 {
				t.Errorf("%+v", c)
			}
			return len(c.OCSPStaple) > 0
		}
		for _, c := range []struct {
			at   time.Time
			want bool
		}{{from.Add(-time.Second), false}, {from, true}, {until, true}, {until.Add(time.Second), false}} {
			time.Sleep(time.Until(c.at))
			if got := stapled(); got != c.want {
				t.Errorf("at %v: %t", c.at, got)
			}
		}
	})
}

// The responses of a real responder, with a real client.
func TestStaplesOfOpenSSL(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	s := newOCSPSite(t)
	ca := newOpenSSLCA(t, s.inter)
	s.write(t, "responder.crt", tlstest.PEM(s.responder.Leaf()))
	s.write(t, "responder.key", s.responder.KeyPEM())
	s.write(t, "leaf.crt", tlstest.PEM(s.server.Leaf()))
	serial := fmt.Sprintf("%X", s.server.Leaf().SerialNumber.Bytes())
	until := s.server.Leaf().NotAfter.UTC().Format("060102150405Z")
	good := fmt.Sprintf("V\t%s\t\t%s\tunknown\t/CN=db.example\n", until, serial)
	revoked := fmt.Sprintf("R\t%s\t260301000000Z,keyCompromise\t%s\tunknown\t/CN=db.example\n", until, serial)
	byCA := []string{"-rsigner", ca.cert, "-rkey", ca.key}
	byResponder := []string{"-rsigner", s.path("responder.crt"), "-rkey", s.path("responder.key")}
	for _, c := range []struct {
		name, index string
		args        []string
		want        []string
	}{
		{"by the CA", good, append(byCA, "-ndays", "1"), nil},
		{"by the CA, without its certificate", good, append(byCA, "-ndays", "1", "-resp_no_certs"), nil},
		{"by the responder", good, append(byResponder, "-ndays", "1"), nil},
		{"by key", good, append(byResponder, "-ndays", "1", "-resp_key_id"), nil},
		{"SHA-384", good, append(byResponder, "-ndays", "1", "-rmd", "sha384"), nil},
		{"no end, by the CA", good, byCA, []string{`W ocsp_file: "FILE" has no next update`}},
		{"no end", good, byResponder, []string{`W ocsp_file: "FILE" has no next update`}},
		{"revoked", revoked, append(byResponder, "-ndays", "1"), []string{`E ocsp_file: "FILE" says that the gate's own certificate was revoked on 2026-03-01 (keyCompromise)`}},
		{"unknown", "", append(byResponder, "-ndays", "1"), []string{`E ocsp_file: "FILE" says that the CA does not know`}},
	} {
		request, answer := s.path("request"), s.path("server.ocsp")
		openssl(t, nil, "ocsp", "-issuer", ca.cert, "-cert", s.path("leaf.crt"), "-reqout", request, "-no_nonce")
		args := []string{"ocsp", "-index", s.write(t, "index.txt", []byte(c.index)), "-CA", ca.cert, "-reqin", request, "-respout", answer}
		openssl(t, nil, append(args, c.args...)...)
		o := s.withStaple(t, must(os.ReadFile(answer)))
		server, problems := Load(o, nil, nil, time.Now())
		expectProblems(t, c.name, server, problems, o.OCSPFile, c.want)
		if server != nil {
			for _, version := range []string{"-tls1_2", "-tls1_3"} {
				if text := opensslStatus(t, server, s.path("ca.crt"), version); !strings.Contains(text, "OCSP Response Status: successful") ||
					!strings.Contains(text, "Cert Status: good") || !strings.Contains(text, "Verify return code: 0 (ok)") {
					t.Errorf("%s, %s: the client says\n%s", c.name, version, text)
				}
			}
		}
	}
	if text := opensslStatus(t, load(t, s.options()), s.path("ca.crt"), "-tls1_3"); !strings.Contains(text, "OCSP response: no response sent") {
		t.Errorf("without one: the client says\n%s", text)
	}
}

// opensslStatus returns what openssl s_client prints about the response of a server.
func opensslStatus(t *testing.T, server *Server, ca, version string) string {
	t.Helper()
	config := server.Config.Clone()
	config.ClientAuth = tls.NoClientCert
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		c := tls.Server(conn, config)
		if c.Handshake() == nil {
			_, _ = c.Read(make([]byte, 1)) // until the client has gone
		}
	}()
	out, err := exec.Command("openssl", "s_client", "-connect", l.Addr().String(), "-servername", "db.example", "-CAfile", ca,
		"-alpn", "postgresql", "-status", version).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", version, err)
	}
	return string(out)
}

// No response makes a reload panic, and what is stapled is a response for this certificate by its CA.
func FuzzParseStaple(f *testing.F) {
	ca := tlstest.NewCA("ca")
	leaf := ca.Client("db.example", forServers)
	responder := ca.Client("responder", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })
	now := time.Now()
	answer := ocsp.Response{SerialNumber: leaf.Leaf().SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
	for _, signer := range []struct {
		cert *x509.Certificate
		key  crypto.Signer
	}{{ca.Cert, ca.Key}, {responder.Leaf(), responder.Key}} {
		r := answer
		if signer.cert != ca.Cert {
			r.Certificate = signer.cert
		}
		f.Add(must(ocsp.CreateResponse(ca.Cert, signer.cert, r, signer.key)))
	}
	f.Add(ocsp.TryLaterErrorResponse)
	f.Fuzz(func(t *testing.T, der []byte) {
		s, err := parseStaple(der, leaf.Leaf(), ca.Cert)
		if err != nil {
			if s != nil || strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%v, %q", s, err)
			}
			return
		}
		if r, err := ocsp.ParseResponseForCert(s.der, leaf.Leaf(), nil); err != nil || r.Status != ocsp.Good {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// BenchmarkGetCertificate measures what choose costs a handshake.
func BenchmarkGetCertificate(b *testing.B) {
	ca := tlstest.NewCA("ca")
	cert := ca.Server("db.example").TLS()
	get := choose([]*served{newServed(cert, &staple{der: []byte{0}, from: time.Now(), until: time.Now().Add(time.Hour)})})
	hello := &tls.ClientHelloInfo{ServerName: "db.example"}
	b.ReportAllocs()
	for b.Loop() {
		if c, err := get(hello); err != nil || c.OCSPStaple == nil {
			b.Fatal(err)
		}
	}
}
