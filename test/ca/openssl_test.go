package ca_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// opensslCA is a CA of openssl ca in the directory of a gate.
type opensslCA struct{ dir string }

// configuration of openssl ca. The sections of lists are for CAs that others run: AWS Private CA publishes partitions, each
// with an issuing distribution point that its certificates name, and AD CS a base list and, beside it, a delta list.
const configuration = `[ca]
default_ca = this
[this]
dir = .
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 10
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = any
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[client]
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
[client0]
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
crlDistributionPoints = URI:http://crl.example/0.crl
[client1]
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
crlDistributionPoints = URI:http://crl.example/1.crl
[adcs]
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
crlDistributionPoints = URI:http://crl.example/CA.crl
freshestCRL = URI:http://crl.example/CA+.crl
[partition0]
issuingDistributionPoint = critical,@point0
[point0]
fullname = URI:http://crl.example/0.crl
[partition1]
issuingDistributionPoint = critical,@point1
[point1]
fullname = URI:http://crl.example/1.crl
[base]
freshestCRL = URI:http://crl.example/CA+.crl
1.3.6.1.4.1.311.21.1 = DER:02:01:00
[delta]
2.5.29.27 = critical,DER:02:02:10:00
`

func newOpenSSLCA(t *testing.T) *opensslCA {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip(err)
	}
	c := &opensslCA{t.TempDir()}
	write(t, c.file("ca.cnf"), []byte(configuration))
	write(t, c.file("index.txt"), nil)
	write(t, c.file("serial"), []byte("1000\n"))
	write(t, c.file("crlnumber"), []byte("1000\n"))
	if err := os.Mkdir(c.file("crls"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.run(t, "openssl req -x509 -config ca.cnf -extensions root -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=CA")
	return c
}

func (c *opensslCA) file(name string) string { return filepath.Join(c.dir, name) }

func (c *opensslCA) run(t *testing.T, command string) {
	t.Helper()
	args := strings.Fields(command)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = c.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// issue makes name.crt and name.key, for the user before the hyphen of the name.
func (c *opensslCA) issue(t *testing.T, name, section string) {
	t.Helper()
	user, _, _ := strings.Cut(name, "-")
	c.run(t, fmt.Sprintf("openssl req -config ca.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s.key -out %[1]s.csr -subj /CN=%s", name, user))
	c.run(t, fmt.Sprintf("openssl ca -batch -notext -config ca.cnf -extensions %s -in %s.csr -out %[2]s.crt", section, name))
}

func (c *opensslCA) revoke(t *testing.T, name string) {
	t.Helper()
	c.run(t, "openssl ca -config ca.cnf -revoke "+name+".crt")
}

// list publishes a list, with the extensions of a section.
func (c *opensslCA) list(t *testing.T, file, section string) {
	t.Helper()
	c.run(t, fmt.Sprintf("openssl ca -config ca.cnf -gencrl -crlexts %s -out %s", section, file))
	c.run(t, fmt.Sprintf("mv %s crls/", file))
}

// Partitions as AWS Private CA and Let's Encrypt publish them complete each other, and each covers the certificates that name
// its point alone.
func TestPartitions(t *testing.T) {
	c := newOpenSSLCA(t)
	c.issue(t, "app-0", "client0")
	c.issue(t, "app-1", "client1")
	c.issue(t, "other-1", "client1")
	c.issue(t, "app-none", "client")
	c.list(t, "0.crl", "partition0")
	g := newGate(t, c.dir, "crl_check: leaf")
	g.admits(t, "app-0")
	g.refuses(t, "app-1", "FATAL")
	g.refuses(t, "app-none", "FATAL")

	c.list(t, "1.crl", "partition1")
	g.wait(t, "the second partition", func() bool { return g.ask(t, "app-1", "select 'in'") == "in" })
	g.admits(t, "other-1")
	live := g.session(t, "app-1")
	c.revoke(t, "app-1")
	c.list(t, "1.crl", "partition1")
	live.wait(t, "the end of the session", func() bool { return strings.Contains(live.output(), "certificate was revoked") })
	g.refuses(t, "app-1", "client certificate was revoked on")
	g.admits(t, "app-0")
	g.admits(t, "other-1")
	g.refuses(t, "app-none", "FATAL")
}

// AD CS publishes a base list and a delta list beside it. The base list is the one that is relied on; what the delta list
// revokes is revoked all the same, and the gate warns of it.
func TestBaseAndDelta(t *testing.T) {
	c := newOpenSSLCA(t)
	c.issue(t, "app", "adcs")
	c.issue(t, "other", "adcs")
	c.list(t, "CA.crl", "base")
	g := newGate(t, c.dir)
	g.admits(t, "app")
	live := g.session(t, "other")
	c.revoke(t, "other")
	c.list(t, "CA+.crl", "delta")
	live.wait(t, "the end of the session", func() bool { return strings.Contains(live.output(), "certificate was revoked") })
	g.wait(t, "a warning of the delta list", func() bool { return strings.Contains(g.output(), "is a delta CRL") })
	g.refuses(t, "other", "client certificate was revoked on")
	g.admits(t, "app")
	c.list(t, "CA.crl", "base")
	g.refuses(t, "other", "client certificate was revoked on")
	g.admits(t, "app")
}

// A delta list without its base list admits nobody.
func TestDeltaAlone(t *testing.T) {
	c := newOpenSSLCA(t)
	c.issue(t, "app", "adcs")
	c.list(t, "CA+.crl", "delta")
	g := newGate(t, c.dir)
	g.refuses(t, "app", "FATAL")
	c.list(t, "CA.crl", "base")
	g.wait(t, "the base list", func() bool { return g.ask(t, "app", "select 'in'") == "in" })
}
