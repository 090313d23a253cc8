package pki_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pki"
)

// renew renews the intermediate and returns what openssl prints of its new certificate.
func renew(t *testing.T, c *pki.CA) (*pki.Issued, string) {
	t.Helper()
	issued, err := c.RenewIntermediate()
	if err != nil {
		t.Fatal(err)
	}
	return issued, must(t, "", "openssl x509 -in %s -noout -text", issued.CertFile)
}

// After a renewal of the intermediate, what it has issued before stays valid, what it had revoked stays
// revoked by the same list, and OpenSSL and GnuTLS take both, old and new, at their strictest.
func TestRenewIntermediate(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{pki.ECDSA, pki.RSA} {
		o := initCA(t, func(o *pki.InitOptions) {
			o.KeyType = kind
			o.Now = func() time.Time { return time.Now().AddDate(-4, 0, 0) }
		})
		o.Now = func() time.Time { return time.Now().AddDate(0, 0, -200) }
		c := open(t, o)
		old, stolen := client(t, c, "old"), client(t, c, "stolen")
		c.Close()
		o.Now = nil
		c = open(t, o)
		if _, err := c.Revoke("stolen", "keyCompromise", 0); err != nil {
			t.Fatal(err)
		}
		trustBefore, before := read(t, c.TrustFile()), c.Authorities()[1]
		issued, text := renew(t, c)
		if !issued.Expires.After(before.Expires.AddDate(3, 0, 0)) || issued.Shortened || c.Authorities()[1].Expires != issued.Expires {
			t.Errorf("the old one ends on %v, the new one is %+v", before.Expires, issued)
		}
		for _, want := range []string{"CN = Test CA intermediate", "CN = Test CA root", "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"} {
			if !strings.Contains(text, want) {
				t.Errorf("the certificate has no %q:\n%s", want, text)
			}
		}
		if rows := read(t, filepath.Join(o.Dir, "root", "index.txt")); strings.Count(rows, "/CN=Test CA intermediate") != 2 || !strings.Contains(rows, issued.Serial) {
			t.Errorf("the index of the root is\n%s", rows)
		}
		r, err := pki.ClientRequest("new", "")
		if err != nil {
			t.Fatal(err)
		}
		r.Days = 600 // past the old end
		fresh := issue(t, c, r)
		if fresh.Shortened {
			t.Errorf("%+v", fresh)
		}
		if err := c.WriteLists(0); err != nil {
			t.Fatal(err)
		}
		for file, good := range map[string]bool{old.CertFile: true, fresh.CertFile: true, stolen.CertFile: false} {
			for name, line := range map[string]string{
				"openssl":  "openssl verify -x509_strict -crl_check_all -purpose sslclient -CAfile %s -CRLfile %s %s",
				"certtool": "certtool --verify --verify-profile high --load-ca-certificate %s --load-crl %s --infile %s",
			} {
				out, err := command(t, "", line, c.TrustFile(), c.ListFile(), file)
				if good != (err == nil) || !good && !strings.Contains(out, "revoked") {
					t.Errorf("%s of %s: %v: %s", name, file, err, out)
				}
			}
		}
		checkTrust(t, trustBefore, before.Expires, c, old, fresh)
		c.Close()
		o.Now = func() time.Time { return time.Now().AddDate(0, 0, -1) }
		_, err = open(t, o).RenewIntermediate()
		checkError(t, err, "already")
	}
}

// checkTrust has peers verify who have the root.crt of before a renewal, or that of after it. From the end of the
// old certificate on only the new file will do.
func checkTrust(t *testing.T, text string, end time.Time, c *pki.CA, old, fresh *pki.Issued) {
	t.Helper()
	was := filepath.Join(t.TempDir(), "was.crt")
	write(t, was, text)
	const line = "openssl verify -x509_strict -attime %d -CAfile %s -untrusted %s %s"
	now, late := time.Now().Unix(), end.AddDate(0, 0, 1).Unix()
	must(t, "", line, now, was, fresh.CertFile, fresh.CertFile)
	must(t, "", line, now, c.TrustFile(), old.CertFile, old.CertFile)
	must(t, "", line, late, c.TrustFile(), fresh.CertFile, fresh.CertFile)
	if out, err := command(t, "", line, late, was, fresh.CertFile, fresh.CertFile); err == nil || !strings.Contains(out, "expired") {
		t.Errorf("with the old file, after its end: %v: %s", err, out)
	}
}

