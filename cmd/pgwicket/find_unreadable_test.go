//go:build unix

package main

import (
	"crypto/rand"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgwicket/internal/tlstest"
)

// The commands of docs/security.md find the certificates of a CA that Go cannot read, and no others.
func TestFindCertificatesThatGoCannotRead(t *testing.T) {
	for _, name := range []string{"bash", "openssl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	var commands []string
	for _, b := range blocks(t, "security.md") {
		if b.Section == "Certificates that Go cannot read" && b.Lang == "sh" {
			commands = append(commands, b.Text)
		}
	}
	if len(commands) != 2 {
		t.Fatalf("docs/security.md has %d blocks of commands there", len(commands))
	}
	// Before the directory is changed: the first asks for the pages.
	ca, alice := stageExplain(t)
	if err := os.Mkdir("newcerts", 0o700); err != nil {
		t.Fatal(err)
	}
	const printableString, ia5String, utf8String = 19, 22, 12
	issue := func(subject []byte, edit func(*x509.Certificate)) []byte {
		template := *alice.Leaf()
		template.RawSubject = subject
		if edit != nil {
			edit(&template)
		}
		raw, err := x509.CreateCertificate(rand.Reader, &template, ca.Cert, alice.Key.Public(), ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	twice := func(c *x509.Certificate) {
		e := tlstest.Extension([]int{2, 5, 29, 30}, false, []string{}) // nameConstraints
		c.ExtraExtensions = append(c.ExtraExtensions, e, e)
	}
	files := map[string][]byte{
		"good":        issue(tlstest.Name(tlstest.Attr("2.5.4.3", utf8String, "app_user@x")), nil),
		"printable":   issue(tlstest.Name(tlstest.Attr("2.5.4.3", printableString, "app user")), nil),
		"underscore":  issue(tlstest.Name(tlstest.Attr("2.5.4.3", printableString, "app_user")), nil),
		"at":          issue(tlstest.Name(tlstest.Attr("2.5.4.3", printableString, "app@db"), tlstest.Attr("2.5.4.10", utf8String, "x")), nil),
		"latin-1":     issue(tlstest.Name(tlstest.Attr("1.2.840.113549.1.9.1", ia5String, "ren\xe9@x.example")), nil),
		"mail":        issue(tlstest.Name(tlstest.Attr("1.2.840.113549.1.9.1", ia5String, "rene_1@x.example")), nil),
		"ext-twice":   issue(tlstest.Name(tlstest.Attr("2.5.4.3", utf8String, "app")), twice),
		"several-ext": issue(tlstest.Name(tlstest.Attr("2.5.4.3", utf8String, "app")), func(c *x509.Certificate) { c.DNSNames = []string{"a", "b"} }),
	}
	unread := []string{"at", "ext-twice", "latin-1", "underscore"}
	for name, raw := range files {
		if _, err := x509.ParseCertificate(raw); (err != nil) != slices.Contains(unread, name) {
			t.Fatalf("%s: crypto/x509 says %v", name, err)
		}
		if err := os.WriteFile(filepath.Join("newcerts", name+".pem"), encodePEM(raw), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("pgwicket.yaml", []byte("acl: {allow: [10.0.0.0/8]}\n"+documents), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range commands {
		out, err := exec.Command("bash", "-c", command).CombinedOutput() // testscript.Main has put pgwicket into PATH
		if err != nil && len(out) == 0 {
			t.Errorf("%s: %v", command, err)
		}
		var found []string
		for name := range files {
			if strings.Contains(string(out), "newcerts/"+name+".pem") {
				found = append(found, name)
			}
		}
		if slices.Sort(found); !slices.Equal(found, unread) {
			t.Errorf("%s\nfinds %q, want %q:\n%s", command, found, unread, out)
		}
	}
}
