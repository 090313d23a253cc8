package tlsconfig

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// opensslCA is a CA in files, for "openssl ca".
type opensslCA struct{ cert, key string }

func newOpenSSLCA(t *testing.T, ca *tlstest.CA) opensslCA {
	t.Helper()
	dir := t.TempDir()
	c := opensslCA{filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")}
	pair := tlstest.Pair{Chain: []*x509.Certificate{ca.Cert}, Key: ca.Key}
	if err := pair.WriteFiles(c.cert, c.key); err != nil {
		t.Fatal(err)
	}
	return c
}

// opensslCRL is a list for "openssl ca -gencrl" to write.
type opensslCRL struct {
	revoke     []*x509.Certificate
	reason     string // for -crl_reason
	extensions string // the crl_extensions section and what it refers to; without one the list has version 1
	args       string // more arguments of -gencrl
}

func (c opensslCA) write(t *testing.T, l opensslCRL) []byte {
	t.Helper()
	dir := t.TempDir()
	config := fmt.Sprintf("[ca]\ndefault_ca = this\n[this]\ndatabase = %s/index.txt\ndefault_md = sha256\ndefault_crl_days = 30\n", dir)
	if l.extensions != "" {
		config += fmt.Sprintf("crlnumber = %s/number\ncrl_extensions = crl\n[crl]\n%s\n", dir, l.extensions)
	}
	for name, content := range map[string]string{"ca.cnf": config, "index.txt": "", "number": "2A\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := []string{"ca", "-config", filepath.Join(dir, "ca.cnf"), "-cert", c.cert, "-keyfile", c.key}
	for i, r := range l.revoke {
		file := filepath.Join(dir, fmt.Sprint(i, ".crt"))
		if err := os.WriteFile(file, tlstest.PEM(r), 0o600); err != nil {
			t.Fatal(err)
		}
		args := slices.Concat(base, []string{"-revoke", file})
		if l.reason != "" {
			args = append(args, "-crl_reason", l.reason)
		}
		openssl(t, nil, args...)
	}
	return openssl(t, nil, slices.Concat(base, []string{"-gencrl"}, strings.Fields(l.args))...)
}

// opensslVerify reports whether OpenSSL accepts a client with the flags that PostgreSQL sets.
func opensslVerify(t *testing.T, ca, lists []byte, peer []*x509.Certificate, args ...string) (ok bool, why string) {
	t.Helper()
	dir := t.TempDir()
	path := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	args = append([]string{
		"verify", "-purpose", "sslclient", "-no-CApath", "-no-CAstore",
		"-CAfile", path("ca", ca), "-untrusted", path("untrusted", tlstest.PEM(peer...)),
	}, args...)
	if lists != nil {
		args = append(args, "-crl_check_all", "-CRLfile", path("crl", lists))
	}
	out, err := exec.Command("openssl", append(args, path("leaf", tlstest.PEM(peer[0])))...).CombinedOutput()
	return err == nil, string(out)
}

func needOpenSSL(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not on PATH")
	}
}

// The lists are made by OpenSSL, and its verdicts must be the same: a client that it refuses is refused here too, or the list
// is refused when it is loaded.
func TestCRLsOfOpenSSL(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	pki := newPKI()
	mallory := pki.inter.Client("mallory")
	root, inter := newOpenSSLCA(t, pki.root), newOpenSSLCA(t, pki.inter)
	impostor := newOpenSSLCA(t, tlstest.NewCA("root"))
	const v2 = "authorityKeyIdentifier = keyid\n"
	const past = "-crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z"
	const future = "-crl_lastupdate 20990101000000Z -crl_nextupdate 20990201000000Z"

	write := func(ca opensslCA, extensions, args string, revoke ...*x509.Certificate) []byte {
		return ca.write(t, opensslCRL{revoke: revoke, extensions: extensions, args: args})
	}
	of := func(extensions string) []byte { return write(inter, v2+extensions, "", mallory.Leaf()) }
	because := func(reason string) []byte {
		return inter.write(t, opensslCRL{revoke: []*x509.Certificate{mallory.Leaf()}, reason: reason})
	}
	bad := mallory.Leaf()
	rootList, interList := write(root, "", ""), write(inter, "", "", bad)

	for _, c := range []struct {
		name         string
		lists        [][]byte
		good, listed bool
		unlike       string // why OpenSSL differs for the good or the listed one; documented only, not compared
	}{
		{"version 1", list(rootList, interList), true, false, ""},
		{"version 2", list(write(root, v2, ""), of("")), true, false, ""},
		{"with reasons, so version 2", list(rootList, because("keyCompromise")), true, false, ""},
		{"issuing CA only", list(interList), false, false, ""},
		{"root only", list(rootList), false, false, ""},
		{"issuing CA past nextUpdate", list(rootList, write(inter, "", past, bad)), false, false, ""},
		{"issuing CA not yet valid", list(rootList, write(inter, "", future, bad)), false, false, ""},
		{"root past nextUpdate", list(write(root, "", past), interList), false, false, ""},
		{"expired and fresh", list(rootList, write(inter, "", past, bad), interList), true, false, ""},
		{"expired that revokes and fresh that does not", list(rootList, write(inter, "", past, bad), write(inter, "", "")), true, true, ""},
		{"two valid", list(rootList, write(inter, "", ""), interList), true, false, "OpenSSL takes one of the two"},
		{"root's by another key", list(write(impostor, "", ""), interList), false, false, ""},
		{"delta alone", list(rootList, of("2.5.29.27 = critical,DER:020101")), false, false, "OpenSSL takes a delta that has a number for a complete list"},
		{"base and newer delta", list(rootList, write(inter, v2, "-crl_lastupdate 20200101000000Z -crl_nextupdate 20990101000000Z"), of("2.5.29.27 = critical,DER:020101")), true, false, ""},
		{"only user certificates", list(rootList, of("issuingDistributionPoint = critical,@p\n[p]\nonlyuser = TRUE")), true, false, ""},
		{"only CA certificates", list(rootList, of("issuingDistributionPoint = critical,@p\n[p]\nonlyCA = TRUE")), false, false, ""},
		{"only CA certificates, of the root", list(write(root, v2+"issuingDistributionPoint = critical,@p\n[p]\nonlyCA = TRUE", ""), interList), true, false, ""},
		{"only user certificates, of the root", list(write(root, v2+"issuingDistributionPoint = critical,@p\n[p]\nonlyuser = TRUE", ""), interList), false, false, ""},
		{"only attribute certificates", list(rootList, of("issuingDistributionPoint = critical,@p\n[p]\nonlyAA = TRUE")), false, false, ""},
		{"indirect", list(rootList, of("issuingDistributionPoint = critical,@p\n[p]\nindirectCRL = TRUE")), false, false, ""},
		{"only some reasons", list(rootList, of("issuingDistributionPoint = critical,@p\n[p]\nonlysomereasons = keyCompromise")), false, false, ""},
		{"one part of several", list(rootList, of("issuingDistributionPoint = critical,@p\n[p]\nfullname = URI:http://example/1.crl")), false, false, ""},
		{"unknown critical extension", list(rootList, of("1.3.6.1.4.1.99999.1 = critical,DER:0500")), false, false, ""},
		{"unknown extension", list(rootList, of("1.3.6.1.4.1.99999.1 = DER:0500")), true, false, ""},
		{"removeFromCRL", list(rootList, because("removeFromCRL")), true, true, ""},
		{"certificateHold", list(rootList, because("certificateHold")), true, false, ""},
		{"revoked intermediate", list(write(root, "", "", pki.inter.Cert), interList), false, false, ""},
		{"nothing revoked", list(rootList, write(inter, "", "")), true, true, ""},
		{"SHA-512", list(rootList, write(inter, "", "-md sha512", bad)), true, false, ""},
		{"SHA-1", list(rootList, write(inter, "", "-md sha1", bad)), true, false, ""},
		{"none", list(), false, false, ""},
	} {
		lists := bytes.Join(c.lists, nil)
		for _, who := range []struct {
			peer []*x509.Certificate
			want bool
		}{{pki.alice.Chain, c.good}, {mallory.Chain, c.listed}} {
			name := fmt.Sprintf("%s: %s", c.name, who.peer[0].Subject.CommonName)
			if c.unlike == "" {
				if ok, why := opensslVerify(t, tlstest.PEM(pki.certs()...), lists, who.peer); ok != who.want {
					t.Errorf("%s: OpenSSL says %t, want %t\n%s", name, ok, who.want, why)
				}
			}
			set, problems := loadList(t, pki.certs(), lists)
			v := newVerifier(ClientCertRequire, pki.certs(), false, set)
			if got := !hasError(problems) && v.check(who.peer, time.Now()) == nil; got != who.want {
				t.Errorf("%s: got %t, want %t; %v, %v", name, got, who.want, problems, v.check(who.peer, time.Now()))
			}
		}
	}
}

// Signatures by OpenSSL, with keys other than P-256 and with RSA-PSS.
func TestCRLSignaturesOfOpenSSL(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	root := tlstest.NewCA("root")
	const pss = "-sigopt rsa_padding_mode:pss "
	for _, c := range []struct {
		kind tlstest.KeyKind
		args string
		want string // part of the problem; empty: none
	}{
		{tlstest.ECDSA, "-md sha384", ""},
		{tlstest.RSA, "", ""},
		{tlstest.RSA, "-md sha384", ""},
		{tlstest.RSA, "-md md5", "RSA with MD5, which cannot be checked"},
		{tlstest.RSA, pss + "-sigopt rsa_pss_saltlen:digest", ""},
		{tlstest.RSA, pss + "-sigopt rsa_pss_saltlen:20", ""}, // the default, so not written
		{tlstest.RSA, pss + "-sigopt rsa_pss_saltlen:48", ""},
		{tlstest.RSA, pss + "-sigopt rsa_pss_saltlen:digest -md sha1", "which can be forged"},
		{tlstest.RSA, pss + "-sigopt rsa_pss_saltlen:digest -sigopt rsa_mgf1_md:sha512", ""},
		{tlstest.Ed25519, "-md null", ""},
	} {
		ca := root.WithKey(c.kind).Intermediate("ca")
		_, problems := loadList(t, []*x509.Certificate{ca.Cert}, newOpenSSLCA(t, ca).write(t, opensslCRL{args: c.args}))
		if c.want == "" {
			checkTexts(t, c.args, problems)
		} else {
			checkTexts(t, c.args, problems, c.want)
		}
	}
}

// The purposes, and which certificates may end a chain.
func TestVerifyLikeOpenSSL(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	root := tlstest.NewCA("root")
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	extended := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	type edits []func(*x509.Certificate)
	for _, c := range []struct {
		name     string
		ca, leaf edits
		want     bool
	}{
		{"usual", nil, nil, true},
		{"leaf: no usages", nil, edits{usage(0), extended()}, true},
		{"leaf: any only", nil, edits{extended(x509.ExtKeyUsageAny)}, false},
		{"leaf: any and clientAuth", nil, edits{extended(x509.ExtKeyUsageAny, x509.ExtKeyUsageClientAuth)}, true},
		{"leaf: serverAuth", nil, edits{extended(x509.ExtKeyUsageServerAuth)}, false},
		{"leaf: codeSigning and an unknown one", nil, edits{extended(x509.ExtKeyUsageCodeSigning)}, false},
		{"leaf: keyAgreement", nil, edits{usage(x509.KeyUsageKeyAgreement)}, true},
		{"leaf: keyEncipherment", nil, edits{usage(x509.KeyUsageKeyEncipherment)}, false},
		{"leaf: a CA", nil, edits{func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }}, true},
		{"leaf: unknown critical extension", nil, edits{func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{tlstest.Extension(unknownExt, true, 1)}
		}}, false},
		{"CA: any only", edits{extended(x509.ExtKeyUsageAny)}, nil, false},
		{"CA: serverAuth", edits{extended(x509.ExtKeyUsageServerAuth)}, nil, false},
		{"CA: clientAuth", edits{extended(x509.ExtKeyUsageClientAuth)}, nil, true},
		{"CA: no keyCertSign", edits{usage(x509.KeyUsageCRLSign)}, nil, false},
		{"CA: no CA", edits{func(c *x509.Certificate) { c.IsCA = false }}, nil, false},
		{"CA: expired", edits{func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }}, nil, false},
	} {
		inter := root.Intermediate("intermediate", c.ca...)
		peer := inter.Client("alice", c.leaf...).Chain
		for _, how := range []struct {
			file    []*x509.Certificate
			partial bool
			anchor  bool // whether a chain may end there
		}{
			{[]*x509.Certificate{root.Cert}, false, true},
			{[]*x509.Certificate{root.Cert, inter.Cert}, false, true},
			{[]*x509.Certificate{inter.Cert}, false, false},
			{[]*x509.Certificate{inter.Cert}, true, true},
		} {
			var args []string
			if how.partial {
				args = []string{"-partial_chain"}
			}
			want := c.want && how.anchor
			name := fmt.Sprintf("%s, %d in the file, partial %t", c.name, len(how.file), how.partial)
			if ok, why := opensslVerify(t, tlstest.PEM(how.file...), nil, peer, args...); ok != want {
				t.Errorf("%s: OpenSSL says %t, want %t\n%s", name, ok, want, why)
			}
			v := newVerifier(ClientCertRequire, how.file, how.partial, nil)
			if err := v.check(peer, time.Now()); (err == nil) != want {
				t.Errorf("%s: %v, want %t", name, err, want)
			}
		}
	}
}

