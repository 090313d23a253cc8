package tlsconfig

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/tlstest"
	made "pgwicket/internal/tlstest/chains"
)

// postgresqlTime bounds TestPostgreSQL, which asks as many of the cases as fit into it.
const postgresqlTime = 35 * time.Second

// unlikePostgreSQL are the cases in which the gate refuses what PostgreSQL admits, besides those that have a reason of
// their own (chains.Case.Stricter): crypto/tls cannot read a certificate that the client sends, so the handshake fails.
const unlikePostgreSQL = "Go cannot read a certificate of the client"

// TestPostgreSQL asks a real PostgreSQL, with clientcert=verify-ca, and Server.Verify about the same files. PostgreSQL's
// verdict is what psql sees.
func TestPostgreSQL(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes most of a minute")
	}
	p := newPostgreSQL(t)
	cases, err := made.All(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(postgresqlTime)
	asked, admitted, unread := 0, 0, 0
	for i := range cases {
		c := cases[i*37%len(cases)] // of every kind, even if time is up before the end
		if c.Server || c.Partial || c.Level != made.DefaultLevel || c.Key == nil ||
			c.Trusted != nil { // PostgreSQL loads no ssl_ca_file of TRUSTED CERTIFICATE blocks
			continue
		}
		if time.Now().After(until) {
			break
		}
		asked++
		postgresql, said := p.ask(t, c)
		gate, readable := p.judge(t, c)
		switch {
		case !readable:
			unread++
			if gate == nil {
				t.Errorf("%s: %s, and it is admitted", c.Name, unlikePostgreSQL)
			}
		case c.Stricter != "" && gate != nil:
		case postgresql != (gate == nil):
			t.Errorf("%s: PostgreSQL admits: %t (%s); the gate says %v", c.Name, postgresql, said, gate)
		}
		if postgresql {
			admitted++
		}
	}
	t.Logf("%d cases, PostgreSQL admits %d of them; Go cannot read %d", asked, admitted, unread)
	if asked < 10 || admitted == 0 || admitted == asked {
		t.Errorf("%d of %d are too few to tell", admitted, asked)
	}
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

// ask returns whether PostgreSQL admits the client, and what psql says.
func (p *postgreSQL) ask(t *testing.T, c made.Case) (admits bool, said string) {
	t.Helper()
	p.cases++
	files := t.TempDir()
	if err := c.Write(files); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(p.dir, fmt.Sprintf("%d.pem", p.cases))
	if err := os.WriteFile(ca, must(os.ReadFile(filepath.Join(files, "ca.pem"))), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.SQL("alter system set ssl_ca_file = '" + ca + "'"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.SQL("select pg_reload_conf()"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; { // a backend that is forked later has the same SSL context
		now, err := p.SQL("show ssl_ca_file")
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("ssl_ca_file is %q: %v", now, err)
		}
		if now == ca {
			break
		}
	}
	if strings.Contains(p.Log(), fmt.Sprintf("could not load root certificate file %q", ca)) {
		return false, "it cannot load ssl_ca_file"
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
	return err == nil, strings.TrimSpace(string(out))
}

// judge loads the CA file as the gate does and judges the client; readable is false if crypto/tls could not have read what
// the client sends.
func (p *postgreSQL) judge(t *testing.T, c made.Case) (err error, readable bool) {
	t.Helper()
	o := p.site.options()
	o.CAFile, o.CRLFile = filepath.Join(p.dir, fmt.Sprintf("%d.pem", p.cases)), ""
	s, problems := Load(o, nil, nil, time.Now())
	if s == nil {
		return fmt.Errorf("ca_file cannot be loaded: %v", problems), true
	}
	state := s.Finished()
	for _, der := range append([][]byte{c.Leaf}, c.Sent...) {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			return err, false
		}
		state.PeerCertificates = append(state.PeerCertificates, x)
	}
	_, err = s.Verify(state, time.Now())
	return err, true
}
