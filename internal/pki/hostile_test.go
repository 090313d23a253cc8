package pki_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"pgwicket/acl"
	"pgwicket/internal/pki"
)

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Skip(err)
	}
}

// A directory that somebody else has prepared must not make a command write, remove or change
// anything outside of it.
func TestHostileDirectory(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim.crt")
	write(t, victim, "mine")
	if err := os.Chmod(victim, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	base := initCA(t, nil)
	c := open(t, base)
	serial := client(t, c, "app").Serial
	c.Close()
	up := strings.Repeat("../", 20) + strings.TrimPrefix(strings.TrimSuffix(victim, ".crt"), "/")
	for name, prepare := range map[string]func(dir string){
		"publish": func(dir string) { write(t, filepath.Join(dir, "publish"), victim+"\n") },
		"pending": func(dir string) {
			remove(t, filepath.Join(dir, "pending"))
			symlink(t, outside, filepath.Join(dir, "pending"))
		},
		"private": func(dir string) {
			remove(t, filepath.Join(dir, "private"))
			symlink(t, outside, filepath.Join(dir, "private"))
		},
		"key": func(dir string) {
			remove(t, filepath.Join(dir, "private/ca.key"))
			symlink(t, victim, filepath.Join(dir, "private/ca.key"))
		},
		"name of pending": func(dir string) {
			pending := filepath.Join(dir, "pending", serial)
			mkdir(t, pending)
			write(t, filepath.Join(pending, "name"), up)
			write(t, filepath.Join(pending, "crt"), "theirs")
		},
		"names": func(dir string) { write(t, filepath.Join(dir, "names"), serial+"\t"+up+"\n") },
		"index.txt": func(dir string) {
			remove(t, filepath.Join(dir, "index.txt"))
			symlink(t, victim, filepath.Join(dir, "index.txt"))
		},
		"a named pipe": func(dir string) { remove(t, filepath.Join(dir, "crlnumber")); must(t, dir, "mkfifo crlnumber") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "ca")
			must(t, "", "cp -a %s %s", base.Dir, dir)
			prepare(dir)
			o := base
			o.Dir = dir
			_, err := pki.Adopt(o)
			if err == nil && name != "names" && name != "a named pipe" {
				t.Error("it was adopted")
			}
			if c, err := pki.Open(o); err == nil {
				if r, err := pki.ClientRequest("other", ""); err == nil {
					_, _ = c.Issue(r)
				}
				_, _ = c.Export("app", "pem", filepath.Join(dir, "out"))
				_ = c.WriteLists(0)
				c.Close()
			}
			if st, err := os.Stat(victim); err != nil || read(t, victim) != "mine" || st.Mode().Perm() != 0o644 {
				t.Errorf("%s was changed: %v", victim, err)
			}
			if st, err := os.Stat(outside); err != nil || st.Mode().Perm() != 0o755 {
				t.Errorf("%s was changed: %v", outside, err)
			}
		})
	}
}

// Lists are published only if they are lists: the copy may belong to root.
func TestPublishedIsAList(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	path := filepath.Join(t.TempDir(), "ca.crl")
	if err := c.Publish(path); err != nil {
		t.Fatal(err)
	}
	before := read(t, path)
	c.Close()
	other := open(t, initCA(t, nil))
	mine := filepath.Join(t.TempDir(), "pgwicket.yaml")
	write(t, mine, "listen: []\n")
	checkError(t, other.Publish(mine), "holds no list, and is not replaced")
	if paths, err := other.Published(); err != nil || len(paths) > 0 || read(t, mine) != "listen: []\n" {
		t.Errorf("%q, %v", paths, err)
	}
	for _, text := range []string{"* * * * * root touch /tmp/owned\n", read(t, other.ListFile()), "* * * * * root x\n" + read(t, filepath.Join(o.Dir, "crl.pem"))} {
		write(t, filepath.Join(o.Dir, "crl.pem"), text)
		c, err := pki.Open(o)
		if err == nil {
			_ = c.Publish(path)
			c.Close()
		}
		if read(t, path) != before {
			t.Errorf("published:\n%s", read(t, path))
		}
	}
}

