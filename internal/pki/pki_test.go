package pki_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pki"
)

const passphrase = "correct horse"

func secrets() pki.Secrets {
	return pki.Secrets{Ask: func(string) ([]byte, error) { return []byte(passphrase), nil }}
}

// initCA makes a CA and returns its options.
func initCA(t *testing.T, change func(*pki.InitOptions)) pki.Options {
	t.Helper()
	o := pki.InitOptions{Options: pki.Options{Dir: filepath.Join(t.TempDir(), "ca"), Secrets: secrets()}, Name: "Test CA"}
	if change != nil {
		change(&o)
	}
	if err := pki.Init(o); err != nil {
		t.Fatal(err)
	}
	return o.Options
}

// open opens a CA until the test has ended, or until it is closed.
func open(t *testing.T, o pki.Options) *pki.CA {
	t.Helper()
	c, err := pki.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func client(t *testing.T, c *pki.CA, name string) *pki.Issued {
	t.Helper()
	r, err := pki.ClientRequest(name, "")
	if err != nil {
		t.Fatal(err)
	}
	return issue(t, c, r)
}

func server(t *testing.T, c *pki.CA, names ...string) *pki.Issued {
	t.Helper()
	r, err := pki.ServerRequest(names...)
	if err != nil {
		t.Fatal(err)
	}
	return issue(t, c, r)
}

func issue(t *testing.T, c *pki.CA, r pki.Request) *pki.Issued {
	t.Helper()
	issued, err := c.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// command runs a program in a directory and returns all that it prints.
func command(t *testing.T, dir, line string, args ...any) (string, error) {
	t.Helper()
	words := strings.Fields(fmt.Sprintf(line, args...))
	if _, err := exec.LookPath(words[0]); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must is command that must succeed.
func must(t *testing.T, dir, line string, args ...any) string {
	t.Helper()
	out, err := command(t, dir, line, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", fmt.Sprintf(line, args...), err, out)
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// OpenSSL, GnuTLS and the standard library's verifier of names accept what is issued, at their strictest.
func TestVerifiers(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{pki.ECDSA, pki.RSA} {
		o := initCA(t, func(o *pki.InitOptions) { o.KeyType = kind })
		c := open(t, o)
		app, db := client(t, c, "app"), server(t, c, "db.example.com", "10.0.0.5", "*.db.example.com")
		strict := "openssl verify -x509_strict -crl_check_all -policy_check -CAfile %s -CRLfile %s -purpose %s %s"
		must(t, "", strict, c.TrustFile(), c.ListFile(), "sslclient", app.CertFile)
		for _, name := range []string{"-verify_hostname db.example.com", "-verify_hostname a.db.example.com", "-verify_ip 10.0.0.5"} {
			must(t, "", strict, c.TrustFile(), c.ListFile(), "sslserver "+name, db.CertFile)
		}
		if out, err := command(t, "", strict, c.TrustFile(), c.ListFile(), "sslserver", app.CertFile); err == nil {
			t.Errorf("a client's certificate is one of a server: %s", out)
		}
		for _, file := range []string{app.CertFile, db.CertFile} {
			must(t, "", "certtool --verify --verify-profile high --load-ca-certificate %s --load-crl %s --infile %s", c.TrustFile(), c.ListFile(), file)
		}
		if _, err := c.Revoke("app", "keyCompromise", 0); err != nil {
			t.Fatal(err)
		}
		if out, err := command(t, "", strict, c.TrustFile(), c.ListFile(), "sslclient", app.CertFile); err == nil || !strings.Contains(out, "certificate revoked") {
			t.Errorf("the certificate is revoked, and openssl says %s", out)
		}
		out, err := command(t, "", "certtool --verify --load-ca-certificate %s --load-crl %s --infile %s", c.TrustFile(), c.ListFile(), app.CertFile)
		if err == nil || !strings.Contains(out, "revoked") {
			t.Errorf("the certificate is revoked, and certtool says %s", out)
		}
	}
}

// Keys of the CA are encrypted in a way that openssl reads, files and directories are private.
func TestFiles(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	client(t, c, "app")
	err := filepath.WalkDir(o.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
		if strings.HasPrefix(d.Name(), ".") && d.Name() != ".lock" || d.Name() == "app.key.old" {
			t.Errorf("%s is left over", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "root"} {
		key := filepath.Join(o.Dir, dir, "private", "ca.key")
		if text := read(t, key); !strings.HasPrefix(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----") {
			t.Errorf("%s is not encrypted", key)
		}
		write(t, filepath.Join(o.Dir, "pass"), passphrase+"\n")
		must(t, o.Dir, "openssl pkey -in %s -passin file:pass -noout -check", key)
		if out := must(t, o.Dir, "openssl asn1parse -in %s", key); !strings.Contains(out, "scrypt") {
			t.Errorf("%s is not encrypted with scrypt:\n%s", key, out)
		}
	}
}

// A serial number has 16 random bytes, in the certificate and in index.txt.
func TestSerials(t *testing.T) {
	t.Parallel()
	c := open(t, initCA(t, nil))
	seen := make(map[string]bool)
	for i := range 5 {
		issued := client(t, c, fmt.Sprint("app", i))
		out := must(t, "", "openssl x509 -in %s -noout -serial", issued.CertFile)
		if len(issued.Serial) != 32 || strings.TrimSpace(out) != "serial="+issued.Serial || seen[issued.Serial] {
			t.Errorf("serial %s, openssl prints %s", issued.Serial, out)
		}
		seen[issued.Serial] = true
	}
}

// Two commands at once: the second fails and says why.
func TestLock(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	open(t, o)
	_, err := pki.Open(o)
	checkError(t, err, "another pgwicket ca works in")
}

// A passphrase that is wrong is asked for three times, and no more.
func TestWrongPassphrase(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	asked := 0
	o.Secrets = pki.Secrets{Attempts: 3, Ask: func(string) ([]byte, error) {
		asked++
		return []byte("wrong"), nil
	}}
	c := open(t, o)
	index := read(t, filepath.Join(o.Dir, "index.txt"))
	r, err := pki.ClientRequest("app", "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Issue(r)
	checkError(t, err, "the passphrase is wrong")
	_, err = c.Revoke("app", "", 0)
	checkError(t, err, "no certificate has the name")
	if asked != 3 || read(t, filepath.Join(o.Dir, "index.txt")) != index {
		t.Errorf("asked %d times", asked)
	}
	// The third attempt counts.
	asked = 0
	c.Close()
	o.Secrets.Ask = func(string) ([]byte, error) {
		if asked++; asked < 3 {
			return []byte("wrong"), nil
		}
		return []byte(passphrase), nil
	}
	client(t, open(t, o), "app")
}

func TestPassphraseCommand(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	o := initCA(t, func(o *pki.InitOptions) {
		o.OfflineRoot = true
		o.Secrets = pki.Secrets{Command: "echo $PGWICKET_CA_KEY >>" + file + `; case $PGWICKET_CA_KEY in */root/*) echo root-secret;; *) echo other-secret;; esac`}
	})
	if got := read(t, file); got != filepath.Join(o.Dir, "root/private/ca.key")+"\n"+filepath.Join(o.Dir, "private/ca.key")+"\n" {
		t.Errorf("asked for %s", got)
	}
	must(t, o.Dir, "openssl pkey -in root/private/ca.key -passin pass:root-secret -noout")
	must(t, o.Dir, "openssl pkey -in private/ca.key -passin pass:other-secret -noout")
	for command, want := range map[string]string{"exit 3": "exit status 3", "true": "printed no passphrase", "echo short": "shorter than 8", "": "no terminal"} {
		err := pki.Init(pki.InitOptions{Options: pki.Options{Dir: filepath.Join(t.TempDir(), "ca"), Secrets: pki.Secrets{Command: command}}, Name: "x"})
		checkError(t, err, want)
	}
}

// A certificate ends with its CA, and not after it; beyond the CA's end nothing is issued.
func TestEnds(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	o.Now = func() time.Time { return time.Now().AddDate(4, 11, 0) }
	c := open(t, o)
	r, err := pki.ClientRequest("app", "")
	if err != nil {
		t.Fatal(err)
	}
	issued := issue(t, c, r)
	if !issued.Shortened || issued.Expires.After(time.Now().AddDate(5, 0, 1)) {
		t.Errorf("%+v", issued)
	}
	c.Close()
	for years, want := range map[int]string{6: "this machine's clock has", -1: "this machine's clock has"} {
		o.Now = func() time.Time { return time.Now().AddDate(years, 0, 0) }
		late := open(t, o)
		r.Name, r.CommonName = "late", "late"
		_, err = late.Issue(r)
		checkError(t, err, want)
		late.Close()
	}
}
