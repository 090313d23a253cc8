package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgwicket/internal/pgtest"
	"pgwicket/internal/pki"
)

// startTLS starts a PostgreSQL with the files of a CA and of a server's certificate.
func startTLS(t *testing.T, c *pki.CA, db *pki.Issued, sql string) *pgtest.Server {
	t.Helper()
	files := map[string][]byte{}
	for name, path := range map[string]string{"server.crt": db.CertFile, "server.key": db.KeyFile, "root.crt": c.TrustFile(), "root.crl": c.ListFile()} {
		files[name] = []byte(read(t, path))
	}
	s, err := pgtest.Start(context.Background(), pgtest.Options{
		Host: "127.0.0.1", Files: files, HBA: "local all all trust\nhostssl all all 127.0.0.1/32 cert",
		Settings: []string{"ssl=on", "ssl_ca_file=root.crt", "ssl_crl_file=root.crl"}, SQL: sql,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// PostgreSQL's own TLS takes the same files: certificate, key, CA and lists.
func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	c := open(t, initCA(t, nil))
	db, app := server(t, c, "localhost", "127.0.0.1"), client(t, c, "app")
	stolen := client(t, c, "stolen")
	if _, err := c.Revoke("stolen", "", 0); err != nil {
		t.Fatal(err)
	}
	s := startTLS(t, c, db, "create role app login; create role stolen login")
	psql, err := pgtest.Program("psql")
	if err != nil {
		t.Fatal(err)
	}
	connect := func(name, cert, key string) (string, error) {
		cmd := exec.Command(psql, fmt.Sprintf("host=localhost hostaddr=127.0.0.1 port=%d user=%s dbname=postgres sslmode=verify-full sslrootcert=%s sslcrl=%s sslcert=%s sslkey=%s",
			s.Port, name, c.TrustFile(), c.ListFile(), cert, key), "-Atc", "select client_dn from pg_stat_ssl where pid = pg_backend_pid()")
		cmd.Env = pgtest.Environ()
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := connect("app", app.CertFile, app.KeyFile); err != nil || out != "/CN=app" {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := connect("stolen", stolen.CertFile, stolen.KeyFile); err == nil || !strings.Contains(out, "revoked") {
		t.Errorf("a revoked certificate: %s, %v", out, err)
	}
}

// crypto/x509 accepts the chains, with the names.
func TestGo(t *testing.T) {
	t.Parallel()
	c := open(t, initCA(t, nil))
	db, app := server(t, c, "db.example.com", "10.0.0.5"), client(t, c, "app")
	root, err := os.ReadFile(filepath.Join(filepath.Dir(c.TrustFile()), "root", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	verify := func(cert, key, name string, usage x509.ExtKeyUsage) {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		intermediate, err := x509.ParseCertificate(pair.Certificate[1])
		if err != nil {
			t.Fatal(err)
		}
		above := x509.NewCertPool()
		above.AddCert(intermediate)
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: above, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("%s as %s: %v", cert, name, err)
		}
	}
	verify(db.CertFile, db.KeyFile, "db.example.com", x509.ExtKeyUsageServerAuth)
	verify(db.CertFile, db.KeyFile, "10.0.0.5", x509.ExtKeyUsageServerAuth)
	verify(app.CertFile, app.KeyFile, "", x509.ExtKeyUsageClientAuth)
}

// Java and NSS read the lists, and NSS refuses what they name.
func TestListsElsewhere(t *testing.T) {
	t.Parallel()
	c := open(t, initCA(t, nil))
	app := client(t, c, "app")
	if _, err := c.Revoke("app", "keyCompromise", 0); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(c.TrustFile())
	t.Run("keytool", func(t *testing.T) {
		out := must(t, dir, "keytool -printcrl -file crl.pem -v")
		if !strings.Contains(strings.ToUpper(strings.ReplaceAll(out, ":", "")), app.Serial) {
			t.Error(out)
		}
	})
	t.Run("NSS", func(t *testing.T) {
		nss := t.TempDir()
		must(t, dir, "certutil -N -d sql:%s --empty-password", nss)
		must(t, dir, "certutil -A -d sql:%s -n root -t CT,, -i root/ca.crt", nss)
		must(t, dir, "certutil -A -d sql:%s -n intermediate -t ,, -i ca.crt", nss)
		must(t, dir, "certutil -A -d sql:%s -n app -t ,, -i %s", nss, app.CertFile)
		must(t, dir, "certutil -V -d sql:%s -n app -u C -e", nss)
		must(t, dir, "openssl crl -in crl.pem -outform DER -out crl.der")
		must(t, dir, "crlutil -I -i crl.der -d sql:%s", nss)
		if out, err := command(t, dir, "certutil -V -d sql:%s -n app -u C -e", nss); err == nil || !strings.Contains(strings.ToLower(out), "revoked") {
			t.Errorf("NSS says %s, %v", out, err)
		}
	})
}
