package config

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"pgwicket/internal/tlstest"
)

// site is a directory with the files that a configuration names.
type site struct {
	dir string
	ca  *tlstest.CA
}

// newSite makes the files that testdata and the tests refer to:
//
//	server.crt, .key    a good pair; other.key is another's, open.key everybody's to read
//	chained.crt, .key   a good pair with the CA behind it; chained.ocsp is the response
//	expired.crt, .key   a pair that expired on 2021-01-01
//	ca.crt, ca.crl      the CA of the clients and its list, which is in crls/ too
//	intermediate.crt    a CA that is not a root
//	stranger.crl        a list of a CA of the same name
//	stale.crl           a list that was to be renewed on 2021-01-01
//	words.txt, empty    no certificate and no list
//	run, open, file     .s.PGSQL.5432: a socket of ours alone, one that is open to all, a plain file
func newSite(t testing.TB) *site {
	t.Helper()
	// Not t.TempDir, whose long names leave too little of the 107 bytes that the path of a socket may have.
	dir, err := os.MkdirTemp("", "pgw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{dir, tlstest.NewCA("root")}

	past := time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	old := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = past.AddDate(-1, 0, 0), past }
	server := s.ca.Server("db.example")
	s.pair(t, "server", server)
	s.chained(t, "chained")
	s.pair(t, "other", s.ca.Server("db.example"))
	s.pair(t, "expired", s.ca.Client("db.example", old))
	s.write(t, "open.key", server.KeyPEM(), 0o644)
	s.write(t, "ca.crt", s.ca.CertPEM(), 0o644)
	s.write(t, "ca.crl", s.ca.CRL(nil), 0o644)
	s.write(t, "crls/ca.crl", s.ca.CRL(nil), 0o644)
	s.write(t, "intermediate.crt", s.ca.Intermediate("intermediate").CertPEM(), 0o644)
	s.write(t, "stranger.crl", tlstest.NewCA("root").CRL(nil), 0o644)
	s.write(t, "stale.crl", s.ca.CRL(func(l *tlstest.CRL) { l.ThisUpdate, l.NextUpdate = past.AddDate(-1, 0, 0), past }), 0o644)
	s.write(t, "words.txt", []byte("no certificate\n"), 0o644)
	s.write(t, "empty", nil, 0o644)
	s.write(t, "groups.password", []byte("correct horse\n"), 0o600)
	s.write(t, "file/.s.PGSQL.5432", nil, 0o644)
	s.socket(t, "run", 0o700, 0o700)
	s.socket(t, "open", 0o755, 0o777)
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// write makes a file with exactly that mode, whatever the umask.
func (s *site) write(t testing.TB, name string, data []byte, mode os.FileMode) string {
	t.Helper()
	path := s.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *site) pair(t testing.TB, name string, p *tlstest.Pair) {
	t.Helper()
	if err := p.WriteFiles(s.path(name+".crt"), s.path(name+".key")); err != nil {
		t.Fatal(err)
	}
}

// chained makes a pair with the certificate of the CA, and what the CA's responder says of it.
func (s *site) chained(t testing.TB, name string) {
	t.Helper()
	p := s.ca.Server("db.example")
	p.Chain = append(p.Chain, s.ca.Cert)
	s.pair(t, name, p)
	now := time.Now()
	der, err := ocsp.CreateResponse(s.ca.Cert, s.ca.Cert, ocsp.Response{
		SerialNumber: p.Leaf().SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour),
	}, s.ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, name+".ocsp", der, 0o644)
}

func (s *site) socket(t testing.TB, dir string, dirMode, mode os.FileMode) {
	t.Helper()
	path := s.path(dir + "/.s.PGSQL.5432")
	if err := os.Mkdir(s.path(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path(dir), dirMode); err != nil {
		t.Fatal(err)
	}
}
