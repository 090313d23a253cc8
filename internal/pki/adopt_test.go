package pki_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgwicket/internal/pki"
)

// easyRSA makes a CA with one client, and returns a function that runs easyrsa there.
func easyRSA(t *testing.T) (dir string, run func(args ...string) string) {
	t.Helper()
	const share = "/usr/share/easy-rsa"
	if _, err := os.Stat(share + "/easyrsa"); err != nil {
		t.Skip(err)
	}
	dir = t.TempDir()
	must(t, dir, "cp -r %s/. .", share)
	run = func(args ...string) string {
		cmd := exec.Command("./easyrsa", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "EASYRSA="+dir, "EASYRSA_BATCH=1", "EASYRSA_ALGO=ec", "EASYRSA_CURVE=prime256v1")
		if args[0] == "build-ca" {
			cmd.Env = append(cmd.Env, "EASYRSA_REQ_CN=Easy CA")
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("easyrsa %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("init-pki")
	run("build-ca", "nopass")
	run("build-client-full", "app", "nopass")
	run("gen-crl")
	return dir, run
}

// A CA of easy-rsa is taken over, and easy-rsa goes on in the same directory.
func TestAdoptEasyRSA(t *testing.T) {
	t.Parallel()
	dir, run := easyRSA(t)
	_, err := pki.Adopt(pki.Options{Dir: dir})
	checkError(t, err, "but "+filepath.Join(dir, "pki")+" has: name that")
	o := pki.Options{Dir: filepath.Join(dir, "pki")}
	if changes, err := pki.Adopt(o); err != nil || len(changes) == 0 {
		t.Fatalf("%q, %v", changes, err)
	}
	if changes, err := pki.Adopt(o); err != nil || len(changes) > 0 {
		t.Errorf("the second time: %q, %v", changes, err)
	}
	c := open(t, o)
	ours := client(t, c, "ours1")
	if err := c.WriteLists(0); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{ours.CertFile, "issued/app.crt"} {
		must(t, o.Dir, "openssl verify -crl_check_all -CAfile root.crt -CRLfile root.crl %s", file)
	}
	if _, err := c.Revoke("app", "keyCompromise", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Export("ours1", "libpq", filepath.Join(dir, "out")); err != nil {
		t.Error(err)
	}
	c.Close()
	run("build-client-full", "theirs", "nopass")
	run("revoke", "ours1")
	run("gen-crl")
	c = open(t, o)
	status := func(name string) string { return c.Find(name)[0].Status }
	if status("ours1") != pki.StatusRevoked || status("app") != pki.StatusRevoked || status("theirs") != pki.StatusValid || c.Unlisted() != 0 {
		t.Errorf("%+v", c.List())
	}
	if err := c.WriteLists(0); err != nil {
		t.Fatal(err)
	}
	for name, moved := range map[string]string{"ours1": "revoked/", "app": ""} { // easyrsa revoke moves it
		serial := c.Find(name)[0].Serial
		out, err := command(t, o.Dir, "openssl verify -crl_check_all -CAfile root.crt -CRLfile root.crl %scerts_by_serial/%s.pem", moved, serial)
		if err == nil || !strings.Contains(out, "revoked") {
			t.Errorf("%s: %s", name, out)
		}
	}
	must(t, o.Dir, "openssl verify -crl_check_all -CAfile root.crt -CRLfile root.crl issued/theirs.crt")
}

// The CA of "openssl ca" in docs/certificates.md: version 1 lists, serial numbers that
// count, no key identifier, a key beside the certificate.
func TestAdoptOpenSSL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "openssl.cnf"), `[ca]
default_ca = this
[this]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
default_days = 365
default_crl_days = 30
policy = names
[names]
commonName = supplied
[req]
distinguished_name = names
[root]
basicConstraints = critical,CA:TRUE
[v1]
`)
	write(t, filepath.Join(dir, "index.txt"), "")
	write(t, filepath.Join(dir, "serial"), "1000\n")
	must(t, dir, "openssl req -x509 -config openssl.cnf -extensions root -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 3650 -subj /O=Org/CN=Old")
	must(t, dir, "openssl req -config openssl.cnf -new -newkey rsa:2048 -nodes -keyout app.key -out app.csr -subj /CN=app")
	must(t, dir, "openssl ca -batch -notext -config openssl.cnf -in app.csr -out app.crt")
	write(t, filepath.Join(dir, "crlnumber"), "0A\n")
	must(t, dir, "openssl ca -config openssl.cnf -gencrl -out crl.pem")
	if err := os.Remove(filepath.Join(dir, "crlnumber")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "ca.key")} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := pki.Options{Dir: dir}
	_, err := pki.Open(o)
	checkError(t, err, "has mode 0755")
	changes, err := pki.Adopt(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"from 0755 to 0700", "crlnumber with ", `wrote "unique_subject = no"`, "newcerts"} {
		if !slices.ContainsFunc(changes, func(c string) bool { return strings.Contains(c, want) }) {
			t.Errorf("%q is not in %q", want, changes)
		}
	}
	c := open(t, o)
	ours := client(t, c, "ours")
	if _, err := c.Revoke("1000", "", 0); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "openssl verify -crl_check_all -CAfile root.crt -CRLfile root.crl %s", ours.CertFile)
	out, err := command(t, dir, "openssl verify -crl_check_all -CAfile root.crt -CRLfile root.crl app.crt")
	if err == nil || !strings.Contains(out, "revoked") {
		t.Error(out)
	}
	must(t, dir, "openssl ca -batch -config openssl.cnf -revoke %s", ours.CertFile)
}

func TestAdoptWrong(t *testing.T) {
	t.Parallel()
	_, err := pki.Adopt(pki.Options{Dir: t.TempDir()})
	checkError(t, err, "there is no CA to adopt")
	a, b := initCA(t, nil), initCA(t, nil)
	write(t, filepath.Join(a.Dir, "private", "ca.key"), read(t, filepath.Join(b.Dir, "private", "ca.key")))
	_, err = pki.Adopt(a)
	checkError(t, err, "is not the key of")
	if err := os.RemoveAll(filepath.Join(b.Dir, "root")); err != nil {
		t.Fatal(err)
	}
	_, err = pki.Adopt(b)
	checkError(t, err, "put the certificate of its root into")
	leaf := initCA(t, nil)
	c := open(t, leaf)
	write(t, filepath.Join(leaf.Dir, "ca.crt"), read(t, client(t, c, "app").CertFile))
	c.Close()
	_, err = pki.Adopt(leaf)
	checkError(t, err, "is not the certificate of a CA")
}