// Lists in parts, as step-ca, Let's Encrypt and AWS Private CA publish them: a part is for the certificates that name its
// distribution point. OpenSSL is the oracle, as above.
func TestPartitionsAsOpenSSL(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	pki := newPKI()
	root, inter := newOpenSSLCA(t, pki.root), newOpenSSLCA(t, pki.inter)
	rootList := root.write(t, opensslCRL{})
	at := func(points ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.CRLDistributionPoints = points }
	}
	const one, two = "http://ca.example/1.crl", "http://ca.example/2.crl"
	inOne, inTwo, inBoth, nowhere := pki.inter.Client("one", at(one)), pki.inter.Client("two", at(two)), pki.inter.Client("both", at(two, one)), pki.inter.Client("nowhere")
	part := func(fields string, revoke ...*tlstest.Pair) []byte {
		var list []*x509.Certificate
		for _, p := range revoke {
			list = append(list, p.Leaf())
		}
		extensions := "authorityKeyIdentifier = keyid\n"
		if fields != "" {
			extensions += "issuingDistributionPoint = critical,@p\n[p]\n" + fields
		}
		return inter.write(t, opensslCRL{revoke: list, extensions: extensions})
	}
	for _, c := range []struct {
		name   string
		lists  [][]byte
		admits []*tlstest.Pair // the others are refused
	}{
		{"one part", list(rootList, part("fullname = URI:"+one)), []*tlstest.Pair{inOne, inBoth}},
		{"one part that revokes", list(rootList, part("fullname = URI:"+one, inOne)), []*tlstest.Pair{inBoth}},
		{"both parts", list(rootList, part("fullname = URI:"+one), part("fullname = URI:"+two)), []*tlstest.Pair{inOne, inTwo, inBoth}},
		{"both parts, the second revokes", list(rootList, part("fullname = URI:"+one), part("fullname = URI:"+two, inTwo)), []*tlstest.Pair{inOne, inBoth}},
		{"a part and a complete list", list(rootList, part("fullname = URI:"+one), part("")), []*tlstest.Pair{inOne, inTwo, inBoth, nowhere}},
		{"a part with two names", list(rootList, part("fullname = URI:"+two+",URI:"+one)), []*tlstest.Pair{inOne, inTwo, inBoth}},
		{"a part for users", list(rootList, part("fullname = URI:"+one+"\nonlyuser = TRUE")), []*tlstest.Pair{inOne, inBoth}},
		{"a part for CAs", list(rootList, part("fullname = URI:"+one+"\nonlyCA = TRUE")), nil},
		{"the name in another case", list(rootList, part("fullname = URI:HTTP://CA.example/1.crl")), nil},
	} {
		lists := bytes.Join(c.lists, nil)
		set, problems := loadList(t, pki.certs(), lists)
		v := newVerifier(ClientCertRequire, pki.certs(), false, set)
		for _, who := range []*tlstest.Pair{inOne, inTwo, inBoth, nowhere} {
			want := slices.Contains(c.admits, who)
			name := who.Leaf().Subject.CommonName
			if ok, why := opensslVerify(t, tlstest.PEM(pki.certs()...), lists, who.Chain); ok != want {
				t.Errorf("%s: %s: OpenSSL says %t, want %t\n%s", c.name, name, ok, want, why)
			}
			if err := v.check(who.Chain, time.Now()); (err == nil) != want {
				t.Errorf("%s: %s: %v, want %t; %q", c.name, name, err, want, problems)
			}
		}
	}
}
