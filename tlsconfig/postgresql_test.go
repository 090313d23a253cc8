package tlsconfig

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	made "pgwicket/internal/tlstest/chains"
)

// unlikePostgreSQL are the cases in which the gate refuses what PostgreSQL admits, besides those that have a reason of
// their own (chains.Case.Stricter): crypto/tls cannot read a certificate that the client sends, so the handshake fails.
const unlikePostgreSQL = "Go cannot read a certificate of the client"

// Every n-th case is asked; with POSTGRESQL_ALL in the environment all are.
const (
	postgreSQLSample     = 4
	postgreSQLListSample = 6
)

// TestPostgreSQL asks a real PostgreSQL, with clientcert=verify-ca, and Server.Verify about the same files. PostgreSQL's
// verdict is what psql sees, or what its alert says where psql cannot use the client's certificate.
func TestPostgreSQL(t *testing.T) {
	if testing.Short() {
		t.Skip("it asks a server about 150 chains")
	}
	p := newPostgreSQL(t)
	all, err := made.All(t.TempDir())
	cases := sampleOf(t, all, err, postgreSQLSample)
	admitted, unread, presented := 0, 0, 0
	for _, c := range cases {
		postgresql := p.ask(t, c)
		gate, readable := p.judge(c)
		switch {
		case !readable:
			unread++
			if gate == nil {
				t.Errorf("%s: %s, and it is admitted", c.Name, unlikePostgreSQL)
			}
		case c.Stricter != "" && gate != nil:
		case postgresql.admits != (gate == nil):
			t.Errorf("%s: PostgreSQL admits: %t (%s); the gate says %v", c.Name, postgresql.admits, postgresql.said, gate)
		}
		if postgresql.admits {
			admitted++
		}
		if postgresql.presented {
			presented++
			t.Logf("%s: not asked with psql: %s", c.Name, postgresql.said)
		}
	}
	t.Logf("%d cases, PostgreSQL admits %d of them; Go cannot read %d; psql cannot show %d", len(cases), admitted, unread, presented)
	if len(cases) < 150 || admitted < len(cases)/4 || presented > len(cases)/4 {
		t.Errorf("%d of %d admitted and %d not shown by psql are too few to tell", admitted, len(cases), presented)
	}
}

// TestPostgreSQLLists asks about revocation lists.
func TestPostgreSQLLists(t *testing.T) {
	if testing.Short() {
		t.Skip("it asks a server about 150 chains")
	}
	p := newPostgreSQL(t)
	all, err := made.Lists(t.TempDir())
	cases := sampleOf(t, all, err, postgreSQLListSample)
	admitted := 0
	for _, c := range cases {
		oracle := p.ask(t, c)
		if oracle.admits {
			admitted++
		}
		gate, _ := p.judge(c)
		compareVerdicts(t, c, oracle, gate)
	}
	t.Logf("%d cases, PostgreSQL admits %d of them", len(cases), admitted)
	if len(cases) < 150 || admitted < len(cases)/5 || admitted > 4*len(cases)/5 {
		t.Errorf("%d of %d are too few to tell", admitted, len(cases))
	}
}

// sampleOf returns the cases that PostgreSQL can be asked about, or every n-th of them. They are the same at each run, however
// fast the machine is.
func sampleOf(t *testing.T, all []made.Case, err error, n int) []made.Case {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(c made.Case) bool {
		return c.Server || c.Partial || c.Level != made.DefaultLevel || c.Key == nil
	})
	slices.SortFunc(all, func(a, b made.Case) int { return strings.Compare(a.Name, b.Name) }) // some are made in no order
	if os.Getenv("POSTGRESQL_ALL") != "" {
		return all
	}
	var sample []made.Case
	for i := 0; i < len(all); i += n {
		sample = append(sample, all[i])
	}
	return sample
}

// postgreSQL is a server whose ssl_ca_file changes with every case.
type postgreSQL struct {
	*pgtest.Server
	dir   string // that its account can read
	psql  string
	site  *site
	cases int
}

func newPostgreSQL(t *testing.T) *postgreSQL {
	t.Helper()
	psql := needPsql(t)
	server := tlstest.NewCA("server").Server("localhost")
	s, err := pgtest.Start(context.Background(), pgtest.Options{
		HBA:      "local all all trust\nhostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n",
		Settings: []string{"ssl=on"},
		Host:     "127.0.0.1",
		Files:    map[string][]byte{"server.crt": server.CertPEM(), "server.key": server.KeyPEM()},
	})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(s.Stop)
	dir, err := os.MkdirTemp(pgtest.TempDir(true), "ssl_ca_file")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &postgreSQL{Server: s, dir: dir, psql: psql, site: newSite(t)}
}

// verdict is PostgreSQL's on a client.
type verdict struct {
	admits    bool
	said      string // by psql, or by PostgreSQL's log
	presented bool   // by present, since psql could not
}

