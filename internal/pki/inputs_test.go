package pki_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pki"
)

func TestServerNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"db.example.com": "", "*.db.example.com": "", "localhost": "", "10.0.0.5": "", "2001:db8::5": "", "DB_1.example.com": "",
		"*": "above a whole domain", "*.com": "above a whole domain", "a.*.example.com": "not its whole first part", "d*.example.com": "not its whole first part",
		"db example.com": "has a space", "dü.example.com": "begins with xn--", "dba@example.com": "an e-mail address", "10.0.0.0/8": "not a network",
		"https://db.example.com": "not a network or a URL", "db..example.com": "an empty part", "-db.example.com": "letters, digits", "": "an empty part",
		strings.Repeat("a", 64) + ".example.com": "at most 63", strings.Repeat("a.", 130) + "com": "at most 253", "0.0.0.0": "not the address of a server",
		strings.Repeat("a", 60) + ".example.com": "give a shorter name", "fe80::1%eth0": "not the address of a server",
	} {
		_, err := pki.ServerRequest(name)
		if want == "" && err != nil {
			t.Errorf("%q: %v", name, err)
		} else if want != "" {
			checkError(t, err, want)
		}
	}
	_, err := pki.ServerRequest()
	checkError(t, err, "name the server")
	r, err := pki.ServerRequest(strings.Repeat("a", 60)+".example.com", "db")
	if err != nil || r.CommonName != "db" || len(r.DNS) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestClientNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"app": "", "data loader": "", "bob@example.com": "", "Jürgen": "", strings.Repeat("a", 63): "",
		strings.Repeat("a", 70): "has 70 bytes, and at most 63", strings.Repeat("ü", 32): "has 64 bytes", "*": "wildcard", "app*": "wildcard", "10.0.0.5": "is an address", "": "is empty",
		" app": "begins or ends with a space", "a\nb": "cannot be printed", "a\x00b": "cannot be printed", "a\xff": "not UTF-8",
	} {
		_, err := pki.ClientRequest(name, "")
		if want == "" && err != nil {
			t.Errorf("%q: %v", name, err)
		} else if want != "" {
			checkError(t, err, want)
		}
	}
	for _, uri := range []string{"app", "spiffe:", "spiffe://", "http://a b/", "spiffe://ü/a"} {
		_, err := pki.ClientRequest("app", "", uri)
		checkError(t, err, "no URI")
	}
	c := open(t, initCA(t, nil))
	for _, name := range []string{"ca", "../app", "a/b", ".app", "-app"} {
		r, err := pki.ClientRequest(name, "app")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Issue(r); err == nil {
			t.Errorf("%q is the name of a file", name)
		}
	}
	r, err := pki.ClientRequest("laptop", "a/b", "spiffe://example.com/a")
	if err != nil {
		t.Fatal(err)
	}
	issued := issue(t, c, r)
	out := must(t, "", "openssl x509 -in %s -noout -subject -ext subjectAltName", issued.CertFile)
	if !strings.Contains(out, "CN = a/b") || !strings.Contains(out, "URI:spiffe://example.com/a") {
		t.Error(out)
	}
}

