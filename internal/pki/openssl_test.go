package pki_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/pki"
)

// opensslCA runs "openssl ca" in the directory.
func opensslCA(t *testing.T, dir, line string, args ...any) {
	t.Helper()
	must(t, dir, "openssl ca -batch -notext -config openssl.cnf -passin pass:%s %s", strings.ReplaceAll(passphrase, " ", "-"), fmt.Sprintf(line, args...))
}

// hyphenated is a passphrase that can be an argument.
func hyphenated(o *pki.InitOptions) {
	o.Secrets.Ask = func(string) ([]byte, error) { return []byte(strings.ReplaceAll(passphrase, " ", "-")), nil }
}

// openssl and pgwicket issue and revoke in the same directory, ten times in turn. What
// either has written the other writes again to the last byte.
func TestInTurnWithOpenSSL(t *testing.T) {
	t.Parallel()
	o := initCA(t, hyphenated)
	index := filepath.Join(o.Dir, "index.txt")
	must(t, o.Dir, "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.csr -subj /CN=other")
	for i := range 10 {
		ours, theirs := fmt.Sprintf("ours%d", i), fmt.Sprintf("theirs%d", i)
		c := open(t, o)
		issued := client(t, c, ours)
		client(t, c, ours+" bis")
		c.Close()
		opensslCA(t, o.Dir, "-subj /CN=%s -in other.csr -out %[1]s.crt", theirs)
		opensslCA(t, o.Dir, "-revoke %s -crl_reason superseded", issued.CertFile)
		opensslCA(t, o.Dir, "-gencrl -out crl.pem")

		before := read(t, index)
		c = open(t, o)
		if len(c.Find(ours)) != 1 || c.Find(ours)[0].Status != pki.StatusRevoked || c.Unlisted() != 0 {
			t.Fatalf("openssl has revoked %s: %+v", ours, c.Find(ours))
		}
		if err := c.WriteLists(0); err != nil { // does not touch index.txt
			t.Fatal(err)
		}
		if _, err := c.Revoke(theirs, "keyCompromise", 0); err != nil {
			t.Fatal(err)
		}
		c.Close()
		compareIndex(t, before, read(t, index), theirs)
		checkVerdicts(t, o.Dir, ours, theirs)

		// openssl writes the whole file; nothing in it differs.
		before = read(t, index)
		opensslCA(t, o.Dir, "-updatedb")
		opensslCA(t, o.Dir, "-subj /CN=last -in other.csr -out last.crt")
		if after := read(t, index); !strings.HasPrefix(after, before) || strings.Count(after, "\n") != strings.Count(before, "\n")+1 {
			t.Fatalf("openssl writes the index of pgwicket in another way:\n%s\nwas\n%s", after, before)
		}
	}
}

// compareIndex: only the line of the revoked name has changed, and as openssl writes it.
func compareIndex(t *testing.T, before, after, name string) {
	t.Helper()
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	if len(was) != len(is) {
		t.Fatalf("%d lines were %d", len(is), len(was))
	}
	for i := range was {
		revoked := strings.HasSuffix(was[i], "/CN="+name)
		fields := strings.Split(is[i], "\t")
		if !revoked && was[i] != is[i] || revoked && (fields[0] != "R" || !strings.HasSuffix(fields[2], "Z,keyCompromise")) {
			t.Errorf("line %d is %q, was %q", i+1, is[i], was[i])
		}
	}
}

// checkVerdicts asks openssl: both are revoked.
func checkVerdicts(t *testing.T, dir, ours, theirs string) {
	t.Helper()
	for _, file := range []string{"issued/" + ours + ".crt", theirs + ".crt"} {
		out, err := command(t, dir, "openssl verify -crl_check_all -CAfile root.crt -CRLfile root.crl %s", file)
		if err == nil || !strings.Contains(out, "certificate revoked") {
			t.Errorf("%s: %s", file, out)
		}
	}
	if out, err := command(t, dir, "openssl verify -x509_strict -crl_check_all -CAfile root.crt -CRLfile root.crl %s", "last.crt"); err != nil && !strings.Contains(out, "No such file") {
		t.Error(out)
	}
}