// unasked is what psql says if it could not use its own certificate and key: some certificates have a key that
// nobody holds. The last one is PostgreSQL's message if psql had no signature algorithm for the key and sent no certificate.
var unasked = regexp.MustCompile("could not read certificate file|could not load private key file|" +
	"certificate does not match private key file|connection requires a valid client certificate")

// ask returns what PostgreSQL says about the client.
func (p *postgreSQL) ask(t *testing.T, c made.Case) verdict {
	t.Helper()
	files := t.TempDir()
	if err := c.Write(files); err != nil {
		t.Fatal(err)
	}
	if !p.load(t, files) {
		return verdict{said: "it cannot load ssl_ca_file or ssl_crl_file"}
	}
	chain := filepath.Join(files, "chain.pem")
	pem := bytes.Join([][]byte{must(os.ReadFile(filepath.Join(files, "leaf.pem"))), must(os.ReadFile(filepath.Join(files, "sent.pem")))}, nil)
	if err := os.WriteFile(chain, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(p.psql, "-XAtq", "-c", "select 1", fmt.Sprintf(
		"host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=require gssencmode=disable sslcert=%s sslkey=%s connect_timeout=60",
		p.Port, pgtest.Superuser, chain, filepath.Join(files, "leaf.key")))
	cmd.Env = pgtest.Environ("HOME="+files, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	v := verdict{admits: err == nil, said: strings.TrimSpace(string(out))}
	if unasked.Match(out) {
		v.admits, v.presented = p.present(t, c), true
	}
	return v
}

// file is one that PostgreSQL has loaded.
func (p *postgreSQL) file(kind string) string {
	return filepath.Join(p.dir, fmt.Sprintf("%d.%s", p.cases, kind))
}

// load makes PostgreSQL load the files of a case and returns whether it can.
func (p *postgreSQL) load(t *testing.T, files string) bool {
	t.Helper()
	p.cases++
	ca, crl := p.file("pem"), ""
	trusted := must(os.ReadFile(filepath.Join(files, "ca.pem")))
	if !bytes.Contains(trusted, []byte("BEGIN CERTIFICATE")) {
		// SSL_load_client_CA_file, with which PostgreSQL reads the names that it sends to clients, skips TRUSTED
		// CERTIFICATE blocks, and PostgreSQL refuses a file in which it finds none else.
		trusted = append(trusted, p.site.ca.CertPEM()...)
	}
	if err := os.WriteFile(ca, trusted, 0o644); err != nil {
		t.Fatal(err)
	}
	if lists, err := os.ReadFile(filepath.Join(files, "crl.pem")); err == nil {
		crl = p.file("crl")
		if err := os.WriteFile(crl, lists, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	statements := fmt.Sprintf("alter system set ssl_crl_file = '%s';\nalter system set ssl_ca_file = '%s';\nselect from pg_reload_conf();\n\\connect\nshow ssl_ca_file", crl, ca)
	for deadline := time.Now().Add(time.Minute); ; { // a backend that is forked later has the same SSL context
		now, err := p.SQL(statements)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("ssl_ca_file is %q: %v", now, err)
		}
		if strings.HasSuffix(now, ca) {
			break
		}
		statements = "show ssl_ca_file"
	}
	log := p.Log()
	if crl != "" && strings.Contains(log, fmt.Sprintf("could not load SSL certificate revocation list file %q", crl)) {
		return false
	}
	return !strings.Contains(log, fmt.Sprintf("could not load root certificate file %q", ca))
}

// illegalParameter is the alert of OpenSSL for a CertificateVerify message whose algorithm is not one of the certificate's
// key. It comes after the certificate has been judged, and no verdict on a certificate has this alert (ssl_x509err2alert in
// OpenSSL's ssl/statem/statem_lib.c).
const illegalParameter = "tls: illegal parameter"

// present shows PostgreSQL the client's certificates with an Ed25519 key that is not theirs, and returns whether PostgreSQL
// admits them. The handshake fails either way: the alert tells which of them it has refused.
func (p *postgreSQL) present(t *testing.T, c made.Case) bool {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shown := tls.Certificate{Certificate: append([][]byte{c.Leaf}, c.Sent...), PrivateKey: key}
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var answer [1]byte
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil { // SSLRequest
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != 'S' {
		t.Fatalf("SSLRequest is answered %q, %v", answer, err)
	}
	client := tls.Client(conn, &tls.Config{
		InsecureSkipVerify:   true,
		MinVersion:           tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil },
	})
	_, err = client.Read(answer[:])
	var alert *net.OpError
	if !errors.As(err, &alert) || alert.Op != "remote error" {
		t.Fatalf("%s: PostgreSQL sends no alert: %v", c.Name, err)
	}
	return alert.Err.Error() == illegalParameter
}

// judge is the gate's verdict on the files of the last question.
func (p *postgreSQL) judge(c made.Case) (err error, readable bool) {
	o := p.site.options()
	o.CAFile, o.CRLFile = p.file("pem"), ""
	if c.Lists != nil {
		o.CRLFile = p.file("crl")
	}
	return judgeCase(c, o)
}
