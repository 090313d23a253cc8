package tlsconfig

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pgwicket/internal/certs"
	made "pgwicket/internal/tlstest/chains"
)

// TestListsAsOpenSSL asks OpenSSL and the gate about the same certificates and revocation lists. Where they differ, the case
// says why; docs/security.md has the reasons.
func TestListsAsOpenSSL(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	dir := t.TempDir()
	cases, err := made.Lists(filepath.Join(dir, "made"))
	if err != nil {
		t.Fatal(err)
	}
	site := newSite(t)
	admitted := 0
	for i, c := range cases {
		files := filepath.Join(dir, strconv.Itoa(i))
		if err := c.Write(files); err != nil {
			t.Fatal(err)
		}
		admits, said := opensslLists(t, files, c)
		if admits {
			admitted++
		}
		o := site.options()
		o.CAFile, o.CRLFile, o.PartialChain = filepath.Join(files, "ca.pem"), filepath.Join(files, "crl.pem"), c.Partial
		gate, _ := judgeCase(c, o)
		compareVerdicts(t, c, verdict{admits: admits, said: said}, gate)
	}
	t.Logf("%d cases, OpenSSL admits %d of them", len(cases), admitted)
	if admitted < 200 || len(cases)-admitted < 200 {
		t.Errorf("%d of %d are too few to tell", admitted, len(cases))
	}
}

// compareVerdicts fails if the gate is not what the case says it is.
func compareVerdicts(t *testing.T, c made.Case, oracle verdict, gate error) {
	t.Helper()
	same := oracle.admits == (gate == nil)
	switch {
	case same && c.Stricter == "" && c.Laxer == "":
	case c.Stricter != "" && oracle.admits && gate != nil:
	case c.Laxer != "" && !oracle.admits && gate == nil:
	case same:
		t.Errorf("%s: the difference is gone: admitted: %t (%s), %v", c.Name, oracle.admits, oracle.said, gate)
	default:
		t.Errorf("%s: the oracle admits: %t (%s); the gate says %v", c.Name, oracle.admits, oracle.said, gate)
	}
}

// opensslLists is "openssl verify" with the flags of PostgreSQL.
func opensslLists(t *testing.T, files string, c made.Case) (admits bool, said string) {
	t.Helper()
	file := func(name string) string { return filepath.Join(files, name) }
	args := []string{
		"verify", "-purpose", "sslclient", "-auth_level", strconv.Itoa(c.Level), "-no-CApath", "-no-CAstore",
		"-CAfile", file("ca.pem"), "-crl_check_all", "-CRLfile", file("crl.pem"),
	}
	if len(c.Sent) > 0 {
		args = append(args, "-untrusted", file("sent.pem"))
	}
	if c.Partial {
		args = append(args, "-partial_chain")
	}
	if !c.At.IsZero() {
		args = append(args, "-attime", strconv.FormatInt(c.At.Unix(), 10))
	}
	out, err := exec.Command("openssl", append(args, file("leaf.pem"))...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err == nil, string(out)
}

// judgeCase loads the options as the gate does at its start and judges the client; readable is false if crypto/tls could not
// have read what the client sends.
func judgeCase(c made.Case, o Options) (err error, readable bool) {
	at := c.At
	if at.IsZero() {
		at = time.Now()
	}
	s, problems := Load(o, nil, nil, at)
	if s == nil {
		return fmt.Errorf("the files cannot be loaded: %v", problems), true
	}
	state := s.Finished()
	for _, der := range append([][]byte{c.Leaf}, c.Sent...) {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			return err, false
		}
		state.PeerCertificates = append(state.PeerCertificates, x)
	}
	_, err = s.Verify(state, certs.DER(state.PeerCertificates), at)
	return err, true
}
