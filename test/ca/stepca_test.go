package ca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// stepCA is a running step-ca with a JWK provisioner.
type stepCA struct {
	*process
	url, lists string // of its API and, in clear, of its revocation list
	client     *http.Client
	provider   *ecdsa.PrivateKey // of the provisioner
	root       *tlstest.CA
	above      []byte // its own certificate, in PEM
}

// template is a certificate template of step-ca for clients of a database. Without crlDistributionPoints none of its lists
// would cover the certificates: step-ca writes an issuing distribution point into each list.
const template = `{"subject": {{ toJson .Subject }}, "sans": {{ toJson .SANs }}, "keyUsage": ["digitalSignature"],
"extKeyUsage": ["clientAuth"]%s}`

// startStepCA builds step-ca, which takes minutes when it is not cached, and starts it with a CRL. The template may be for
// certificates without a distribution point.
func startStepCA(t *testing.T, withPoint bool) *stepCA {
	t.Helper()
	build := exec.Command("go", "tool", "-n", "step-ca")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // it would need libpcsclite
	out, err := build.Output()
	if err != nil {
		t.Skipf("step-ca cannot be built here: %v", err)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	api, lists := freeAddress(t), freeAddress(t)
	c := &stepCA{url: "https://" + api, lists: "http://" + lists + "/1.0/crl", root: tlstest.NewCA("Smallstep Root CA")}
	intermediate := c.root.Intermediate("Smallstep Intermediate CA")
	c.above = intermediate.CertPEM()
	write(t, at("root.crt"), c.root.CertPEM())
	write(t, at("intermediate.crt"), c.above)
	write(t, at("intermediate.key"), (&tlstest.Pair{Key: intermediate.Key}).KeyPEM())
	if c.provider, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	points := ""
	if withPoint {
		points = fmt.Sprintf(`, "crlDistributionPoints": [%q]`, c.lists)
	}
	config := map[string]any{
		"root": at("root.crt"), "crt": at("intermediate.crt"), "key": at("intermediate.key"),
		"address": api, "insecureAddress": lists, "dnsNames": []string{"127.0.0.1"},
		"logger": map[string]any{"format": "text"},
		"db":     map[string]any{"type": "badgerv2", "dataSource": at("db")},
		"crl":    map[string]any{"enabled": true, "generateOnRevoke": true, "idpURL": c.lists},
		"authority": map[string]any{"provisioners": []any{map[string]any{
			"type": "JWK", "name": "test", "key": c.jwk(),
			"options": map[string]any{"x509": map[string]any{"template": fmt.Sprintf(template, points)}},
		}}},
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, at("ca.json"), text)
	roots := x509.NewCertPool()
	roots.AddCert(c.root.Cert)
	c.client = &http.Client{Timeout: deadline, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	t.Cleanup(c.client.CloseIdleConnections)
	cmd := exec.Command(strings.TrimSpace(string(out)), at("ca.json"))
	cmd.Env = append(os.Environ(), "STEPPATH="+dir)
	c.process = start(t, cmd)
	c.wait(t, "its health", func() bool {
		r, err := c.client.Get(c.url + "/health")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return c
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwk is the public key of the provisioner (RFC 7517).
func (c *stepCA) jwk() map[string]any {
	point, err := c.provider.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return map[string]any{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "test", "x": encode(point[1:33]), "y": encode(point[33:])}
}

// token is what "step ca token" makes: a JWT (RFC 7519) for one request.
func (c *stepCA) token(t *testing.T, subject, path string) string {
	t.Helper()
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	claims, err := json.Marshal(map[string]any{
		"iss": "test", "sub": subject, "aud": c.url + path, "jti": encode(id), "sans": []string{subject},
		"iat": time.Now().Unix(), "nbf": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	signed := encode([]byte(`{"alg":"ES256","typ":"JWT","kid":"test"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, c.provider, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// post makes a request of the API.
func (c *stepCA) post(t *testing.T, path string, request, answer any) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.client.Post(c.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode/100 != 2 {
		t.Fatalf("%s: %s %s %v\n%s", path, r.Status, text, err, c.output())
	}
	if err := json.Unmarshal(text, answer); err != nil {
		t.Fatal(err)
	}
}

// issue has step-ca issue a client certificate, and writes name.crt and name.key.
func (c *stepCA) issue(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		CertChain []string `json:"certChain"`
	}
	c.post(t, "/1.0/sign", map[string]any{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})), "ott": c.token(t, name, "/1.0/sign"),
	}, &answer)
	write(t, filepath.Join(dir, name+".crt"), []byte(strings.Join(answer.CertChain, "")))
	write(t, filepath.Join(dir, name+".key"), (&tlstest.Pair{Key: key}).KeyPEM())
	block, _ := pem.Decode([]byte(answer.CertChain[0]))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// revoke has step-ca revoke a certificate.
func (c *stepCA) revoke(t *testing.T, cert *x509.Certificate) {
	t.Helper()
	serial := cert.SerialNumber.String()
	c.post(t, "/1.0/revoke", map[string]any{"serial": serial, "ott": c.token(t, serial, "/1.0/revoke"), "reasonCode": 1, "passive": true}, new(struct{}))
}

// save has pgwicket fetch write the list of step-ca into crl_dir.
func (c *stepCA) save(t *testing.T, dir string) {
	t.Helper()
	config := filepath.Join(dir, "fetch.yaml")
	write(t, config, fmt.Appendf(nil, "tls: {ca_file: ca.crt, crl_dir: crls, crl_urls: [%q]}\n", c.lists))
	if out, err := exec.Command(gateBinary, "fetch", "--once", "--config", config).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// prepare fills the directory of a gate that trusts the CA. The root is offline, and its list is made by hand.
func (c *stepCA) prepare(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "crls"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.crt"), append(bytes.Clone(c.above), c.root.CertPEM()...))
	write(t, filepath.Join(dir, "crls", "root.crl"), c.root.CRL(nil))
	c.save(t, dir)
}

// A client of a real step-ca is admitted. When its certificate is revoked and the list fetched, its session ends, and it is
// refused from then on; others stay.
func TestStepCA(t *testing.T) {
	c := startStepCA(t, true)
	dir := t.TempDir()
	c.prepare(t, dir)
	app := c.issue(t, dir, "app")
	c.issue(t, dir, "other")
	if len(app.CRLDistributionPoints) != 1 {
		t.Fatalf("step-ca has written the distribution points %q", app.CRLDistributionPoints)
	}
	g := newGate(t, dir)
	g.admits(t, "app")
	g.admits(t, "other")
	live, other := g.session(t, "app"), g.session(t, "other")

	c.revoke(t, app)
	c.save(t, dir)
	live.wait(t, "the end of the session", func() bool { return strings.Contains(live.output(), "certificate was revoked") })
	g.refuses(t, "app", "client certificate was revoked on")
	g.admits(t, "other")
	select {
	case <-other.exited:
		t.Errorf("the session of another client has ended: %s", other.output())
	default:
	}
}

// session opens a session that waits.
func (g *gate) session(t *testing.T, name string) *process {
	t.Helper()
	p := start(t, g.as(t, name, "-c", "select 'open'", "-c", "select pg_sleep(600)"))
	p.wait(t, "the session of "+name, func() bool { return strings.Contains(p.output(), "open") })
	return p
}

// Without a distribution point in the template, as step-ca has it by default, no list of step-ca covers a certificate: OpenSSL
// refuses as well, and the log says what to do.
func TestStepCAWithoutDistributionPoint(t *testing.T) {
	c := startStepCA(t, false)
	dir := t.TempDir()
	c.prepare(t, dir)
	if cert := c.issue(t, dir, "app"); len(cert.CRLDistributionPoints) > 0 {
		t.Fatalf("step-ca has written the distribution points %q", cert.CRLDistributionPoints)
	}
	g := newGate(t, dir)
	g.refuses(t, "app", "FATAL")
	for _, text := range []string{`"outcome":"crl_missing"`, "the certificate names none", "step-ca: in the template"} {
		g.wait(t, text+" in the log", func() bool { return strings.Contains(g.output(), text) })
	}
}