// A list of the same index, number and time is the same to the last byte, signature and
// all: RSA signs the same octets in the same way.
func TestListsAreOpenSSLs(t *testing.T) {
	t.Parallel()
	o := initCA(t, func(o *pki.InitOptions) { hyphenated(o); o.KeyType = pki.RSA })
	now := time.Now().UTC().Truncate(time.Second)
	o.Now = func() time.Time { return now }
	c := open(t, o)
	for i, reason := range append(pki.Reasons(), "") {
		if reason == "unspecified" {
			continue // openssl writes it, and RFC 5280 says that it should be left out
		}
		client(t, c, fmt.Sprint("app", i))
		if _, err := c.Revoke(fmt.Sprint("app", i), reason, 0); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	compareLists(t, o, now)
	if ours, theirs := read(t, filepath.Join(o.Dir, "crl.pem")), read(t, filepath.Join(o.Dir, "theirs.crl")); ours != theirs {
		t.Errorf("ours:\n%s\ntheirs:\n%s", must(t, o.Dir, "openssl crl -in crl.pem -noout -text"), must(t, o.Dir, "openssl crl -in theirs.crl -noout -text"))
	}
	// crypto/x509 writes further extensions of an entry before the reason, and openssl after it.
	c = open(t, o)
	client(t, c, "held")
	client(t, c, "known")
	c.Close()
	opensslCA(t, o.Dir, "-revoke issued/held.crt -crl_hold holdInstructionReject")
	opensslCA(t, o.Dir, "-revoke issued/known.crt -crl_compromise 20261101000000Z")
	compareLists(t, o, now)
	sorted := func(file string) []string {
		text, _, _ := strings.Cut(must(t, o.Dir, "openssl crl -in %s -noout -text", file), "Signature Value")
		return slices.Sorted(strings.Lines(text))
	}
	if ours, theirs := sorted("crl.pem"), sorted("theirs.crl"); !slices.Equal(ours, theirs) || !strings.Contains(strings.Join(ours, ""), "Hold Instruction Reject") {
		t.Errorf("ours:\n%s\ntheirs:\n%s", ours, theirs)
	}
}

// compareLists has openssl write theirs.crl and pgwicket crl.pem with the same number and
// times.
func compareLists(t *testing.T, o pki.Options, now time.Time) {
	t.Helper()
	number := read(t, filepath.Join(o.Dir, "crlnumber"))
	const form = "20060102150405Z"
	from := now.Add(-time.Hour)
	opensslCA(t, o.Dir, "-gencrl -out theirs.crl -crl_lastupdate %s -crl_nextupdate %s", from.Format(form), from.AddDate(0, 0, 7).Format(form))
	write(t, filepath.Join(o.Dir, "crlnumber"), number)
	c := open(t, o)
	defer c.Close()
	if err := c.WriteLists(7); err != nil {
		t.Fatal(err)
	}
}

// What openssl has in index.txt for the subjects of our names is what we write.
func TestSubjects(t *testing.T) {
	t.Parallel()
	o := initCA(t, hyphenated)
	c := open(t, o)
	for _, name := range []string{"app", "data loader", "bob@example.com", "Jürgen", "日本", `a'b"c`, "O=x", "50%"} {
		issued := client(t, c, name)
		// openssl enters a certificate that it does not know when it revokes it.
		index := filepath.Join(o.Dir, "index.txt")
		lines := strings.Split(strings.TrimSuffix(read(t, index), "\n"), "\n")
		ours := lines[len(lines)-1]
		write(t, index, strings.Join(append(lines[:len(lines)-1], ""), "\n"))
		opensslCA(t, o.Dir, "-revoke newcerts/%s.pem", issued.Serial)
		lines = strings.Split(strings.TrimSuffix(read(t, index), "\n"), "\n")
		fields := strings.Split(lines[len(lines)-1], "\t")
		fields[0], fields[2] = "V", ""
		if theirs := strings.Join(fields, "\t"); theirs != ours {
			t.Errorf("%q: %q, openssl writes %q", name, ours, theirs)
		}
		c.Close()
		c = open(t, o)
		if all := c.Find(name); len(all) != 1 || all[0].Name != name {
			t.Errorf("%q: %+v", name, all)
		}
	}
}
