//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// What is tried, and what must come of it, is worked out here from tables
// written by hand, and by nothing of tlsconfig: a test that asked the same table
// as the product would agree with its mistakes.

type tlsVersion int

const (
	v10 tlsVersion = iota
	v11
	v12
	v13
)

func (v tlsVersion) id() uint16     { return tls.VersionTLS10 + uint16(v) }
func (v tlsVersion) option() string { return [...]string{"-tls1", "-tls1_1", "-tls1_2", "-tls1_3"}[v] }

func (v tlsVersion) String() string { return [...]string{"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}[v] }

// cipher is a row of the table in docs: OpenSSL's name, the number of IANA, the
// versions that have the suite, and the key that the gate must have for it.
type cipher struct {
	name     string
	id       uint16
	min, max tlsVersion
	key      string // rsa, ecdsa, or empty for any
}

var ciphers = []cipher{
	{"TLS_AES_128_GCM_SHA256", 0x1301, v13, v13, ""},
	{"TLS_AES_256_GCM_SHA384", 0x1302, v13, v13, ""},
	{"TLS_CHACHA20_POLY1305_SHA256", 0x1303, v13, v13, ""},
	{"ECDHE-ECDSA-AES128-GCM-SHA256", 0xC02B, v12, v12, "ecdsa"},
	{"ECDHE-RSA-AES128-GCM-SHA256", 0xC02F, v12, v12, "rsa"},
	{"ECDHE-ECDSA-AES256-GCM-SHA384", 0xC02C, v12, v12, "ecdsa"},
	{"ECDHE-RSA-AES256-GCM-SHA384", 0xC030, v12, v12, "rsa"},
	{"ECDHE-ECDSA-CHACHA20-POLY1305", 0xCCA9, v12, v12, "ecdsa"},
	{"ECDHE-RSA-CHACHA20-POLY1305", 0xCCA8, v12, v12, "rsa"},
	{"ECDHE-ECDSA-AES128-SHA256", 0xC023, v12, v12, "ecdsa"},
	{"ECDHE-RSA-AES128-SHA256", 0xC027, v12, v12, "rsa"},
	{"AES128-GCM-SHA256", 0x009C, v12, v12, "rsa"},
	{"AES256-GCM-SHA384", 0x009D, v12, v12, "rsa"},
	{"AES128-SHA256", 0x003C, v12, v12, "rsa"},
	{"ECDHE-ECDSA-AES128-SHA", 0xC009, v10, v12, "ecdsa"},
	{"ECDHE-ECDSA-AES256-SHA", 0xC00A, v10, v12, "ecdsa"},
	{"ECDHE-RSA-AES128-SHA", 0xC013, v10, v12, "rsa"},
	{"ECDHE-RSA-AES256-SHA", 0xC014, v10, v12, "rsa"},
	{"AES128-SHA", 0x002F, v10, v12, "rsa"},
	{"AES256-SHA", 0x0035, v10, v12, "rsa"},
	{"DES-CBC3-SHA", 0x000A, v10, v12, "rsa"},
	{"ECDHE-RSA-DES-CBC3-SHA", 0xC012, v10, v12, "rsa"},
	{"RC4-SHA", 0x0005, v10, v12, "rsa"},
	{"ECDHE-ECDSA-RC4-SHA", 0xC007, v10, v12, "ecdsa"},
	{"ECDHE-RSA-RC4-SHA", 0xC011, v10, v12, "rsa"},
}

// tlsCase is one configuration and what it must accept.
type tlsCase struct {
	name     string
	options  []string // lines of the section tls
	keys     []string // of the gate's certificates
	min, max tlsVersion
	ciphers  []string
}

// The suites that an empty list stands for.
var (
	default13 = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
	default12 = []string{
		"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
		"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
	}
	defaultAll = slices.Concat(default13, default12)

	onlyRSA, onlyECDSA, bothKeys = []string{"rsa"}, []string{"ecdsa"}, []string{"ecdsa", "rsa"}
)

func withCiphers(names ...string) string { return "ciphers: [" + strings.Join(names, ", ") + "]" }

func tlsCases() []tlsCase {
	legacy := []string{"ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES128-SHA", "AES256-SHA", "DES-CBC3-SHA", "ECDHE-RSA-RC4-SHA"}
	rsaKeyExchange := []string{"AES128-SHA", "AES256-SHA", "AES128-SHA256", "AES128-GCM-SHA256", "AES256-GCM-SHA384"}
	aes256 := []string{"TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"}
	chacha := []string{"TLS_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"}
	everything := make([]string, 0, len(ciphers))
	for _, c := range ciphers {
		everything = append(everything, c.name)
	}
	return []tlsCase{
		{"default, RSA", nil, onlyRSA, v12, v13, defaultAll},
		{"default, ECDSA", nil, onlyECDSA, v12, v13, defaultAll},
		{"default, both", nil, bothKeys, v12, v13, defaultAll},
		{"TLSv1.3 only", []string{"min_protocol_version: TLSv1.3"}, bothKeys, v13, v13, default13},
		{"TLSv1.2 only", []string{"max_protocol_version: TLSv1.2"}, bothKeys, v12, v12, default12},
		{
			"TLSv1.2 with one suite",
			[]string{"max_protocol_version: TLSv1.2", withCiphers("ECDHE-RSA-AES256-GCM-SHA384")},
			onlyRSA, v12, v12,
			[]string{"ECDHE-RSA-AES256-GCM-SHA384"},
		},
		{
			"TLSv1 to TLSv1.1",
			[]string{"min_protocol_version: TLSv1", "max_protocol_version: TLSv1.1", withCiphers(legacy...)},
			bothKeys, v10, v11, legacy,
		},
		{"AES-256", []string{withCiphers(aes256...)}, bothKeys, v12, v13, aes256},
		{"ChaCha20", []string{withCiphers(chacha...)}, bothKeys, v12, v13, chacha},
		{
			"RSA key exchange",
			[]string{"max_protocol_version: TLSv1.2", withCiphers(rsaKeyExchange...)},
			onlyRSA, v12, v12, rsaKeyExchange,
		},
		{"everything that Go has", []string{"min_protocol_version: TLSv1", withCiphers(everything...)}, bothKeys, v10, v13, everything},
		{"by IANA's names", []string{
			withCiphers("TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
		}, bothKeys, v12, v13, []string{"TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"}},
	}
}

// admits is the expectation.
func (c tlsCase) admits(v tlsVersion, s cipher) bool {
	return c.min <= v && v <= c.max && s.min <= v && v <= s.max &&
		slices.Contains(c.ciphers, s.name) && (s.key == "" || slices.Contains(c.keys, s.key))
}

// done is a handshake that works, among the reasons of those that do not.
const done = "done"

// outcome is what the gate must count.
func (c tlsCase) outcome(v tlsVersion, s cipher, client string) string {
	switch {
	case c.admits(v, s):
		return done
	case client == "openssl" && v == v12 && c.max < v12 && !c.admits(c.max, s):
		// It names its highest version only, and it is the gate that goes below
		// it, to find no suite there. (crypto/tls names them all.)
		return "tls_cipher"
	case v < c.min || v > c.max:
		return "tls_version"
	default:
		return "tls_cipher"
	}
}

// TestOpenSSL has OpenSSL offer the running command every version and cipher
// suite there is, one at a time, under a number of configurations: what the
// configuration names is spoken, and nothing else is.
func TestOpenSSL(t *testing.T) {
	openssl := newOpenSSL(t)
	var total atomic.Int64
	for _, c := range tlsCases() {
		t.Run(c.name, func(t *testing.T) {
			g := startGate(t, "", c.options, c.keys)
			var mu sync.Mutex
			want := make(map[string]int) // of the gate's own count
			var tries []func()
			add := func(what string, v tlsVersion, outcome string, try func() (string, error)) {
				total.Add(1)
				wanted := outcome == done
				tries = append(tries, func() {
					got, err := try()
					switch {
					case wanted && err != nil:
						t.Errorf("%v with %s is refused: %v", v, what, err)
					case wanted && got != fmt.Sprint(v, " ", what):
						t.Errorf("%v with %s became %s", v, what, got)
					case !wanted && err == nil:
						t.Errorf("%v with %s is accepted, as %s", v, what, got)
					case !wanted && !errors.Is(err, errRefused):
						t.Errorf("%v with %s has not been tried: %v", v, what, err)
					}
					mu.Lock()
					defer mu.Unlock()
					want[outcome]++
				})
			}
			for _, s := range ciphers {
				for v := s.min; v <= s.max; v++ {
					client, try := "openssl", func() (string, error) { return openssl.handshake(g, v, s.name) }
					if !openssl.knows[s.name] { // RC4 and 3DES, in most builds
						client, try = "go", func() (string, error) { return goHandshake(g, v, s) }
					}
					add(s.name, v, c.outcome(v, s, client), try)
				}
			}
			for v := v10; v <= v13; v++ { // all that OpenSSL has and Go has not
				add("others", v, c.outcome(v, cipher{}, "openssl"), func() (string, error) { return openssl.handshake(g, v, openssl.others(v)...) })
			}
			inParallel(tries)
			g.compareCounts(t, want)
		})
	}
	t.Logf("%d handshakes tried", total.Load())
}

// TestOpenSSLOrder: for TLS 1.3 the order of the list is the gate's preference,
// whatever the client's.
func TestOpenSSLOrder(t *testing.T) {
	openssl := newOpenSSL(t)
	const aes128, aes256, chacha = "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"
	for _, list := range [][]string{{aes256, aes128}, {chacha, aes256, aes128}, {aes128, chacha}} {
		t.Run(strings.Join(list, ","), func(t *testing.T) {
			g := startGate(t, "", []string{"min_protocol_version: TLSv1.3", withCiphers(list...)}, onlyECDSA)
			for _, offer := range [][]string{{aes128, aes256, chacha}, {chacha, aes128, aes256}, {aes256, chacha, aes128}} {
				if got, err := openssl.handshake(g, v13, offer...); got != "TLSv1.3 "+list[0] {
					t.Errorf("offered %v: got %q, %v; want %s", offer, got, err, list[0])
				}
			}
		})
	}
}

// TestGroups does the same for the groups of the key exchange. OpenSSL speaks
// the curves; the hybrids with ML-KEM, which it has since 3.5, and the curves
// once more are tried by crypto/tls.
func TestGroups(t *testing.T) {
	openssl := newOpenSSL(t)
	type group struct {
		name   string // OpenSSL's
		id     tls.CurveID
		hybrid bool // TLS 1.3 only
	}
	all := []group{
		{"X25519", tls.X25519, false},
		{"prime256v1", tls.CurveP256, false},
		{"secp384r1", tls.CurveP384, false},
		{"secp521r1", tls.CurveP521, false},
		{"X25519MLKEM768", tls.X25519MLKEM768, true},
		{"SecP256r1MLKEM768", tls.SecP256r1MLKEM768, true},
		{"SecP384r1MLKEM1024", tls.SecP384r1MLKEM1024, true},
	}
	var total atomic.Int64
	for _, c := range []struct {
		name    string
		options []string
		min     tlsVersion
		groups  []string // nil: all
	}{
		{"default", nil, v12, nil},
		{"X25519", []string{"groups: [X25519]"}, v12, []string{"X25519"}},
		{"NIST", []string{"groups: [secp384r1, P-521]"}, v12, []string{"secp384r1", "secp521r1"}},
		{"X25519MLKEM768 too", []string{"groups: [X25519MLKEM768, X25519]"}, v12, []string{"X25519MLKEM768", "X25519"}},
		{"X25519MLKEM768 only", []string{"groups: [X25519MLKEM768]", "min_protocol_version: TLSv1.3"}, v13, []string{"X25519MLKEM768"}},
		{
			"hybrids only",
			[]string{"groups: [SecP256r1MLKEM768, SecP384r1MLKEM1024]", "min_protocol_version: TLSv1.3"},
			v13,
			[]string{"SecP256r1MLKEM768", "SecP384r1MLKEM1024"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			// With an RSA key: below TLS 1.3 the curve of an ECDSA key must be
			// one of the client's groups as well (RFC 8422, section 5.1).
			g := startGate(t, "", c.options, onlyRSA)
			var tries []func()
			add := func(client, name string, v tlsVersion, try func() error) {
				total.Add(1)
				wanted := v >= c.min && (c.groups == nil || slices.Contains(c.groups, name))
				tries = append(tries, func() {
					err := try()
					if (err == nil) != wanted || err != nil && !errors.Is(err, errRefused) {
						t.Errorf("%s, %v with %s: %v; want success %t", client, v, name, err, wanted)
					}
				})
			}
			for _, gr := range all {
				for v := v12; v <= v13; v++ {
					if gr.hybrid && v < v13 {
						continue
					}
					add("Go", gr.name, v, func() error { return goGroup(g, v, gr.id) })
					if !gr.hybrid {
						add("OpenSSL", gr.name, v, func() error {
							_, err := openssl.run(g, v.option(), "-groups", gr.name)
							return err
						})
					}
				}
			}
			inParallel(tries)
		})
	}
	t.Logf("%d handshakes tried", total.Load())
}

// inParallel runs a few at a time; each of them mostly waits.
func inParallel(tries []func()) {
	var wg sync.WaitGroup
	tokens := make(chan struct{}, 4)
	for _, try := range tries {
		tokens <- struct{}{}
		wg.Go(func() {
			defer func() { <-tokens }()
			try()
		})
	}
	wg.Wait()
}

// gateProcess is a running gate that asks for no certificate.
type gateProcess struct {
	address, admin string
	log            string
	caFile         string
	roots          *x509.CertPool
}

// tlsPKI is made once: an RSA key takes its time.
var tlsPKI = sync.OnceValue(func() map[string]*tlstest.Pair {
	ca := tlstest.NewCA("handshake CA")
	return map[string]*tlstest.Pair{
		"ca":    {Chain: []*x509.Certificate{ca.Cert}, Key: ca.Key},
		"ecdsa": ca.Server("localhost", "127.0.0.1"),
		"rsa":   ca.WithKey(tlstest.RSA).Server("localhost", "127.0.0.1"),
	}
})

// startGate starts one with these lines in its section tls and these kinds of
// certificate. Without a backend it has none: a handshake is all that its
// clients want.
func startGate(t *testing.T, backend string, options, keys []string) *gateProcess {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgw-tls-") // the name of a test is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &gateProcess{
		address: freeTestAddress(t), admin: freeTestAddress(t),
		log: filepath.Join(dir, "gate.log"), caFile: filepath.Join(dir, "ca.crt"), roots: x509.NewCertPool(),
	}
	pki := tlsPKI()
	g.roots.AddCert(pki["ca"].Leaf())
	var b strings.Builder
	fmt.Fprintf(&b, "listen: [{address: %q}]\nadmin: {address: %q}\nacl: {allow: [127.0.0.0/8]}\nbackend: {host: %s}\nlog: {level: debug, format: json}\n",
		g.address, g.admin, cmp.Or(backend, dir))
	fmt.Fprintf(&b, "tls:\n  client_cert: none\n  certificates:\n")
	for _, k := range keys {
		if err := pki[k].WriteFiles(filepath.Join(dir, k+".crt"), filepath.Join(dir, k+".key")); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "    - {cert_file: %s.crt, key_file: %[1]s.key}\n", k)
	}
	for _, o := range options {
		fmt.Fprintf(&b, "  %s\n", o)
	}
	config := filepath.Join(dir, "pgwicket.yaml")
	for name, text := range map[string][]byte{config: []byte(b.String()), g.caFile: pki["ca"].CertPEM()} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(g.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("pgwicket", "serve", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(deadline, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		if err := <-ended; err != nil {
			t.Errorf("the gate has ended with %v", err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(g.log)
			t.Logf("its log:\n%s", text)
		}
	})
	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(g.log)
		if bytes.Contains(text, []byte(`"msg":"ready"`)) {
			return g
		}
		if len(ended) > 0 || time.Now().After(end) {
			t.Fatalf("the gate does not start with\n%s", b.String())
		}
	}
}

func freeTestAddress(t *testing.T) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

var (
	doneSeries   = regexp.MustCompile(`(?m)^pgwicket_tls_handshakes_total\{.*\} (\d+)$`)
	failedSeries = regexp.MustCompile(`(?m)^pgwicket_tls_handshake_failures_total\{reason="(\w+)"\} ([1-9]\d*)$`)
)

// compareCounts compares what the gate has counted, and under which reasons. A
// client may know of its refusal before the gate has counted it.
func (g *gateProcess) compareCounts(t *testing.T, want map[string]int) {
	t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		got := make(map[string]int)
		text := g.metrics(t)
		for _, m := range doneSeries.FindAllStringSubmatch(text, -1) {
			n, _ := strconv.Atoi(m[1])
			got[done] += n
		}
		for _, m := range failedSeries.FindAllStringSubmatch(text, -1) {
			got[m[1]], _ = strconv.Atoi(m[2])
		}
		if sum(got) < sum(want) && time.Now().Before(end) {
			continue
		}
		if !maps.Equal(got, want) {
			t.Errorf("the gate has counted %v; want %v", got, want)
		}
		return
	}
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func (g *gateProcess) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + g.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// errRefused says that the handshake has been tried, and why it came to nothing:
// an alert of the gate, or a version of its choice that the client does not have.
// Anything else is a fault of the test.
var errRefused = errors.New("refused")

var refusal = regexp.MustCompile(`SSL alert number|ssl_choose_client_version:unsupported protocol`)

// openSSL is the program, and the names that this build of it knows.
type openSSL struct {
	path  string
	list  []string
	knows map[string]bool
}

func newOpenSSL(t *testing.T) *openSSL {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("no openssl in PATH; install it (apt-get install openssl)")
	}
	// The gate must be offered what the system's openssl.cnf forbids.
	t.Setenv("OPENSSL_CONF", "/dev/null")
	out, err := exec.Command(path, "ciphers", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").Output()
	if err != nil {
		t.Fatal(err)
	}
	o := &openSSL{path: path, list: strings.Split(strings.TrimSpace(string(out)), ":"), knows: make(map[string]bool)}
	for _, name := range o.list {
		o.knows[name] = true
	}
	if !o.knows["ECDHE-RSA-AES128-SHA"] || !o.knows["TLS_AES_128_GCM_SHA256"] {
		t.Fatalf("openssl knows too little: %s", out)
	}
	return o
}

// others are the suites of OpenSSL that are not in the table.
func (o *openSSL) others(v tlsVersion) []string {
	if v == v13 {
		return []string{"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"}
	}
	return slices.DeleteFunc(slices.Clone(o.list), func(name string) bool {
		return slices.ContainsFunc(ciphers, func(c cipher) bool { return c.name == name })
	})
}

// handshake offers just these suites in just that version, and returns what was
// agreed upon.
func (o *openSSL) handshake(g *gateProcess, v tlsVersion, names ...string) (string, error) {
	list := strings.Join(names, ":")
	if v == v13 {
		return o.run(g, v.option(), "-ciphersuites", list)
	}
	return o.run(g, v.option(), "-cipher", list+":@SECLEVEL=0")
}

var agreed = regexp.MustCompile(`(?s)Protocol version: (\S+)\nCiphersuite: (\S+)\n`)

func (o *openSSL) run(g *gateProcess, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	args = append([]string{"s_client", "-starttls", "postgres", "-connect", g.address, "-brief", "-CAfile", g.caFile, "-verify_return_error"}, args...)
	out, err := exec.CommandContext(ctx, o.path, args...).CombinedOutput()
	m := agreed.FindSubmatch(out)
	switch {
	case err == nil && m != nil:
		return string(m[1]) + " " + string(m[2]), nil
	case refusal.Match(out):
		return "", fmt.Errorf("%w: %s", errRefused, bytes.TrimSpace(out))
	default:
		return "", fmt.Errorf("openssl: %w: %s", err, bytes.TrimSpace(out))
	}
}

// goHandshake is for what OpenSSL cannot ask for.
func goHandshake(g *gateProcess, v tlsVersion, s cipher) (string, error) {
	state, err := goClient(g, &tls.Config{MinVersion: v.id(), MaxVersion: v.id(), CipherSuites: []uint16{s.id}})
	if err != nil {
		return "", err
	}
	got := fmt.Sprintf("%#04x", state.CipherSuite)
	if state.CipherSuite == s.id {
		got = s.name
	}
	return fmt.Sprint(tlsVersion(state.Version-tls.VersionTLS10), " ", got), nil
}

func goGroup(g *gateProcess, v tlsVersion, id tls.CurveID) error {
	state, err := goClient(g, &tls.Config{MinVersion: v.id(), MaxVersion: v.id(), CurvePreferences: []tls.CurveID{id}})
	if err == nil && state.CurveID != id {
		return fmt.Errorf("the group became %v", state.CurveID)
	}
	return err
}

// sslRequest asks PostgreSQL for TLS.
var sslRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}

func goClient(g *gateProcess, c *tls.Config) (tls.ConnectionState, error) {
	conn, err := dialGate(g, c)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

// dialGate asks for TLS as libpq does.
func dialGate(g *gateProcess, c *tls.Config) (_ *tls.Conn, err error) {
	raw, err := net.Dial("tcp", g.address)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = raw.Close()
		}
	}()
	_ = raw.SetDeadline(time.Now().Add(deadline))
	var answer [1]byte
	if _, err = raw.Write(sslRequest); err != nil {
		return nil, err
	}
	if _, err = io.ReadFull(raw, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, fmt.Errorf("the answer to SSLRequest is %q", answer)
	}
	c.RootCAs, c.ServerName = g.roots, "localhost"
	conn := tls.Client(raw, c)
	err = conn.Handshake()
	var alert tls.AlertError
	var op *net.OpError
	if errors.As(err, &alert) || errors.As(err, &op) && op.Op == "remote error" ||
		err != nil && strings.Contains(err.Error(), "server selected unsupported protocol version") {
		err = fmt.Errorf("%w: %w", errRefused, err)
	}
	return conn, err
}