// Another account's directory could be changed under our feet, and its keys be read.
func TestDirectoryOfAnother(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	o := initCA(t, nil)
	for _, path := range []string{"", "private", "root", "private/ca.key"} {
		path = filepath.Join(o.Dir, path)
		if err := os.Chown(path, 12345, 0); err != nil {
			t.Fatal(err)
		}
		c, err := pki.Open(o)
		if err == nil {
			err = c.WriteLists(0)
			c.Close()
		}
		checkError(t, err, "belongs to another account (12345)")
		if path == o.Dir {
			_, err = pki.Adopt(o)
			checkError(t, err, "belongs to another account (12345)")
		}
		if err := os.Chown(path, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// A rule admits the client for which it was printed, and its role alone, whatever their names mean
// to acl.rules.
func TestRuleNamesOneClient(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"app", "all", "samename", "sameuser", "+dba", "/.+", "/^(app|.?)$", `a\1`, "@file", `x\y`, "a'b\"c", "{}", "~", "null", "no: yes", "# x", "Jürgen", "<&>", "a.b+c(d)[e]$|?", "-"} {
		r, err := pki.ClientRequest("laptop", user, "spiffe://example.com/*?x=(a|b)")
		if err != nil {
			t.Errorf("%q: %v", user, err)
			continue
		}
		var options []acl.RuleOptions
		if err := yaml.Unmarshal([]byte(r.Rule()), &options); err != nil || len(options) != 1 {
			t.Errorf("%q: %v in %s", user, err, r.Rule())
			continue
		}
		rules, problems := acl.NewRules(options, nil, nil)
		if len(problems) > 0 {
			t.Errorf("%q: %v in %s", user, problems, r.Rule())
			continue
		}
		uri := r.URIs[0].String()
		admits := func(user, cn, uri string) bool {
			id := acl.Identity{CN: cn, URI: []string{uri}}
			return rules.Decide(&acl.Request{User: user, Database: "shop", Certificate: &id, At: time.Now()}) != nil
		}
		if !admits(user, user, uri) {
			t.Errorf("%q is not admitted by %s", user, r.Rule())
		}
		for _, other := range []string{"bob", "app2", "xapp", "dba", "a", "", user + "x", "x" + user} {
			if admits(other, user, uri) || admits(user, other, uri) {
				t.Errorf("%q or its certificate is admitted by %s", other, r.Rule())
			}
		}
		if admits(user, user, "spiffe://example.com/bob") {
			t.Errorf("another URI is admitted by %s", r.Rule())
		}
	}
}

// A list that would take a revocation back is not made: index.txt may be an old copy.
func TestNothingIsUnrevoked(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	client(t, c, "other")
	issued := client(t, c, "app")
	held := client(t, c, "held")
	index := filepath.Join(o.Dir, "index.txt")
	old := read(t, index)
	for name, reason := range map[string]string{"app": "keyCompromise", "held": "certificateHold"} {
		if _, err := c.Revoke(name, reason, 0); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	list := read(t, filepath.Join(o.Dir, "crl.pem"))
	lines := strings.SplitAfter(old, "\n")
	for _, text := range []string{old, lines[0]} {
		write(t, index, text)
		c := open(t, o)
		checkError(t, c.WriteLists(0), "so a new list would take that back")
		_, err := c.Revoke("other", "", 0)
		checkError(t, err, "so a new list would take that back")
		c.Close()
		if read(t, filepath.Join(o.Dir, "crl.pem")) != list {
			t.Error("the list has changed")
		}
	}
	// The end of a hold is meant.
	fields := strings.Split(lines[1], "\t")
	fields[0], fields[2] = "R", "260101000000Z,keyCompromise"
	write(t, index, lines[0]+strings.Join(fields, "\t")+lines[2])
	c = open(t, o)
	if err := c.WriteLists(0); err != nil {
		t.Error(err)
	}
	if out := must(t, o.Dir, "openssl crl -in crl.pem -noout -text"); strings.Contains(out, held.Serial) || !strings.Contains(out, issued.Serial) {
		t.Error(out)
	}
}

// A name that is the serial number of another certificate could keep that one from being revoked.
func TestNameIsASerial(t *testing.T) {
	t.Parallel()
	o, dir := initCA(t, nil), t.TempDir()
	c := open(t, o)
	other := client(t, c, "app")
	for _, name := range []string{other.Serial, strings.ToLower(other.Serial), "0x" + other.Serial} {
		r, err := pki.ClientRequest(name, "bob")
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Issue(r)
		checkError(t, err, "is the serial number of a certificate")
	}
	// openssl takes every name.
	must(t, dir, "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out csr -subj /CN=%s", other.Serial)
	c.Close()
	cmd := exec.Command("openssl", "ca", "-batch", "-notext", "-config", "openssl.cnf", "-passin", "pass:"+passphrase, "-in", filepath.Join(dir, "csr"), "-out", filepath.Join(dir, "crt"))
	cmd.Dir = o.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c = open(t, o)
	_, err := c.Revoke(other.Serial, "", 0)
	checkError(t, err, other.Serial+` ("app"): give `)
	_, err = c.Renew(other.Serial, 0)
	checkError(t, err, "is the name of the certificate")
	if revoked, err := c.Revoke("app", "", 0); err != nil || len(revoked) != 1 || revoked[0].Serial != other.Serial {
		t.Errorf("%+v, %v", revoked, err)
	}
}

// Two names never share files.
func TestNamesWithTheSameFiles(t *testing.T) {
	t.Parallel()
	c := open(t, initCA(t, nil))
	first := server(t, c, "*.db.example.com")
	key := read(t, first.KeyFile)
	r, err := pki.ServerRequest("wildcard.db.example.com")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Issue(r)
	checkError(t, err, "would have the files of *.db.example.com")
	if read(t, first.KeyFile) != key {
		t.Error("the key was replaced")
	}
}

// A key that somebody else has, or the CA's, is not certified.
func TestSignKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := initCA(t, nil)
	c := open(t, o)
	must(t, dir, "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out csr -subj /CN=app")
	request := func(file string) pki.Request {
		r, _, err := pki.SigningRequest(pki.Client, []byte(read(t, file)))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := request(filepath.Join(dir, "csr"))
	issue(t, c, r)
	if _, err := c.Revoke("app", "superseded", 0); err != nil {
		t.Fatal(err)
	}
	issue(t, c, r)
	if _, err := c.Revoke("app", "keyCompromise", 0); err != nil {
		t.Fatal(err)
	}
	_, err := c.Issue(r)
	checkError(t, err, "was revoked with keyCompromise")
	r.Name = "other"
	_, err = c.Issue(r)
	checkError(t, err, "was revoked with keyCompromise")
	// The key of the CA itself.
	r.Name = "more"
	ca, _ := pem.Decode([]byte(read(t, filepath.Join(o.Dir, "ca.crt"))))
	cert, err := x509.ParseCertificate(ca.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	r.Public = cert.PublicKey
	_, err = c.Issue(r)
	checkError(t, err, "is that of the CA")
	// openssl req -new -newkey rsa:8200 -nodes -keyout key -out rsa8200.csr -subj /CN=app, which takes minutes
	_, _, err = pki.SigningRequest(pki.Client, []byte(read(t, "testdata/rsa8200.csr")))
	checkError(t, err, "RSA 8200, is too long")
}

// What an export replaces is kept.
func TestExportKeepsOld(t *testing.T) {
	t.Parallel()
	c := open(t, initCA(t, nil))
	client(t, c, "app")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "postgresql.key"), "another key")
	for range 2 {
		if _, err := c.Export("app", "libpq", dir); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, filepath.Join(dir, "postgresql.key.old")) != "another key" {
		t.Error("the key before is gone")
	}
}

// A process that is killed while it writes a key leaves none of it.
func TestTemporaryKeys(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	client(t, c, "app")
	c.Close()
	left := []string{"private/.app.key-123", "issued/.app.crt-5", ".index.txt-77", "newcerts/.01.pem-9", "root/private/.ca.key-1"}
	for _, name := range left {
		write(t, filepath.Join(o.Dir, name), "secret")
	}
	write(t, filepath.Join(o.Dir, "private", ".mine"), "kept")
	open(t, o)
	for _, name := range left {
		if _, err := os.Lstat(filepath.Join(o.Dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	read(t, filepath.Join(o.Dir, "private", ".mine"))
}