func TestAlreadyIssued(t *testing.T) {
	t.Parallel()
	c := open(t, initCA(t, nil))
	first := client(t, c, "app")
	r, err := pki.ClientRequest("app", "")
	if err != nil {
		t.Fatal(err)
	}
	var issued *pki.IssuedError
	if _, err = c.Issue(r); !errors.As(err, &issued) || issued.Serial != first.Serial {
		t.Errorf("%v", err)
	}
	key := read(t, first.KeyFile)
	r.Again = true
	second := issue(t, c, r)
	if read(t, first.KeyFile+".old") != key || second.Serial == first.Serial {
		t.Error("the key before is gone")
	}
	// Both are revoked, for either may be the one that was stolen.
	if revoked, err := c.Revoke("app", "", 0); err != nil || len(revoked) != 2 {
		t.Errorf("%+v, %v", revoked, err)
	}
	r.Again = false
	issue(t, c, r)
	for _, days := range []int{-1, 3651} {
		r.Days = days
		_, err = c.Issue(r)
		checkError(t, err, "lasts 1 to 3650 days")
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	issued := client(t, c, "app")
	_, err := c.Revoke("application", "", 0)
	checkError(t, err, "no certificate has the name")
	_, err = c.Revoke("app", "boredom", 0)
	checkError(t, err, "is unknown")
	colons := strings.ToLower(issued.Serial[:2] + ":" + issued.Serial[2:])
	if revoked, err := c.Revoke(colons, "superseded", 0); err != nil || len(revoked) != 1 || revoked[0].Reason != "superseded" {
		t.Errorf("%+v, %v", revoked, err)
	}
	_, err = c.Revoke("app", "", 0)
	checkError(t, err, "has no valid certificate: "+issued.Serial+" was revoked on ")
	_, err = c.Renew("app", 0)
	checkError(t, err, "and is not renewed")
	_, err = c.Renew("nobody", 0)
	checkError(t, err, "no certificate has the name")
	_, err = c.Export("app", "pem", t.TempDir())
	checkError(t, err, "no valid certificate")
}

// Mistakes in index.txt are refused by line, and the file is left as it is.
func TestBadIndex(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	client(t, c, "app")
	c.Close()
	path := filepath.Join(o.Dir, "index.txt")
	good := read(t, path)
	fields := strings.Split(strings.TrimSuffix(good, "\n"), "\t")
	with := func(n int, text string) string {
		changed := append([]string{}, fields...)
		changed[n] = text
		return strings.Join(changed, "\t") + "\n"
	}
	for _, c := range []struct{ text, want string }{
		{strings.ReplaceAll(good, "\n", "\r\n"), "line 1 ends in CR LF"},
		{strings.TrimSuffix(good, "\n"), "its last line has no newline"},
		{with(0, "X"), `line 1 has the unknown status "X"`},
		{with(1, "tomorrow"), `line 1 has the expiry "tomorrow"`},
		{with(2, "270101000000Z"), "line 1 has the status R without a time of revocation, or such a time without R"},
		{with(3, "xyz"), `line 1 has the serial number "xyz"`},
		{good + good, "line 2 has the serial number of line 1"},
		{good + "\n", "line 2 has 1 fields"},
		{with(0, "R"), "line 1 has the status R without"},
		{"R" + with(2, "270101000000Z,boredom")[1:], `line 1 has the reason "boredom"`},
		{"R" + with(2, "270101000000Z,keyTime")[1:], `line 1 has the reason "keyTime"`},
		{"R" + with(2, "270101000000Z,keyTime,x")[1:], `line 1 has the time "x"`},
		{"R" + with(2, "now")[1:], `line 1 has the time of revocation "now"`},
		{"R" + with(2, "270101000000Z,a,b,c")[1:], "line 1 has the reason"},
		{"R" + with(2, "270101000000Z,holdInstruction,x")[1:], "no object identifier"},
	} {
		write(t, path, c.text)
		_, err := pki.Open(o)
		checkError(t, err, c.want)
		if read(t, path) != c.text {
			t.Errorf("%q was changed", c.text)
		}
	}
	write(t, path, "# a comment\n"+good)
	if all := open(t, o).List(); len(all) != 1 || all[0].Name != "app" {
		t.Errorf("%+v", all)
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	for _, path := range []string{"", "private", "root", "root/private"} {
		if err := os.Chmod(filepath.Join(o.Dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := pki.Open(o)
		checkError(t, err, "has mode 0755, so other accounts can use it: chmod go= ")
		if err := os.Chmod(filepath.Join(o.Dir, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(o.Dir, "private", "ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := open(t, o)
	checkError(t, c.WriteLists(0), "has mode 0644")
}

// Init makes all of a CA or nothing, and does not touch what is there.
func TestInitInto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "mine")
	options := pki.InitOptions{Options: pki.Options{Dir: dir, Secrets: secrets()}, Name: "x"}
	checkError(t, pki.Init(options), "is not empty")
	options.Dir = filepath.Join(dir, "ca")
	options.Name = strings.Repeat("n", 60)
	checkError(t, pki.Init(options), "--name: has 73 bytes")
	options.Name = "x"
	options.Secrets = pki.Secrets{Ask: func(string) ([]byte, error) { return []byte(fmt.Sprint(time.Now().UnixNano())), nil }}
	checkError(t, pki.Init(options), "the two passphrases differ")
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if err := os.Mkdir(options.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	options.Secrets = secrets()
	if err := pki.Init(options); err != nil {
		t.Error("an empty directory:", err)
	}
	_, err := pki.Open(pki.Options{Dir: filepath.Join(dir, "none")})
	checkError(t, err, "there is no CA in")
}

func TestSign(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, initCA(t, nil))
	request := func(key, more string) []byte {
		must(t, dir, "openssl req -new -newkey %s -nodes -keyout key -out csr %s", key, more)
		return []byte(read(t, filepath.Join(dir, "csr")))
	}
	const ec = "ec -pkeyopt ec_paramgen_curve:P-256"
	for _, bad := range []struct{ key, more, want string }{
		{"rsa:1024", "-subj /CN=app", "RSA 1024, is too weak"},
		{"ec -pkeyopt ec_paramgen_curve:secp224r1", "-subj /CN=app", "its key"},
		{ec, "-sha1 -subj /CN=app", "ECDSA-SHA1, which is too weak"},
		{"rsa:2048", "-sha1 -subj /CN=app", "SHA1-RSA, which is too weak"},
		{ec, "-subj /O=nobody", "is empty"},
		{ec, "-subj /CN=*", "wildcard"},
	} {
		_, _, err := pki.SigningRequest(pki.Client, request(bad.key, bad.more))
		checkError(t, err, bad.want)
	}
	for _, text := range []string{"", "nonsense", read(t, filepath.Join(dir, "key"))} {
		if _, _, err := pki.SigningRequest(pki.Client, []byte(text)); err == nil {
			t.Errorf("%q is a request", text)
		}
	}
	csr := request(ec, "-subj /O=org/CN=app -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign -addext subjectAltName=DNS:db,URI:spiffe://a/admin -addext extendedKeyUsage=serverAuth")
	damaged := strings.Replace(string(csr), string(csr[200:204]), "AAAA", 1)
	if _, _, err := pki.SigningRequest(pki.Client, []byte(damaged)); err == nil {
		t.Error("a damaged request is accepted")
	}
	r, notCopied, err := pki.SigningRequest(pki.Client, csr)
	if err != nil || len(notCopied) != 5 {
		t.Fatalf("%q, %v", notCopied, err)
	}
	issued := issue(t, c, r)
	out := must(t, "", "openssl x509 -in %s -noout -text", issued.CertFile)
	for _, no := range []string{"CA:TRUE", "Certificate Sign", "spiffe", "DNS:", "Server Auth", "O = org"} {
		if strings.Contains(out, no) {
			t.Errorf("%s was copied:\n%s", no, out)
		}
	}
	if _, err := os.Stat(c.KeyFile("app")); err == nil || issued.KeyFile != "" {
		t.Error("there is a key")
	}
	_, err = c.Export("app", "pem", dir)
	checkError(t, err, "nothing to export but")
	// It is renewed for the same key.
	renewed, err := c.Renew("app", 0)
	if err != nil {
		t.Fatal(err)
	}
	if was, is := must(t, "", "openssl x509 -in %s -noout -pubkey", issued.CertFile), must(t, "", "openssl x509 -in %s -noout -pubkey", renewed.CertFile); was != is {
		t.Error("another key")
	}
	csr = request(ec, "-subj /CN=db.example.com -addext subjectAltName=DNS:db,IP:10.0.0.5")
	if r, _, err = pki.SigningRequest(pki.Server, csr); err != nil {
		t.Fatal(err)
	}
	out = must(t, "", "openssl x509 -in %s -noout -ext subjectAltName,extendedKeyUsage", issue(t, c, r).CertFile)
	if !strings.Contains(out, "DNS:db.example.com, DNS:db, IP Address:10.0.0.5") || !strings.Contains(out, "Server Auth") {
		t.Error(out)
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	first := server(t, c, "db.example.com", "10.0.0.5")
	before := must(t, "", "openssl x509 -in %s -noout -subject -ext subjectAltName,extendedKeyUsage,keyUsage", first.CertFile)
	second, err := c.Renew("db.example.com", 30)
	if err != nil {
		t.Fatal(err)
	}
	after := must(t, "", "openssl x509 -in %s -noout -subject -ext subjectAltName,extendedKeyUsage,keyUsage", second.CertFile)
	if before != after || second.Serial == first.Serial || second.Expires.After(time.Now().AddDate(0, 0, 30)) {
		t.Errorf("%s, was %s", after, before)
	}
	all := c.Find("db.example.com")
	if len(all) != 2 || all[0].Status != pki.StatusValid || all[0].Subject != all[1].Subject {
		t.Errorf("%+v", all)
	}
}