// A renewal of the intermediate needs the root's key, and helps where its own is.
func TestRenewIntermediateRefused(t *testing.T) {
	t.Parallel()
	refuses := func(o pki.Options, want string) {
		t.Helper()
		c := open(t, o)
		defer c.Close()
		before := read(t, filepath.Join(o.Dir, "ca.crt"))
		_, err := c.RenewIntermediate()
		checkError(t, err, want)
		if read(t, filepath.Join(o.Dir, "ca.crt")) != before {
			t.Error("the certificate has changed")
		}
	}
	o := initCA(t, func(o *pki.InitOptions) { hyphenated(o); o.OfflineRoot = true })
	key, rootKey := filepath.Join(o.Dir, "private", "ca.key"), filepath.Join(o.Dir, "root", "private", "ca.key")
	for _, path := range []string{key, rootKey} {
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		refuses(o, "is not in "+path)
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	late := o
	late.Now = func() time.Time { return time.Now().AddDate(10, 0, 1) }
	refuses(late, "the root ends on")
	late.Now = func() time.Time { return time.Now().AddDate(-1, 0, 0) }
	refuses(late, "this machine's clock has")
	wrong := o
	wrong.Secrets.Ask = func(string) ([]byte, error) { return []byte("wrong"), nil }
	refuses(wrong, "the passphrase is wrong")

	opensslCA(t, filepath.Join(o.Dir, "root"), "-revoke ../ca.crt")
	refuses(o, "was revoked")

	// In its last five years the root cannot give the intermediate more.
	o = initCA(t, nil)
	o.Now = func() time.Time { return time.Now().AddDate(7, 0, 0) }
	c := open(t, o)
	issued, _ := renew(t, c)
	if !issued.Shortened || issued.Expires != c.Authorities()[0].Expires {
		t.Errorf("%+v", issued)
	}
	_, err := c.RenewIntermediate()
	checkError(t, err, "the root ends on")
}

// The end of the intermediate is announced before it comes, and after it a renewal helps.
func TestIntermediateEnds(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	at := func(years, months int) *pki.CA {
		o.Now = func() time.Time { return time.Now().AddDate(years, months, 0) }
		return open(t, o)
	}
	c := at(4, 10)
	if err := c.CheckEnds(); err != nil {
		t.Error(err)
	}
	c.Close()
	c = at(5, 0)
	err := c.CheckEnds()
	checkError(t, err, `run "pgwicket ca renew --intermediate"`)
	if !errors.Is(err, pki.ErrEnds) {
		t.Errorf("%v is no ErrEnds", err)
	}
	r, err := pki.ClientRequest("late", "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Issue(r)
	checkError(t, err, `"pgwicket ca renew --intermediate" renews it`)
	renew(t, c)
	issue(t, c, r)
	if err := c.CheckEnds(); err != nil {
		t.Error(err)
	}
	c.Close()
	checkError(t, at(9, 12).CheckEnds(), "make a new CA")
}

// A certificate of another program is left to it.
func TestRenewIntermediateOfOpenSSL(t *testing.T) {
	t.Parallel()
	o := initCA(t, hyphenated)
	must(t, o.Dir, "openssl req -new -key private/ca.key -passin pass:correct-horse -subj /CN=other -out other.csr")
	write(t, filepath.Join(o.Dir, "ca.ext"), "basicConstraints = critical,CA:TRUE\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid,issuer:always\n")
	must(t, o.Dir, "openssl x509 -req -in other.csr -extfile ca.ext -CA root/ca.crt -CAkey root/private/ca.key -passin pass:correct-horse -out ca.crt -days 100")
	write(t, filepath.Join(o.Dir, "crl.pem"), "")
	if err := os.Remove(filepath.Join(o.Dir, "crl.pem")); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, o).RenewIntermediate()
	checkError(t, err, "is not of pgwicket ca")
}
