package tlsconfig

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
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
	set, problems := loadCRLs(Options{}, nil, nil, time.Now())
	if set != nil || problems != nil || set.infos() != nil {
		t.Errorf("got %v, %v", set, problems)
	}
}

// Which list is wrong, why, and what to do: one line for each, all of them at once.
func TestLoadCRLFile(t *testing.T) {
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
			`warning crl_file: "FILE" (block 3, from "CN=other") is issued by no CA of ca_file`, gap,
		}},
		// pitfall 31 (cfssl#338): the signature is by somebody else.
		{"forged", slices.Concat(good, forged), []string{
			`error crl_file: "FILE" (block 3, from "CN=intermediate") is signed by somebody else than the CA of that name in ca_file: fetch`,
		}},
		{"no cRLSign", slices.Concat(good, noSign.CRL(nil)), []string{
			`error crl_file: "FILE" (block 3, from "CN=no cRLSign") is signed by a CA whose certificate does not allow`,
		}},
		{"past", slices.Concat(good, other.CRL(past)), []string{
			`warning crl_file: "FILE" (block 3, from "CN=other") is issued by no CA of ca_file`,
			`warning crl_file: "FILE" (block 3, from "CN=other") is out of date since `, gap,
		}},
		{"two faults", slices.Concat(forged, good, pki.root.CRL(func(l *tlstest.CRL) { l.Extensions = append(l.Extensions, deltaCRL) })), []string{
			`"FILE" (block 1, from "CN=intermediate") is signed by somebody else`,
			`"FILE" (block 4, from "CN=root") is a delta CRL (extension 2.5.29.27)`,
		}},
		{"changed by a bit", bytes.Replace(derOf(t, pki.root.CRL(nil)), []byte("root"), []byte("rout"), 1), []string{
			`warning crl_file: "FILE" (from "CN=rout") is issued by no CA of ca_file`, `no CRL from "CN=root"`, `no CRL from "CN=intermediate"`, gap,
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
		_, problems := loadCRLs(Options{CRLFile: file}, ca, nil, time.Now())
		checkTexts(t, c.name, texts(problems), c.want...)
	}
}

func TestLoadCRLFileUnreadable(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "not a regular file",
		fifo:                       "not a regular file",
	} {
		set, problems := loadCRLs(Options{CRLFile: file}, nil, nil, time.Now())
		checkTexts(t, file, texts(problems), want)
		if set == nil {
			t.Error("a nil set would be no revocation checking")
		}
	}
}

func TestLoadCRLDir(t *testing.T) {
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
		{"a note", files{"README": []byte("the lists\n"), "root.crl": root}, 1, []string{`error crl_dir: "DIR/README" holds no CRL`}},
		{"a dead link", files{"root.crl": []byte("->gone")}, 0, []string{`error crl_dir: cannot read "DIR/root.crl": no such file`}},
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
		set, problems := loadCRLs(Options{CRLDir: dir}, pki.certs(), nil, time.Now())
		checkTexts(t, c.name, texts(problems), c.want...)
		if len(set.lists) != c.lists {
			t.Errorf("%s: %d lists, want %d", c.name, len(set.lists), c.lists)
		}
	}
	_, problems := loadCRLs(Options{CRLDir: filepath.Join(t.TempDir(), "none")}, nil, nil, time.Now())
	checkTexts(t, "no directory", texts(problems), "error crl_dir: cannot read")
}

