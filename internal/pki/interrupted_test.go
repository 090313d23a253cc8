package pki_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A command may be killed between any two files. Before index.txt names the certificate
// nothing has happened; after that the next command completes it.
func TestInterruptedIssue(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	issued := client(t, c, "app")
	c.Close()
	index, names := filepath.Join(o.Dir, "index.txt"), filepath.Join(o.Dir, "names")
	stored := filepath.Join(o.Dir, "newcerts", issued.Serial+".pem")
	finals := []string{stored, names, issued.KeyFile, issued.CertFile}
	var texts []string
	for _, path := range finals {
		texts = append(texts, read(t, path))
	}
	pending := filepath.Join(o.Dir, "pending", issued.Serial)
	setAside := func() {
		if err := os.MkdirAll(pending, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(pending, "key"), texts[2])
		write(t, filepath.Join(pending, "name"), "app")
		write(t, filepath.Join(pending, "crt"), texts[0])
	}
	for done := range len(finals) + 1 {
		setAside()
		for _, path := range finals[done:] {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		c := open(t, o)
		if len(c.Recovered) != 1 || !strings.Contains(c.Recovered[0], "it is complete now") {
			t.Errorf("after %d files: %q", done, c.Recovered)
		}
		if all := c.Find("app"); len(all) != 1 || all[0].Serial != issued.Serial {
			t.Errorf("after %d files: %+v", done, all)
		}
		c.Close()
		for i, path := range finals {
			if read(t, path) != texts[i] {
				t.Errorf("after %d files, %s has changed", done, path)
			}
		}
		if entries, err := os.ReadDir(filepath.Join(o.Dir, "pending")); err != nil || len(entries) > 0 {
			t.Errorf("after %d files: %v, %v", done, entries, err)
		}
	}
	// While the directory is removed, in any order.
	for _, left := range [][]string{{}, {"key"}, {"name"}, {"crt"}, {"key", "crt"}, {"key", "name", "crt"}} {
		setAside()
		done := filepath.Join(o.Dir, "pending", ".finished-"+issued.Serial)
		if err := os.Rename(pending, done); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"key", "name", "crt"} {
			if !slices.Contains(left, name) {
				_ = os.Remove(filepath.Join(done, name))
			}
		}
		c := open(t, o)
		if entries, err := os.ReadDir(filepath.Join(o.Dir, "pending")); err != nil || len(entries) > 0 || len(c.Recovered) > 0 {
			t.Errorf("%q: %v, %v, %q", left, entries, err, c.Recovered)
		}
		c.Close()
	}
	// Before index.txt: the certificate was never issued, and its files go.
	setAside()
	write(t, index, "")
	for _, path := range finals {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, left := range []string{"key", "name", "crt", ""} {
		c := open(t, o)
		if len(c.Recovered) != 1 || !strings.Contains(c.Recovered[0], "run it again") || len(c.List()) > 0 {
			t.Errorf("%q", c.Recovered)
		}
		c.Close()
		setAside()
		if left != "" {
			_ = os.Remove(filepath.Join(pending, left))
		}
	}
	c = open(t, o)
	client(t, c, "app")
}

// Between the entry in index.txt and the list, the revocation is known and not in force.
// The next command reports it, and the same command again makes the list.
func TestInterruptedRevoke(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	client(t, c, "app")
	list, bundle := read(t, filepath.Join(o.Dir, "crl.pem")), read(t, c.ListFile())
	if _, err := c.Revoke("app", "", 0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	newer := read(t, filepath.Join(o.Dir, "crl.pem"))
	write(t, filepath.Join(o.Dir, "crl.pem"), list)
	write(t, c.ListFile(), bundle)
	c = open(t, o)
	if _, ok := c.ListAge(); ok || c.Unlisted() != 1 {
		t.Errorf("%d revoked certificates are in no list", c.Unlisted())
	}
	if revoked, err := c.Revoke("app", "", 0); err != nil || len(revoked) > 0 || c.Unlisted() != 0 {
		t.Errorf("%+v, %v", revoked, err)
	}
	c.Close()
	// Between crl.pem and root.crl.
	write(t, filepath.Join(o.Dir, "crl.pem"), newer)
	write(t, c.ListFile(), bundle)
	open(t, o)
	if !strings.HasPrefix(read(t, c.ListFile()), newer) {
		t.Error("root.crl is still the one before")
	}
}

// A number is not used twice, even if crlnumber was lost and made again.
func TestListNumbers(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	for range 3 {
		if err := c.WriteLists(1); err != nil {
			t.Fatal(err)
		}
	}
	number := must(t, o.Dir, "openssl crl -in crl.pem -noout -crlnumber")
	if !strings.HasSuffix(strings.TrimSpace(number), "04") || read(t, filepath.Join(o.Dir, "crlnumber")) != "05\n" {
		t.Error(number)
	}
	write(t, filepath.Join(o.Dir, "crlnumber"), "02\n")
	checkError(t, c.WriteLists(0), "write a larger number into crlnumber")
	write(t, filepath.Join(o.Dir, "crlnumber"), "x\n")
	checkError(t, c.WriteLists(0), "no hexadecimal number")
	checkError(t, c.WriteLists(4000), "a list lasts 1 to 3650 days")
}

// The lists are copied to the files in publish, which keep their mode.
func TestPublish(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	c := open(t, o)
	client(t, c, "app")
	path := filepath.Join(t.TempDir(), "ca.crl")
	if err := c.Publish(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	before := read(t, path)
	if _, err := c.Revoke("app", "", 0); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if after := read(t, path); after == before || after != read(t, c.ListFile()) || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v\n%s", st.Mode(), after)
	}
	if err := c.Publish(path); err != nil {
		t.Fatal(err)
	}
	if paths, err := c.Published(); err != nil || !slices.Equal(paths, []string{path}) {
		t.Errorf("%q, %v", paths, err)
	}
	write(t, filepath.Join(o.Dir, "publish"), "relative.crl\n")
	checkError(t, c.WriteLists(0), "is not an absolute path")
}

// The root's key is needed again when half of the year of its list is over.
func TestOfflineRoot(t *testing.T) {
	t.Parallel()
	o := initCA(t, nil)
	key := filepath.Join(o.Dir, "root", "private", "ca.key")
	away := filepath.Join(t.TempDir(), "ca.key")
	if err := os.Rename(key, away); err != nil {
		t.Fatal(err)
	}
	later := o
	for _, when := range []struct {
		days int
		ends bool
	}{{1, false}, {200, false}, {340, true}} {
		later.Now = daysFromNow(when.days)
		c := open(t, later)
		if err := c.WriteLists(0); err != nil {
			t.Fatal(err)
		}
		if err := c.CheckRootList(); (err != nil) != when.ends {
			t.Errorf("after %d days: %v", when.days, err)
		}
		c.Close()
	}
	before := read(t, filepath.Join(o.Dir, "root", "crl.pem"))
	if err := os.Rename(away, key); err != nil {
		t.Fatal(err)
	}
	c := open(t, later)
	if err := c.WriteLists(0); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckRootList(); err != nil || read(t, filepath.Join(o.Dir, "root", "crl.pem")) == before {
		t.Errorf("the root has no new list: %v", err)
	}
}

func daysFromNow(days int) func() time.Time {
	return func() time.Time { return time.Now().AddDate(0, 0, days) }
}
