package tlsconfig

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgwicket/internal/tlstest"
)

// checkTexts compares problems with what each of them, in order, must hold.
func checkTexts(t *testing.T, name string, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = strings.Contains(got[i], want[i]) && !strings.Contains(got[i], "\n")
	}
	if !ok {
		t.Errorf("%s: got\n\t%s\nwant\n\t%s", name, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestLoadCRLsNothing(t *testing.T) {
	t.Parallel()
	set, problems := loadClientCRLs(Options{}, nil, nil, time.Now())
	if set != nil || problems != nil || set.Infos() != nil {
		t.Errorf("got %v, %v", set, problems)
	}
}

// All faults are reported at once, in one line each: which list, what is wrong and what to do.
func TestLoadCRLFile(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	other := tlstest.NewCA("other")
	noSign := pki.root.Intermediate("no cRLSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	ca := append(pki.certs(), noSign.Cert)
	good := slices.Concat(pki.root.CRL(nil), pki.inter.CRL(nil))
	gap := `warning crl_file: there is no CRL from "CN=no cRLSign" of ca_file`
	forged := pki.inter.CRL(func(l *tlstest.CRL) { l.Key = other.Key })
	past := func(l *tlstest.CRL) { l.NextUpdate = l.ThisUpdate.Add(time.Minute) }
	for _, c := range []struct {
		name string
		file []byte
		want []string
	}{
		{"good", good, []string{gap}},
		{"of a CA that only clients have", slices.Concat(good, other.CRL(nil)), []string{
			`warning crl_file: "FILE" (block 3, from "CN=other") is not issued by a CA of ca_file`, gap,
		}},
		// cloudflare/cfssl#338: the signature is of another key.
		{"forged", slices.Concat(good, forged), []string{
			`warning crl_file: "FILE" (block 3, from "CN=intermediate") is not signed by the CA of that name in ca_file: fetch`, gap,
		}},
		{"no cRLSign", slices.Concat(good, noSign.CRL(nil)), []string{
			`warning crl_file: "FILE" (block 3, from "CN=no cRLSign") is signed by a CA whose certificate does not allow`,
		}},
		{"past", slices.Concat(good, other.CRL(past)), []string{
			`warning crl_file: "FILE" (block 3, from "CN=other") is not issued by a CA of ca_file`,
			`warning crl_file: "FILE" (block 3, from "CN=other") is out of date since `, gap,
		}},
		{"two faults", slices.Concat(forged, good, pki.root.CRL(func(l *tlstest.CRL) { l.Extensions = append(l.Extensions, deltaCRL) })), []string{
			`"FILE" (block 1, from "CN=intermediate") is not signed by the CA of that name`,
			`"FILE" (block 4, from "CN=root") is a delta CRL (extension 2.5.29.27)`, gap,
		}},
		{"changed by a bit", bytes.Replace(derOf(t, pki.root.CRL(nil)), []byte("root"), []byte("rout"), 1), []string{
			`warning crl_file: "FILE" (from "CN=rout") is not issued by a CA of ca_file`, `no CRL from "CN=root"`, `no CRL from "CN=intermediate"`, gap,
		}},
		{"not DER", []byte{0x30, 3, 1, 2, 3}, []string{`error crl_file: "FILE" is not a well-formed CRL: fetch`}},
		{"empty", nil, []string{`error crl_file: "FILE" holds no CRL`}},
		{"a certificate", pki.root.CertPEM(), []string{`error crl_file: "FILE" holds no CRL`}},
	} {
		file := filepath.Join(t.TempDir(), "crl")
		if err := os.WriteFile(file, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		for i := range c.want {
			c.want[i] = strings.ReplaceAll(c.want[i], "FILE", file)
		}
		_, problems := loadClientCRLs(Options{CRLFile: file}, poolOf(ca, false), nil, time.Now())
		checkTexts(t, c.name, texts(problems), c.want...)
	}
}

func TestLoadCRLDir(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	root, inter := pki.root.CRL(nil), pki.inter.CRL(nil)
	type files map[string][]byte // a nil content is a directory, "->" begins a link
	for _, c := range []struct {
		name  string
		files files
		lists int
		want  []string
	}{
		{"any name", files{"root.crl": root, "inter.pem": inter}, 2, nil},
		{"PEM and DER", files{"root.crl": derOf(t, root), "inter.pem": inter}, 2, nil},
		{"c_rehash", files{"root.crl": root, "1f2e3d4c.r0": []byte("->root.crl"), "inter.crl": inter}, 2, nil},
		{"Kubernetes", files{"..data": nil, "..data/root": root, "..data/inter": inter, "root": []byte("->..data/root"), "inter": []byte("->..data/inter")}, 2, nil},
		{"hidden", files{"root.crl": root, "inter.crl": inter, ".root.crl.swp": []byte("b0VIM")}, 2, nil},
		{"below", files{"root.crl": root, "inter.crl": inter, "old": nil, "old/README": []byte("text")}, 2, nil},
		{"one missing", files{"root.crl": root}, 1, []string{`warning crl_dir: there is no CRL from "CN=intermediate" of ca_file`}},
		{"a note", files{"README": []byte("the lists\n"), "root.crl": root}, 1, []string{`warning crl_dir: "DIR/README" holds no CRL`, `"CN=intermediate"`}},
		{"a dead link", files{"root.crl": []byte("->gone")}, 0, []string{`warning crl_dir: cannot read "DIR/root.crl": no such file`, `"CN=root"`, `"CN=intermediate"`}},
		{"empty", files{}, 0, []string{`warning crl_dir: "DIR" holds no CRL`, `"CN=root"`, `"CN=intermediate"`}},
	} {
		dir := t.TempDir()
		for _, name := range slices.Sorted(maps.Keys(c.files)) {
			var err error
			content := c.files[name]
			switch target, isLink := bytes.CutPrefix(content, []byte("->")); {
			case content == nil:
				err = os.Mkdir(filepath.Join(dir, name), 0o700)
			case isLink:
				err = os.Symlink(string(target), filepath.Join(dir, name))
			default:
				err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range c.want {
			c.want[i] = strings.ReplaceAll(c.want[i], "DIR", dir)
		}
		set, problems := loadClientCRLs(Options{CRLDir: dir}, poolOf(pki.certs(), false), nil, time.Now())
		checkTexts(t, c.name, texts(problems), c.want...)
		if len(set.Infos()) != c.lists {
			t.Errorf("%s: %d lists, want %d", c.name, len(set.Infos()), c.lists)
		}
	}
	_, problems := loadClientCRLs(Options{CRLDir: filepath.Join(t.TempDir(), "none")}, nil, nil, time.Now())
	checkTexts(t, "no directory", texts(problems), "error crl_dir: cannot read")
}

// The warnings of a directory full of other files leave room for those that matter.
func TestLoadCRLDirOfStrayFiles(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		write(fmt.Sprintf("note%03d", i), []byte("text\n"))
	}
	write("ca.crt", pki.root.CertPEM())
	write("root.crl", pki.root.CRL(nil))
	write("z.crl", []byte("-----BEGIN X509 CRL-----\nMII"))
	set, problems := loadClientCRLs(Options{CRLDir: dir}, poolOf(pki.certs(), false), nil, time.Now())
	var want []string
	for range maxStrayWarnings {
		want = append(want, "left aside")
	}
	want = append(want, `z.crl" holds 1 CRLs of which only 0 can be read`, "has 181 more files that hold no CRL", `"CN=intermediate"`)
	checkTexts(t, "strays", texts(problems), want...)
	if len(set.Infos()) != 1 {
		t.Errorf("%d lists, want 1", len(set.Infos()))
	}
}

// The lists of both places are used, and one that is in both is one list.
func TestLoadCRLFileAndDir(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	dir := t.TempDir()
	file := filepath.Join(dir, "root.crl")
	for name, content := range map[string][]byte{file: pki.root.CRL(nil), filepath.Join(dir, "inter.crl"): pki.inter.CRL(nil)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, problems := loadClientCRLs(Options{CRLFile: file, CRLDir: dir}, poolOf(pki.certs(), false), nil, time.Now())
	if len(set.Infos()) != 2 || problems != nil {
		t.Errorf("got %d lists, %v", len(set.Infos()), problems)
	}
}

func TestCRLInfos(t *testing.T) {
	t.Parallel()
	pki := newPKI()
	from := time.Date(2026, 11, 20, 1, 2, 3, 0, time.UTC)
	set, _ := loadList(t, pki.certs(), slices.Concat(
		pki.root.CRL(func(l *tlstest.CRL) { l.Version, l.ThisUpdate, l.NextUpdate = 1, from, time.Time{} }),
		pki.inter.CRL(func(l *tlstest.CRL) {
			l.Number, l.ThisUpdate, l.NextUpdate = big.NewInt(4711), from, from.AddDate(0, 0, 7)
			l.Revoke(pki.alice.Leaf(), pki.inter.Cert)
			l.Revoked[0].Reason = 8 // removeFromCRL
		})))
	infos := set.Infos()
	for i := range infos {
		infos[i].File = filepath.Base(infos[i].File)
	}
	got := fmt.Sprintf("%+v", infos)
	want := "[{File:crl Issuer:CN=root ThisUpdate:2026-11-20 01:02:03 +0000 UTC NextUpdate:0001-01-01 00:00:00 +0000 UTC Number:<nil> Entries:0 Kept:false Problem:}" +
		" {File:crl Issuer:CN=intermediate ThisUpdate:2026-11-20 01:02:03 +0000 UTC NextUpdate:2026-11-27 01:02:03 +0000 UTC Number:+4711 Entries:2 Kept:false Problem:}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Two CAs with one name, as after a change of keys, have a list each. grpc/grpc-go (security/advancedtls/crl.go) keys lists
// by name, and the last one is used for both.
func TestTwoCAsOfOneName(t *testing.T) {
	t.Parallel()
	one, two := tlstest.NewCA("root"), tlstest.NewCA("root")
	alice := one.Client("alice").Leaf()
	same := two.Client("bob", func(c *x509.Certificate) { c.SerialNumber = alice.SerialNumber }).Leaf()
	revokes := func(l *tlstest.CRL) { l.Revoke(alice) }
	ca := []*x509.Certificate{one.Cert, two.Cert}
	for _, c := range []struct {
		name       string
		crl        []byte
		alice, bob Reason
	}{
		{"both empty", slices.Concat(one.CRL(nil), two.CRL(nil)), "", ""},
		{"one revokes", slices.Concat(one.CRL(revokes), two.CRL(nil)), ReasonRevoked, ""},
		{"one revokes, the other way round", slices.Concat(two.CRL(nil), one.CRL(revokes)), ReasonRevoked, ""},
		{"two revokes", slices.Concat(one.CRL(nil), two.CRL(revokes)), "", ReasonRevoked},
		{"only one has a list", one.CRL(nil), "", ReasonCRLMissing},
	} {
		set, problems := loadList(t, ca, c.crl)
		if hasError(problems) {
			t.Fatal(problems)
		}
		v := newVerifier(ClientCertRequire, ca, false, set)
		if got := reasonOf(t, v, time.Now(), alice); got != c.alice {
			t.Errorf("%s: of the first %q, want %q", c.name, got, c.alice)
		}
		if got := reasonOf(t, v, time.Now(), same); got != c.bob {
			t.Errorf("%s: of the second %q, want %q", c.name, got, c.bob)
		}
	}
}

// A list whose issuer is sent by clients only is verified with the CA in the chain of the first of them.
func TestListOfCAThatClientsSend(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA("root")
	inter := root.Intermediate("intermediate")
	impostor := root.Intermediate("intermediate") // the same name, another key
	noSign := root.Intermediate("no cRLSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	alice, bob, carol := inter.Client("alice"), impostor.Client("bob"), noSign.Client("carol")
	ca := []*x509.Certificate{root.Cert}
	set, problems := loadList(t, ca, slices.Concat(root.CRL(nil), inter.CRL(nil), noSign.CRL(nil)))
	checkTexts(t, "load", problems, "is not issued by a CA of ca_file", "is not issued by a CA of ca_file")
	v := newVerifier(ClientCertRequire, ca, false, set)
	for _, c := range []struct {
		pair *tlstest.Pair
		want Reason
	}{{alice, ""}, {bob, ReasonCRLMissing}, {carol, ReasonCRLMissing}, {alice, ""}} {
		if got := reasonOf(t, v, time.Now(), c.pair.Chain...); got != c.want {
			t.Errorf("%s: %q, want %q", c.pair.Leaf().Subject.CommonName, got, c.want)
		}
	}

	// A chain that does not end in an anchor is refused before any list is used for it.
	stranger := tlstest.NewCA("stranger").Intermediate("intermediate").Client("eve")
	if got := reasonOf(t, v, time.Now(), stranger.Chain...); got != ReasonUnknownCA {
		t.Errorf("%q", got)
	}
}

// haproxy/haproxy#2324, dotnet/aspnetcore#19398: lists of 500 KB and, in PEM, of 20 MB.
func TestBigCRLs(t *testing.T) {
	t.Parallel()
	sizes := []int{14_000, 400_000}
	if testing.Short() {
		sizes = sizes[:1]
	}
	ca := tlstest.NewCA("ca")
	for _, n := range sizes {
		list, serial := ca.BigCRL(n)
		set, problems := loadList(t, []*x509.Certificate{ca.Cert}, list)
		if problems != nil {
			t.Fatal(problems)
		}
		v := newVerifier(ClientCertRequire, []*x509.Certificate{ca.Cert}, false, set)
		revoked := ca.Client("revoked", func(c *x509.Certificate) { c.SerialNumber = new(big.Int).SetBytes(serial) }).Leaf()
		if got := reasonOf(t, v, time.Now(), revoked); got != ReasonRevoked {
			t.Errorf("%d bytes, the last entry: %q", len(list), got)
		}
		if got := reasonOf(t, v, time.Now(), ca.Client("good").Leaf()); got != "" {
			t.Errorf("%d bytes: %q", len(list), got)
		}
	}
}

// Load compares with the server in use, the detail of a refusal names the kept list, and the server before does not change.
func TestLoadKeepsNewerCRL(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	alice := s.ca.Client("alice")
	o := s.options()
	s.write(t, "ca.crl", s.ca.CRL(numbered(7, alice.Leaf())))
	first := load(t, o)
	s.write(t, "ca.crl", s.ca.CRL(numbered(5)))
	second, problems := Load(o, first, nil, time.Now())
	if second == nil || len(problems) != 1 || !problems[0].Warning || problems[0].Key != "crl_file" {
		t.Fatalf("%v", problems)
	}
	if want := `"` + o.CRLFile + `" (block 1, from "CN=root") goes back from number 7 to number 5, so the newer list from before the reload is kept in use with it: ` +
		`install the CA's newest list, or restart pgwicket to drop the kept one`; problems[0].Text != want {
		t.Errorf("got  %s\nwant %s", problems[0].Text, want)
	}
	err := second.verifier.check(alice.Chain, time.Now())
	if err == nil || !strings.Contains(err.Error(), `(block 1, from "CN=root", kept from before a reload)`) {
		t.Errorf("got %v", err)
	}
	if len(second.CRLs) != 2 || second.CRLs[0].Kept || !second.CRLs[1].Kept || first.CRLs[0].Kept || first.verifier.crls.Infos()[0].Kept {
		t.Errorf("first %+v, second %+v", first.CRLs, second.CRLs)
	}

	// A restart drops the kept list, and so does removing the option for a while.
	if third, problems := Load(o, nil, nil, time.Now()); third == nil || problems != nil {
		t.Errorf("after a restart: %v", problems)
	}
	without := o
	without.CRLFile = ""
	third, _ := Load(without, second, nil, time.Now())
	if third == nil || third.CRLs != nil {
		t.Fatal("without crl_file")
	}
	if fourth, problems := Load(o, third, nil, time.Now()); fourth == nil || problems != nil {
		t.Errorf("without crl_file for a while: %v", problems)
	}
}

// Reloads as operators do them: the same files again, bad ones, good ones (Gr33nbl00d/caddy-revocation-validator#26,
// ghostunnel/ghostunnel#219).
func TestReloadClientCRLs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	alice := s.ca.Client("alice")
	o := s.options()
	inForce := load(t, o)
	good := must(os.ReadFile(o.CRLFile))
	for _, c := range []struct {
		name string
		file []byte
		ok   bool
		want Reason
	}{
		{"the same", good, true, ""},
		{"cut short", good[:len(good)/2], false, ""},
		{"revoking", s.ca.CRL(func(l *tlstest.CRL) { l.Number = big.NewInt(2); l.Revoke(alice.Leaf()) }), true, ReasonRevoked},
		{"empty", nil, false, ReasonRevoked},
		{"a web page", []byte("<html>"), false, ReasonRevoked},
		{"one good, one bad", slices.Concat(good, bytes.Replace(good, []byte("\n"), []byte("\n?"), 2)), false, ReasonRevoked},
		{"by another CA", tlstest.NewCA("root").CRL(numbered(9)), true, ReasonRevoked},
		{"DER", derOf(t, s.ca.CRL(func(l *tlstest.CRL) { l.Number = big.NewInt(3) })), true, ""},
	} {
		s.write(t, "ca.crl", c.file)
		next, problems := Load(o, inForce, nil, time.Now())
		if (next != nil) != c.ok {
			t.Errorf("%s: %v", c.name, problems)
		}
		if next != nil {
			inForce = next
		} else if problems[0].Key != "crl_file" {
			t.Errorf("%s: %v", c.name, problems)
		}
		if got := reasonOf(t, inForce.verifier, time.Now(), alice.Chain...); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// numbered makes a list with that number, issued a day later than the one before it.
func numbered(n int64, revoked ...*x509.Certificate) func(*tlstest.CRL) {
	return func(l *tlstest.CRL) {
		l.Number = big.NewInt(n)
		l.ThisUpdate = time.Now().AddDate(0, 0, int(n)-20)
		l.Revoke(revoked...)
	}
}

func derOf(t testing.TB, list []byte) []byte {
	t.Helper()
	block, rest := pem.Decode(list)
	if block == nil || len(rest) != 0 {
		t.Fatal("not one PEM block")
	}
	return block.Bytes
}