// A list in both places is one list, and the two places add up.
func TestLoadCRLFileAndDir(t *testing.T) {
	pki := newPKI()
	dir := t.TempDir()
	file := filepath.Join(dir, "root.crl")
	for name, content := range map[string][]byte{file: pki.root.CRL(nil), filepath.Join(dir, "inter.crl"): pki.inter.CRL(nil)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, problems := loadCRLs(Options{CRLFile: file, CRLDir: dir}, pki.certs(), nil, time.Now())
	if len(set.lists) != 2 || problems != nil {
		t.Errorf("got %d lists, %v", len(set.lists), problems)
	}
}

func TestCRLInfos(t *testing.T) {
	pki := newPKI()
	from := time.Date(2026, 11, 20, 1, 2, 3, 0, time.UTC)
	set, _ := loadList(t, pki.certs(), slices.Concat(
		pki.root.CRL(func(l *tlstest.CRL) { l.Version, l.ThisUpdate, l.NextUpdate = 1, from, time.Time{} }),
		pki.inter.CRL(func(l *tlstest.CRL) {
			l.Number, l.ThisUpdate, l.NextUpdate = big.NewInt(4711), from, from.AddDate(0, 0, 7)
			l.Revoke(pki.alice.Leaf(), pki.inter.Cert)
			l.Revoked[0].Reason = reasonRemoveFromCRL
		})))
	infos := set.infos()
	for i := range infos {
		infos[i].File = filepath.Base(infos[i].File)
	}
	got := fmt.Sprintf("%+v", infos)
	want := "[{File:crl Issuer:CN=root ThisUpdate:2026-11-20 01:02:03 +0000 UTC NextUpdate:0001-01-01 00:00:00 +0000 UTC Number:<nil> Entries:0 Kept:false}" +
		" {File:crl Issuer:CN=intermediate ThisUpdate:2026-11-20 01:02:03 +0000 UTC NextUpdate:2026-11-27 01:02:03 +0000 UTC Number:+4711 Entries:2 Kept:false}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// pitfall 31: two CAs with one name, as after a change of keys, have a list each; grpc-go keys lists by name and the
// last one wins.
func TestTwoCAsOfOneName(t *testing.T) {
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

// A list whose issuer only clients bring is verified when the first of them does, against the CA in that chain.
func TestListOfCAThatClientsBring(t *testing.T) {
	root := tlstest.NewCA("root")
	inter := root.Intermediate("intermediate")
	impostor := root.Intermediate("intermediate") // the same name, another key
	noSign := root.Intermediate("no cRLSign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	alice, bob, carol := inter.Client("alice"), impostor.Client("bob"), noSign.Client("carol")
	ca := []*x509.Certificate{root.Cert}
	set, problems := loadList(t, ca, slices.Concat(root.CRL(nil), inter.CRL(nil), noSign.CRL(nil)))
	checkTexts(t, "load", problems, "is issued by no CA of ca_file", "is issued by no CA of ca_file")
	v := newVerifier(ClientCertRequire, ca, false, set)
	for _, c := range []struct {
		pair *tlstest.Pair
		want Reason
	}{{alice, ""}, {bob, ReasonCRLMissing}, {carol, ReasonCRLMissing}, {alice, ""}} {
		if got := reasonOf(t, v, time.Now(), c.pair.Chain...); got != c.want {
			t.Errorf("%s: %q, want %q", c.pair.Leaf().Subject.CommonName, got, c.want)
		}
	}

	// The chain of a stranger does not end in an anchor: no list is looked at for it.
	stranger := tlstest.NewCA("stranger").Intermediate("intermediate").Client("eve")
	list := set.byIssuer[string(inter.Cert.RawSubject)][0]
	before := len(list.signers.known)
	if got := reasonOf(t, v, time.Now(), stranger.Chain...); got != ReasonUnknownCA || len(list.signers.known) != before {
		t.Errorf("%q, %d keys tried, before %d", got, len(list.signers.known), before)
	}
}

// However many CAs of one name a trusted CA makes up, what is remembered of them does not grow.
func TestSignersAreBounded(t *testing.T) {
	ca := tlstest.NewCA("ca")
	l, err := parseCRL(derOf(t, ca.CRL(nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2*signersLimit + 1 {
		if l.signedBy(tlstest.NewCA("ca").Cert) {
			t.Fatal("signed by another key")
		}
		if !l.signedBy(ca.Cert) {
			t.Fatal("not signed by its own")
		}
	}
	if n := len(l.signers.known); n > signersLimit {
		t.Errorf("%d keys are remembered", n)
	}
}

// pitfall 32 (haproxy#2324, aspnetcore#19398): lists of 500 KB and, in PEM, of 20 MB.
func TestBigCRLs(t *testing.T) {
	sizes := []int{14_000, 400_000}
	if testing.Short() {
		sizes = sizes[:1]
	}
	ca := tlstest.NewCA("ca")
	for _, n := range sizes {
		list, serial := bigCRL(t, ca, n)
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

// A list costs its DER and some bytes an entry, not an object an entry, and the file that it came in is forgotten.
func TestCRLMemory(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	ca := tlstest.NewCA("ca")
	file := filepath.Join(t.TempDir(), "crl")
	list, serial := bigCRL(t, ca, n)
	if err := os.WriteFile(file, list, 0o600); err != nil {
		t.Fatal(err)
	}
	serial = bytes.Clone(serial)
	before := heap()
	start := time.Now()
	set, problems := loadCRLs(Options{CRLFile: file}, []*x509.Certificate{ca.Cert}, nil, time.Now())
	took := time.Since(start)
	grown := heap() - before
	if problems != nil {
		t.Fatal(problems)
	}
	l := set.lists[0]
	if _, ok := l.revoked.find(serial); !ok || l.revoked.count != n {
		t.Errorf("%d entries, the last one there: %t", l.revoked.count, ok)
	}
	t.Logf("%d entries: loaded in %v, %.1f bytes each", n, took, float64(grown)/float64(n))
	if grown > 64*int64(n) {
		t.Errorf("%d bytes for each of %d entries", grown/int64(n), n)
	}
	runtime.KeepAlive(set)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a finalizer held on to
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
